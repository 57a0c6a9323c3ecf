"""Announcing checkpoints, coalesced: notifying transactions share a lock with appends, so there are few of them."""

import asyncio

import structlog

from keelson.log.database import UNAVAILABLE, Database
from keelson.log.queries import load

# At most one notifying transaction in this time, whatever the projections do.
INTERVAL_S = 0.005

_ANNOUNCE = load(__file__, "announce")

log = structlog.get_logger()


class Announcer:
    """Tells waiting services how far projections are: the latest position of each, never one that is not committed."""

    def __init__(self, db: Database, *, interval_s: float = INTERVAL_S) -> None:
        self._db = db
        self._interval_s = interval_s
        self._latest: dict[str, int] = {}
        self._pending = asyncio.Event()

    def announce(self, projection: str, position: int) -> None:
        """Tell a position soon; a later one of the same projection may take its place."""
        self._latest[projection] = position
        self._pending.set()

    async def run(self) -> None:
        """Send what is pending, until cancelled. What cannot be sent is dropped: waiting services poll as well."""
        while True:
            await self._pending.wait()
            self._pending.clear()
            latest, self._latest = self._latest, {}
            try:
                await self._db.fetch(_ANNOUNCE, [f"{name} {position}" for name, position in latest.items()])
            except UNAVAILABLE as error:
                log.warning("announcement_lost", error=type(error).__name__)
            await asyncio.sleep(self._interval_s)
