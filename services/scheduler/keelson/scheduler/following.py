"""The world kept up to date: the feed, folded from its beginning, a command at a time."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec
import structlog

from keelson.client import ProblemError
from keelson.client.reads.events import EventItem
from keelson.client.stream import Change, FeedItem, Resync
from keelson.events import REGISTRY, UnknownEventError
from keelson.scheduler.domain.model import Fact
from keelson.scheduler.domain.world import World

# What begins after a cursor, at the beginning for None.
Feed = Callable[[str | None], AsyncGenerator[FeedItem, None]]

# Between attempts while the credential is refused: it may yet be made, or be made good again.
REFUSED_PAUSE_S = 2.0

_log = structlog.get_logger()


class Follower:
    """Follows the log; `world` is as of the last command that came whole, in the lineage `epoch`.

    What it does not know, because something newer wrote it, it neither skips nor dies of: the world stays as it was
    before, `trouble` says why, and a newer scheduler must take over.
    """

    def __init__(self, feed: Feed, on_change: Callable[[], None]) -> None:
        self._feed = feed
        self._on_change = on_change
        self._held: list[EventItem] = []
        self._moved = asyncio.Condition()
        self.world = World()
        self._cursor: str | None = None
        self.trouble: str | None = None

    @property
    def epoch(self) -> str | None:
        """The lineage that is followed; None before anything of it has come."""
        return None if self._cursor is None else self._cursor.partition("-")[0]

    async def run(self) -> None:
        """Follow for ever; when the log turns out to be another, begin anew."""
        while True:
            try:
                await self._follow()
            except ProblemError as error:
                self.trouble = f"the feed is refused: {error.code}"
                _log.warning("feed_refused", error=str(error))
                await asyncio.sleep(REFUSED_PAUSE_S)
            except UnknownEventError as error:
                self.trouble = f"after position {self.world.position} comes an {error}: a newer scheduler is needed"
                _log.warning("behind_schema", why=self.trouble)
                await asyncio.Event().wait()

    async def _follow(self) -> None:
        self._held = []
        async with aclosing(self._feed(self._cursor)) as items:
            async for item in items:
                self.trouble = None
                self._take(item)
                async with self._moved:
                    self._moved.notify_all()

    async def reached(self, position: int, timeout_s: float) -> None:
        """Wait until the world is at least there, so long at most."""
        try:
            async with asyncio.timeout(timeout_s), self._moved:
                await self._moved.wait_for(lambda: self.world.position >= position)
        except TimeoutError:
            _log.warning("feed_slow", position=position, seen=self.world.position)

    def _take(self, item: FeedItem) -> None:
        match item:
            case Change():
                self._held.append(item.event)
                if item.event.command_end:
                    self._apply()
            case Resync():
                _log.warning("log_is_another", epoch=item.epoch)
                self.world, self._cursor, self._held = World(), None, []
        if not isinstance(item, Resync) and item.cursor is not None:
            self._cursor = item.cursor
            self._on_change()

    def _apply(self) -> None:
        """Take in a whole command: nobody sees half of it, and what cannot be read is not taken in at all."""
        facts = [fact_of(each) for each in self._held]
        self._held = []
        for fact in facts:
            self.world.apply(fact)


def fact_of(item: EventItem) -> Fact:
    """Read an event of the feed. Raises UnknownEventError for one that a newer writer wrote."""
    payload = msgspec.json.encode(item.payload)
    return Fact(
        position=item.position,
        recorded_at=item.recorded_at,
        aggregate_id=item.aggregate_id,
        seq=item.seq,
        env_id=item.env_id,
        node_id=item.node_id,
        event=REGISTRY.decode(item.type, item.version, payload),
    )
