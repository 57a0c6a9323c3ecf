"""The log, read once for all projections of this replica that are at the same place."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from keelson.events import REGISTRY, Registry
from keelson.events.ids import Position
from keelson.log.database import Database, Pool
from keelson.log.read import read_page
from keelson.projector.batch import Batch

T = TypeVar("T")

# How far projections can drift apart and still share what was read: a fast one never waits for a slow one.
KEPT_EVENTS = 20_000
KEPT_BYTES = 32 * 1024 * 1024
KEPT_BATCHES = 64
# And for how long.
KEPT_S = 2.0
# How long the end of the log is left alone after it was read: what comes in between makes one page for all
# projections, and round trips are most of what a small page costs. The fuller the page was, the longer the rest: where
# events are few a row is in its view at once, and where they are many the cores are for those who append. The first
# event after a pause does not wait.
SHORTEST_REST_S = 0.006
LONGEST_REST_S = 0.02
REST_PER_EVENT_S = 0.0005


class LogGapError(Exception):
    """Positions are missing in the log. That cannot happen (F2); nothing is read past it."""


async def read_batch(db: Database, after: int, limit: int, registry: Registry = REGISTRY) -> Batch:
    """Read the events after a position: one statement. Raises LogGapError."""
    page = await read_page(db, Position(after), limit)
    envelopes = page.envelopes
    if envelopes and (envelopes[0].position != after + 1 or envelopes[-1].position != after + len(envelopes)):
        raise LogGapError(f"positions are missing in the log after {after}")
    return Batch(after, envelopes, page.head, registry, epoch=page.epoch)


async def read_through(
    db: Pool, after: int, page_size: int, fold: Callable[[Batch], T], write: Callable[[T], Awaitable[None]]
) -> int:
    """Fold and write every batch after a position, one after another, up to the head; give where that was.

    The next is read and folded while one is written: the database works meanwhile. Raises what reading, `fold` and
    `write` raise; nothing is written any more then.
    """

    async def read(position: int) -> tuple[Batch, T]:
        batch = await read_batch(db, position, page_size)
        return batch, fold(batch)

    batch, folded = await read(after)
    while not batch.is_last:
        batch, folded = await _read_during(write(folded), read(batch.end))
    if batch.envelopes:
        await write(folded)
    return batch.end


async def _read_during(working: Awaitable[None], reading: Coroutine[Any, Any, tuple[Batch, T]]) -> tuple[Batch, T]:
    try:
        async with asyncio.TaskGroup() as tasks:
            read = tasks.create_task(reading)
            await working
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    return read.result()


class Pages:
    """Reads the log after any position; projections that ask for the same place share one read.

    A projection that lags reads pages of its own, larger ones, and keeps nobody waiting: reads of different places do
    not wait for each other.
    """

    def __init__(self, db: Database, *, page_size: int, lagging_page_size: int, registry: Registry = REGISTRY) -> None:
        self._db = db
        self._page_size = page_size
        self._lagging_page_size = lagging_page_size
        self._registry = registry
        self._kept: deque[tuple[float, Batch]] = deque()
        self._kept_events = 0
        self._kept_bytes = 0
        self._reading: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._head = 0
        self._hearing = 0
        self._rests_until = 0.0
        self.reads = 0

    def hear(self) -> None:
        """Take note that the log may hold more than what was read so far."""
        self._hearing += 1

    def forget(self) -> None:
        """Keep nothing of what was read: it may be of a lineage of the log that has ended."""
        self._kept.clear()
        self._kept_events = self._kept_bytes = 0

    def is_end(self, batch: Batch) -> bool:
        """Whether a batch went to the log's end, and nothing was heard of more since its reading began."""
        return batch.is_last and batch.hearing == self._hearing

    async def read(self, after: int) -> Batch:
        """Give the events after a position, as many as one page holds; an empty batch when there are none."""
        lock = self._reading.get(after)
        if lock is None:
            lock = self._reading[after] = asyncio.Lock()
        async with lock:
            return self._find(after) or await self._read(after)

    def _find(self, after: int) -> Batch | None:
        while self._kept and (self._kept[-1][0] < time.monotonic() - KEPT_S or self._holds_too_much()):
            self._count(self._kept.pop()[1], -1)
        for _, batch in self._kept:
            if batch.start <= after < batch.end:
                return batch.since(after)
        return None

    def _holds_too_much(self) -> bool:
        return self._kept_events > KEPT_EVENTS or self._kept_bytes > KEPT_BYTES or len(self._kept) > KEPT_BATCHES

    def _count(self, batch: Batch, sign: int) -> None:
        self._kept_events += sign * len(batch.envelopes)
        self._kept_bytes += sign * batch.size_bytes

    async def _read(self, after: int) -> Batch:
        at_end = after >= self._head
        if at_end:
            await self._rest()
        lagging = self._head - after > self._page_size
        self.reads += 1
        hearing = self._hearing
        began_at = time.monotonic()
        batch = await read_batch(
            self._db, after, self._lagging_page_size if lagging else self._page_size, self._registry
        )
        batch.hearing = hearing
        self._head = batch.head
        if at_end:
            self._rests_until = began_at + rest_after(len(batch.envelopes))
        if batch.envelopes:
            self._kept.appendleft((time.monotonic(), batch))
            self._count(batch, 1)
        return batch

    async def _rest(self) -> None:
        left_s = self._rests_until - time.monotonic()
        if left_s > 0:
            await asyncio.sleep(left_s)


def rest_after(events: int) -> float:
    """Give for how long the end of the log is not read again after a page of so many events was read there."""
    return min(max(SHORTEST_REST_S, events * REST_PER_EVENT_S), LONGEST_REST_S)
