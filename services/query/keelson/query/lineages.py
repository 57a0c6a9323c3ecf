"""The epochs of the log and where each began: what tells a row of one history from its like in another (F26)."""

from bisect import bisect_right
from typing import NamedTuple

from keelson.events import REGISTRY
from keelson.events.ids import AggregateId
from keelson.events.platform import EpochBegan
from keelson.log.database import Database
from keelson.log.read import read_aggregate

_PLATFORM = AggregateId("platform_00000000000000000000000000")
# More epochs than any log will have.
_ALL = 100_000


class _Began(NamedTuple):
    """Where an epoch began."""

    position: int
    epoch: str


class Lineages:
    """Knows in which epoch an event was appended; the log is asked once for each epoch that begins."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._began: list[_Began] = []

    async def epoch_at(self, position: int, epoch: str) -> str | None:
        """Give the epoch of the event at a position, in the log of an epoch; None if that is its first.

        Raises what the database raises when it is away.
        """
        if not self._began or self._began[-1].epoch != epoch:
            self._began = await self._read()
        place = bisect_right(self._began, position, key=lambda began: began.position)
        return self._began[place - 1].epoch if place > 1 else None

    async def _read(self) -> list[_Began]:
        began: list[_Began] = []
        for each in await read_aggregate(self._db, _PLATFORM, 0, _ALL):
            event = REGISTRY.decode(each.type, each.version, each.payload)
            if isinstance(event, EpochBegan):
                began.append(_Began(each.position, event.epoch))
        return began
