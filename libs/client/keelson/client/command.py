"""What a typed command is, and what may be said with it."""

from typing import ClassVar, Generic, NamedTuple, Protocol, TypedDict, TypeVar, Unpack

import msgspec

from keelson.client.answers import Answer

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class Command(msgspec.Struct, Generic[R_co], frozen=True, kw_only=True, omit_defaults=True):
    """A command's fields; its class knows its name and what it results in. What is left at its default is not sent.

    A field that is None by default says nothing by None. Where null means something of its own, the default is UNSET.
    """

    command_name: ClassVar[str]
    result_type: ClassVar[type[msgspec.Struct]]

    def at(self, seq: int) -> "Guarded[R_co]":
        """Give this command for a bundle, to take effect only while what it acts on is at this seq."""
        return Guarded(self, seq)


class Guarded(NamedTuple, Generic[R_co]):
    """A command of a bundle, and the seq that what it acts on must be at."""

    command: Command[R_co]
    if_match: int


class Options(TypedDict, total=False):
    """What may accompany any command.

    Without an `idempotency_key` one is minted, so that the repeats of one call are safe; give one to repeat the call
    itself. With `wait_s` the answer waits so long at most for the views (see `Answer.projected`). `correlation_id` and
    `causation`, the position of the event that caused this, are kept on the events.
    """

    idempotency_key: str | None
    wait_s: int | None
    correlation_id: str | None
    causation: int | None


class Sender(Protocol):
    """Sends typed commands."""

    async def send(
        self,
        command: Command[R],
        *,
        reason: str | None = None,
        if_match: int | None = None,
        **options: Unpack[Options],
    ) -> Answer[R]:
        """Send a command; raises what `Client` says."""
