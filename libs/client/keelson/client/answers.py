"""What the services answer."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import msgspec

from keelson.client.errors import UnreachableError
from keelson.events.ids import Position

R = TypeVar("R")


class EventRef(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a command appended."""

    position: Position
    type: str
    version: int
    aggregate_id: str
    seq: int


class CommandResult(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """What one command of a bundle came to."""

    changed: bool
    result: R
    events: tuple[EventRef, ...]


class Answer(CommandResult[R], Generic[R], frozen=True, kw_only=True):
    """What a command came to: durable when this is in hand, and in the views too where `projected`.

    `position` is its last event's; of a command that changed nothing, the one that this was confirmed at.
    """

    position: Position
    projected: bool
    epoch: str | None = None


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of the query service; `body` is None for 304. Headers are found whatever their case."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def position(self) -> Position:
        """The position that the body reflects; raises KeyError where the path reflects none."""
        return Position(int(self.headers["Keelson-Position"]))


@contextmanager
def understanding() -> Iterator[None]:
    """Take what cannot be read as what was asked for, as from something in between, for no answer: UnreachableError.

    What it holds is not told.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError) as error:  # the ones of msgspec are of ValueError
        raise UnreachableError("an answer that is not of the service, or not of one that this client knows") from error
