"""What a stream tells: any source of frames, driven by `stream`."""

from typing import Protocol

from keelson.events.ids import Position
from keelson.log.read import Filter
from keelson.query.feed.hub import Subscription


class SourceEndedError(Exception):
    """What is told of is there no more: the stream ends, and whoever asks again is told so."""


class Source(Protocol):
    """What one client is told, in order. Only its stream calls it, one call after the other.

    `sought` says which events of the log may change what there is to tell.
    """

    @property
    def sought(self) -> Filter:
        """Which events wake the stream."""

    @property
    def is_caught_up(self) -> bool:
        """Whether `read` has given all that there is to tell by now; else `wait` would return at once."""

    async def begin(self, subscription: Subscription) -> None:
        """Make sure that the stream can begin; raises Problem. Nothing has been answered yet."""

    async def read(self) -> bytes:
        """Give the next frames, in one piece of bounded size; b"" where there is nothing to tell, or not yet.

        Called again, without waiting, until it gives b"". It may wait for the database: it is cancelled when the stream
        must end, and not called again; `bookmark` may be. Raises SourceEndedError when there will never be anything
        again, and what the database raises when it is away: it is then called again later.
        """

    def read_at_once(self, quiet_to: Position) -> bytes | None:
        """Give what `read` would give now, while the stream sleeps, and there is nothing more after it.

        Nothing concerned the source up to a position. None where that cannot be told without waiting, or if something
        is left to tell: the stream is woken, and `read` gives the rest.
        """

    async def wait(self, timeout_s: float) -> None:
        """Sleep until there may be something to tell, at most so long; by the subscription, which can be interrupted.

        Called when `read` gave b"", with nothing awaited in between. If there may be something by now, it returns.
        """

    def bookmark(self) -> bytes:
        """Give the frame that says how far the client is now; b"" where the last frame with an id said it already."""
