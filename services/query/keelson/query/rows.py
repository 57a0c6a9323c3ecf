"""Reads of single rows, grouped: those that come while one is under way share the next, as appends do."""

import asyncio
from collections import defaultdict
from typing import NamedTuple

from keelson.log.database import Database
from keelson.query.confinement import Reach
from keelson.query.reads import RowsReading, View


class _Source(NamedTuple):
    """What is read from, and how far."""

    view: View
    reach: Reach


class _Wait(NamedTuple):
    """Somebody wants the row of a key."""

    key: str
    reading: asyncio.Future[RowsReading]


class RowReader:
    """Reads rows of views by their keys: one statement at a time for each view and reach, whoever asks for what rows.

    A statement begins after all whom it answers have asked, so no answer is older than its question. Borrowing a
    connection and a round trip cost more than reading a row; shared by those who ask at once they cost little, and
    hundreds who ask take one connection of the pool for each view and organisation.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waits: dict[_Source, list[_Wait]] = defaultdict(list)
        self._busy: set[_Source] = set()
        self._asked = asyncio.Event()

    async def read(self, view: View, key: str, *, reach: Reach) -> RowsReading:
        """Give a reading that holds the row of this key, if there is one within reach. Raises what reading raises."""
        wait = _Wait(key, asyncio.get_running_loop().create_future())
        self._waits[_Source(view, reach)].append(wait)
        self._asked.set()
        return await wait.reading

    async def run(self) -> None:
        """Read what is asked for, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._asked.wait()
                self._asked.clear()
                for source in self._waits.keys() - self._busy:
                    self._busy.add(source)
                    tasks.create_task(self._read_all(source))

    async def _read_all(self, source: _Source) -> None:
        """Read from a source until nobody waits for it."""
        while waits := self._waits.pop(source, None):
            await self._read(source, waits)
        self._busy.discard(source)

    async def _read(self, source: _Source, waits: list[_Wait]) -> None:
        try:
            reading = await source.view.read_rows(self._db, {wait.key for wait in waits}, reach=source.reach)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what those who asked must hear
            for wait in waits:
                if not wait.reading.done():
                    wait.reading.set_exception(error)
        else:
            for wait in waits:
                if not wait.reading.done():
                    wait.reading.set_result(reading)
