"""The follower: the one task of a replica that reads the log, whatever the number of streams."""

import asyncio

import structlog

from keelson.events.ids import Position
from keelson.log.database import UNAVAILABLE, Database
from keelson.log.listen import Listener
from keelson.log.read import read_command_end, read_head, read_page
from keelson.log.tail import Tail
from keelson.query.feed import metrics
from keelson.query.feed.hub import Hub
from keelson.service.epoch import Epoch

# How many events one look brings at most, beside the rest of a command.
PAGE_EVENTS = 500
PAGE_BYTES = 4 * 1024 * 1024
# What the ring begins with, so that who reconnects to a replica that was restarted finds what it missed (F32).
LOOK_BACK_EVENTS = 2000
# A lost notification costs no more: streams must end within a second of a revocation (F34).
POLL_INTERVAL_S = 0.5
RETRY_S = 0.2

_log = structlog.get_logger()


class Follower:
    """Brings the log to a hub, in order and whole commands at a time; `listener` is run by somebody else.

    A log of another epoch, or one that ends before what was read, is another log: the hub begins anew, and all streams
    are told so (F26).
    """

    def __init__(self, db: Database, listener: Listener, hub: Hub, epoch: Epoch) -> None:
        self._db = db
        self._hub = hub
        self._epoch = epoch
        self._tail = Tail(listener, poll_interval_s=POLL_INTERVAL_S)

    async def run(self) -> None:
        """Follow until cancelled; outlives the database's absence."""
        is_away = False
        while True:
            try:
                await self.look()
                is_away = False
                metrics.TALLY.count()
                await self._tail.wait_beyond(self._hub.end)
            except UNAVAILABLE as error:
                if not is_away:
                    _log.warning("log_unread", error=repr(error))
                is_away = True
                await asyncio.sleep(RETRY_S)

    async def look(self) -> None:
        """Bring all that the log has by now."""
        if self._hub.epoch is None:
            await self._begin("this replica has just begun")
        while not await self._bring():
            pass
        self._hub.catch_up()

    async def _bring(self) -> bool:
        """Bring a page; give whether it was the last."""
        page = await read_page(self._db, self._hub.end, PAGE_EVENTS, max_bytes=PAGE_BYTES)
        if page.epoch != self._hub.epoch:
            await self._begin("another epoch has begun")
            return False
        if page.head < self._hub.end:
            await self._begin("the log ends before what was read of it")
            return False
        metrics.ARRIVED.inc(len(page.envelopes))
        self._hub.publish(page.envelopes)
        metrics.LAG.set(page.head - self._hub.end)
        return self._hub.end >= page.head or not page.envelopes

    async def _begin(self, reason: str) -> None:
        """Begin anew, a little before the head, at the end of a command."""
        head = await read_head(self._db)
        end = await read_command_end(self._db, max(head.position - LOOK_BACK_EVENTS, 0))
        self._epoch.learn(head.epoch)
        self._hub.restart(head.epoch, end or Position(0), reason)
