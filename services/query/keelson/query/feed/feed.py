"""The feed of one replica: what all its streams share."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from keelson.log.database import Database
from keelson.log.listen import Listener
from keelson.query.feed import metrics
from keelson.query.feed.admission import Admission
from keelson.query.feed.follower import Follower
from keelson.query.feed.guard import Guard
from keelson.query.feed.hub import Hub
from keelson.query.feed.refusals import refused
from keelson.query.feed.ring import Ring
from keelson.query.settings import QuerySettings
from keelson.service.authentication import Authenticator
from keelson.service.credentials import Caller
from keelson.service.epoch import Epoch
from keelson.service.lifecycle import on_stop
from keelson.service.problems import unavailable

# Statements at once for streams that are behind the ring: they leave most of the pool to others.
CATCH_UP_READS = 4
# How long may pass until a replica that has just begun knows the log.
BEGIN_TIMEOUT_S = 2.0
# A client that takes nothing holds a service that stops no longer than this.
LAST_SEND_TIMEOUT_S = 2.0

_log = structlog.get_logger()


class Feed:
    """The hub, who fills it, who watches over its streams, and who is let in."""

    def __init__(
        self,
        db: Database,
        listener: Listener,
        authenticator: Authenticator,
        settings: QuerySettings,
        epoch: Epoch | None = None,
    ) -> None:
        self.db = db
        self.guard = Guard(authenticator)
        ring = Ring(max_events=settings.feed_ring_events, max_bytes=settings.feed_ring_bytes)
        self.hub = Hub(ring, look_closely=self.guard.look_closely)
        self._epoch = epoch or Epoch()
        self.follower = Follower(db, listener, self.hub, self._epoch)
        self.catching_up = asyncio.Semaphore(CATCH_UP_READS)
        self.bookmark_interval_s = settings.feed_bookmark_interval_s
        self._send_timeout_s = settings.feed_send_timeout_s
        self._admission = Admission(settings.feed_max_streams)
        metrics.watch_feed(lambda: self.streams, lambda: len(ring), lambda: ring.bytes)

    @property
    def streams(self) -> int:
        """How many are open: streams, and reads that wait."""
        return self._admission.streams

    @property
    def send_timeout_s(self) -> float:
        """What a client may take to take a chunk; less while the service stops."""
        return min(self._send_timeout_s, LAST_SEND_TIMEOUT_S) if self.hub.is_stopping else self._send_timeout_s

    async def run(self) -> None:
        """Follow the log and guard the streams, until cancelled. Streams end once the service stops accepting (F33)."""
        on_stop(self.hub.stop)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.follower.run(), name="feed follower")
            tasks.create_task(self.guard.run(), name="feed guard")

    @contextmanager
    def admitted(self, caller: Caller) -> Iterator[None]:
        """Count one stream, or whoever waits likewise, until the end of the body.

        Raises Problem `unavailable` or `rate_limited`.
        """
        if self.hub.is_stopping:
            raise unavailable("This replica stops; others answer", retry_after_s=1)
        with self._admission.admitted(caller.grants):
            yield

    async def require_begun(self) -> str:
        """Give the epoch, once anything is known of the log.

        Raises Problem `unavailable` if that takes too long, and while what was read is of an epoch that has ended: the
        process knows of another by its first connection to it, before anything is read of that (F26).
        """
        if not await self.hub.until_begun(BEGIN_TIMEOUT_S) or self.hub.epoch is None:
            raise refused("This replica does not know the log yet")
        if self.hub.epoch != self._epoch.name:
            raise refused("Another epoch has just begun")
        return self.hub.epoch
