"""What a process knows of epochs, and which servers it enters; without a server."""

from typing import Any

import pytest

from keelson.log.epochs import Epochs, LineageError, enter_log
from keelson.service.epoch import Epoch


class Server:
    """Answers to whoever enters."""

    def __init__(self, epoch: str | None, *, standby: bool = False) -> None:
        self._answer = {"epoch": epoch, "standby": standby}

    async def fetchrow(self, *_args: Any) -> Any:
        """Answer."""
        return self._answer


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


def test_the_epoch_that_is_known_is_shown_on_answers() -> None:
    epoch = Epoch()
    assert list(epoch.headers) == []
    epoch.learn("one")
    assert list(epoch.headers) == [(b"keelson-epoch", b"one")]
