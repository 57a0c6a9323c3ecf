"""The source that tells the log itself: everything after a cursor that matches, whether it happened long ago or now.

One code path (F29): what is in the ring is read from it, what is older from the database; both give all that matches
after the cursor, and neither knows what woke the stream.
"""

from keelson.events import Envelope
from keelson.events.ids import Position
from keelson.log.read import Filter, read_filtered, read_head
from keelson.query.feed import frames, metrics
from keelson.query.feed.chunks import MAX_CHUNK_BYTES, Chunk, read_ring, tell
from keelson.query.feed.feed import Feed
from keelson.query.feed.hub import Subscription
from keelson.query.feed.refusals import refused
from keelson.query.feed.ring import Entry
from keelson.query.freshness import require_epoch
from keelson.query.places import Place
from keelson.service.problems import Problem

# Matches that one statement of catching up brings: few at first, and more only while they are small, since an event may
# have a megabyte, and a page is held until it is told.
PAGE_EVENTS = 50
FIRST_PAGE_EVENTS = 10


class EventSource:
    """Tells one client the events that match, after a place."""

    def __init__(self, feed: Feed, sought: Filter, after: Place) -> None:
        self._feed = feed
        self._hub = feed.hub
        self._after = after
        self._epoch = ""
        self._subscription: Subscription
        self._examined = after.position
        self._told: Position | None = None
        self._page_events = min(FIRST_PAGE_EVENTS, PAGE_EVENTS)
        self.sought = sought

    @property
    def is_caught_up(self) -> bool:
        """Whether all that has arrived in this replica was looked at."""
        return self._examined >= self._hub.end

    async def begin(self, subscription: Subscription) -> None:
        """Refuse a place of another epoch or beyond the head, after looking in the database (F30)."""
        self._subscription = subscription
        self._epoch = await self._feed.require_begun()
        if not self._after.is_of(self._epoch) or self._after.position > self._hub.end:
            head = await read_head(self._feed.db)
            require_within(self._after, head.epoch, head.position)
            if head.epoch != self._epoch:
                raise refused("Another epoch has just begun")

    async def read(self) -> bytes:
        """Give what matches in the next part of what has arrived in this replica; there may be nothing in it."""
        if self.is_caught_up:
            return b""
        return self._take(await self._next_chunk())

    def read_at_once(self, quiet_to: Position) -> bytes | None:
        """Give what matches of what has arrived, if it is one chunk of the ring."""
        self._examined = max(self._examined, quiet_to)
        if self._examined < self._hub.ring.start:
            return None
        chunk = self._read_ring()
        return self._take(chunk) if chunk.examined == self._hub.end else None

    async def wait(self, timeout_s: float) -> None:
        """Sleep until something that matches may have arrived."""
        quiet_to = await self._subscription.wait(self._examined, timeout_s)
        self._examined = max(self._examined, quiet_to)  # what was told at once meanwhile is examined too

    def bookmark(self) -> bytes:
        """Give the place up to which all that matches has been told."""
        if self._examined == self._told:
            return b""
        self._told = self._examined
        return frames.write_bookmark(self._epoch, self._examined)

    async def _next_chunk(self) -> Chunk:
        return self._read_ring() if self._examined >= self._hub.ring.start else await self._catch_up(self._examined)

    def _read_ring(self) -> Chunk:
        return read_ring(self._hub.ring, self._subscription.interest, self._examined, self._epoch)

    def _take(self, chunk: Chunk) -> bytes:
        self._examined = chunk.examined
        if chunk.told:
            self._told = chunk.told
            metrics.TALLY.events += chunk.events
            metrics.TALLY.bytes += len(chunk.data)
        return chunk.data

    async def _catch_up(self, after: Position) -> Chunk:
        """Read a page from the database; no connection is held while it is told, and none while waiting for a turn."""
        async with self._feed.catching_up:
            page = await read_filtered(self._feed.db, after, self._page_events, self.sought)
        metrics.CATCH_UPS.inc()
        self._page_events = following_page(self._page_events, sum(len(each.payload) for each in page.envelopes))
        end = self._hub.end
        if page.epoch != self._epoch or end < after:
            raise ConnectionError("this is another log")  # the follower finds out, and all streams are told
        # Never beyond what has arrived here: what ends a stream must be seen before what comes after it (F34).
        return tell(_entries(page.envelopes, end), min(page.examined, end), self._epoch)


def following_page(events: int, size_bytes: int) -> int:
    """Give how many matches the next page may bring, by what the one before took: about what is told at once."""
    fitting = events * MAX_CHUNK_BYTES // max(size_bytes, 1)
    return max(1, min(fitting, 4 * events, PAGE_EVENTS))


def _entries(envelopes: list[Envelope], end: Position) -> list[Entry]:
    return [Entry(envelope) for envelope in envelopes if envelope.position <= end]


def require_within(after: Place, epoch: str, head: int) -> None:
    """Raise Problem `cursor_expired` for a cursor of another epoch, or beyond the head (F26, F30)."""
    require_epoch(after.epoch, epoch)
    if after.position > head:
        raise Problem("cursor_expired", f"The cursor is beyond the head, which is {head}")
