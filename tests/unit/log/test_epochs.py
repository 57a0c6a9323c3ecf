"""What a process knows of epochs, and which servers it enters; without a server."""

from collections.abc import Collection
from typing import Any

import pytest

from keelson.log.epochs import Epochs, LineageError, enter_log
from keelson.service.epoch import Epoch


class Server:
    """Answers to whoever enters, and counts how often it was asked which epochs have ended."""

    def __init__(self, epoch: str | None, *, ended: Collection[str] = (), standby: bool = False) -> None:
        self._answer = {"epoch": epoch, "standby": standby}
        self._ended = ended
        self.asked = 0

    async def fetchrow(self, *_args: Any) -> Any:
        """Answer."""
        return self._answer

    async def fetchval(self, *_args: Any) -> Any:
        """Tell which have ended."""
        self.asked += 1
        return self._ended


async def enter(server: Server, epochs: Epochs, *, standby: bool = False) -> str:
    return await enter_log(server, epochs, {}, found_by="a test", standby=standby)  # type: ignore[arg-type]


async def test_f26_a_standby_is_entered_by_who_reads_alone() -> None:
    """It is in the epoch that it was sent last, and nothing can be written there, no epoch either."""
    epochs = Epochs()
    with pytest.raises(LineageError, match="the server is a standby"):
        await enter(Server("one", standby=True), epochs)
    assert epochs.name is None
    assert await enter(Server("one", standby=True), epochs, standby=True) == epochs.name == "one"


async def test_f26_an_epoch_that_has_ended_is_not_entered_again() -> None:
    epochs = Epochs()
    told: list[str] = []
    epochs.on_change(told.append)
    for name in ("one", "one", "two", "two"):
        assert await enter(Server(name), epochs) == name
    with pytest.raises(LineageError, match="an epoch that has ended"):
        await enter(Server("one"), epochs)
    assert (epochs.name, told) == ("two", ["one", "two"])


async def test_f26_what_the_log_says_has_ended_is_not_entered_by_who_never_saw_it() -> None:
    """A process that began after the failover meets the old primary once; the true one is what it goes on with."""
    epochs = Epochs()
    true = Server("three", ended=["one", "two"])
    assert await enter(true, epochs) == "three"
    for name, ended in (("two", ["one"]), ("one", [])):
        with pytest.raises(LineageError, match="an epoch that has ended"):
            await enter(Server(name, ended=ended), epochs)
    assert await enter(true, epochs) == epochs.name == "three"


async def test_which_epochs_have_ended_is_asked_only_in_one_that_is_not_known() -> None:
    epochs = Epochs()
    servers = [Server("one"), Server("two", ended=["one"])]
    for server in servers:
        for _ in range(3):
            await enter(server, epochs)
    assert [server.asked for server in servers] == [1, 1]


async def test_f26_an_epoch_that_began_between_the_two_questions_is_entered_next() -> None:
    """The log is asked which have ended after it was asked for its epoch, which may be among them by then."""
    epochs = Epochs()
    assert await enter(Server("one", ended=["none", "one"]), epochs) == epochs.name == "one"
    assert await enter(Server("one"), epochs) == "one"
    assert await enter(Server("two", ended=["none", "one"]), epochs) == epochs.name == "two"


def test_the_epoch_that_is_known_is_shown_on_answers() -> None:
    epoch = Epoch()
    assert list(epoch.headers) == []
    epoch.learn("one")
    assert list(epoch.headers) == [(b"keelson-epoch", b"one")]
