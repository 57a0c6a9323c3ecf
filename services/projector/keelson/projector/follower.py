"""One projection on this replica: reads on and applies while it holds the lease, and stops where it must."""

import asyncio
import math
import time
from contextlib import suppress

import msgspec
import structlog

from keelson.log.database import Pool
from keelson.projector import checkpoints, metrics
from keelson.projector.announcer import Announcer
from keelson.projector.applier import PASSING, Applier, Place
from keelson.projector.batch import Batch
from keelson.projector.checkpoints import Checkpoint, CheckpointMovedError
from keelson.projector.folding import Stop
from keelson.projector.leases import Leases
from keelson.projector.pages import Pages
from keelson.views import Projection

# How long the rate of events remembers, in seconds.
RATE_MEMORY_S = 10.0

log = structlog.get_logger()


class Follower:
    """Runs one projection. `wake` makes it look at the log; it looks by itself each `poll_interval_s` at least.

    Any number of wakings while it looks make it look once more (F22).
    """

    def __init__(
        self,
        projection: Projection,
        *,
        pool: Pool,
        pages: Pages,
        leases: Leases,
        announcer: Announcer,
        poll_interval_s: float,
    ) -> None:
        self.projection = projection
        self.name = projection.name
        self.wake = asyncio.Event()
        self._pool = pool
        self._pages = pages
        self._leases = leases
        self._announcer = announcer
        self._poll_interval_s = poll_interval_s
        self._applier = Applier(projection, pool)
        self._place: Place | None = None
        self._stopped_at: int | None = None
        self._unknown_at: int | None = None
        self._rate = 0.0
        self._applied_at = time.monotonic()

    def is_fit_for(self, checkpoint: Checkpoint | None) -> bool:
        """Whether this process should run the projection: its code fits, and did not fail at this very place before.

        What another process stopped at is tried once: this one may have newer code.
        """
        if checkpoint is None:
            return True
        if checkpoint.version != self.projection.version:
            return False
        if self._unknown_at is not None and checkpoint.position < self._unknown_at:
            return False
        return checkpoint.state != "stopped" or checkpoint.error_position != self._stopped_at

    def forget_stops(self) -> None:
        """Try all places again: in another epoch other events are there."""
        self._stopped_at = self._unknown_at = None

    async def run(self) -> None:
        """Follow the log until cancelled; outlives the database's absence."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_interval_s):
                    await self.wake.wait()
            self.wake.clear()
            try:
                await self._follow()
            except CheckpointMovedError:
                self._place = None
                self._pages.forget()
                self._leases.doubt(self.name)
                log.info("checkpoint_moved", projection=self.name)
            except PASSING as error:
                self._place = None
                log.warning("projection_waits", projection=self.name, error=type(error).__name__)

    async def _follow(self) -> None:
        """Apply pages until there are no more, or the projection stops, or the lease is gone."""
        while self._leases.holds(self.name):
            place = self._place or await self._find_place()
            if place is None:
                return
            batch = await self._pages.read(place.position)
            if batch.envelopes:
                await self._apply(place, batch)
            if self._place is None or self._pages.is_end(batch):
                return
        self._place = None

    async def _find_place(self) -> Place | None:
        """Read where the projection is, and begin it if it never began; None if it is not for this process."""
        checkpoint = await checkpoints.read_checkpoint(self._pool, self.name)
        if checkpoint is None:
            async with self._pool.acquire() as connection:
                await checkpoints.begin(connection, self.projection)
            checkpoint = await checkpoints.read_checkpoint(self._pool, self.name)
        if checkpoint is None or not self.is_fit_for(checkpoint):
            return None
        self._place = Place(checkpoint.position, await checkpoints.read_skips(self._pool, self.name))
        return self._place

    async def _apply(self, place: Place, batch: Batch) -> None:
        began_at = time.monotonic()
        applied = await self._applier.apply(place, batch, self._rate_with(len(batch.envelopes)))
        done = len(applied.batch.envelopes)
        self._place = place._replace(position=applied.batch.end)
        if done:
            self._rate, self._applied_at = self._rate_with(done), time.monotonic()
            self._announcer.announce(self.name, applied.batch.end)
            metrics.page_applied(self.name, done, self._applied_at - began_at)
        if applied.stop is not None:
            await self._stop(applied.batch, applied.stop)

    async def _stop(self, batch: Batch, stop: Stop) -> None:
        """Record why the projection does not go on, and leave it to others."""
        self._place = None
        if stop.state == "behind_schema":
            self._unknown_at = stop.position
        else:
            self._stopped_at = stop.position
        try:
            await self._applier.stop(batch, stop)
        except BaseException:
            self.forget_stops()  # the epoch may have changed since the event was read
            raise
        log.error("projection_stopped", projection=self.name, **msgspec.structs.asdict(stop))
        await self._leases.release([self.name])

    def _rate_with(self, events: int) -> float:
        """Give the events per second, these among them, smoothed over RATE_MEMORY_S."""
        elapsed_s = max(time.monotonic() - self._applied_at, 1e-3)
        weight = 1 - math.exp(-elapsed_s / RATE_MEMORY_S)
        return self._rate + weight * (events / elapsed_s - self._rate)
