"""Leases: who runs a projection, by the database's clock. They only avoid double work; the compare-and-set guards."""

import os
import secrets
import socket
import time
from collections.abc import Collection

from keelson.log.database import Database
from keelson.log.queries import load

DURATION_S = 3.0
RENEW_INTERVAL_S = 1.0

_TAKE = load(__file__, "take_leases")
_DROP = load(__file__, "drop_leases")


def mint_holder() -> str:
    """Name this process among all that ever ran: host, process and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


class Leases:
    """The leases of one process.

    `holds` errs on the side of no: it counts from before the database was asked, so that it says no before the database
    gives the lease to another. A process that was frozen after it asked can still be wrong; see the compare-and-set.
    """

    def __init__(self, db: Database, holder: str, *, duration_s: float = DURATION_S) -> None:
        self._db = db
        self.holder = holder
        self._duration_s = duration_s
        self._until: dict[str, float] = {}

    def holds(self, name: str) -> bool:
        """Whether this process holds a lease, as far as it can know."""
        return time.monotonic() < self._until.get(name, 0.0)

    async def take(self, names: Collection[str]) -> None:
        """Take or renew what is free or ours; what another has is no longer ours. One statement."""
        asked_at = time.monotonic()
        rows = await self._db.fetch(_TAKE, list(names), self.holder, self._duration_s)
        self._until = {row["name"]: asked_at + self._duration_s for row in rows}

    def doubt(self, name: str) -> None:
        """Hold a lease no more until it was taken anew."""
        self._until.pop(name, None)

    async def release(self, names: Collection[str]) -> None:
        """Give leases back, whether they are held or not."""
        for name in names:
            self.doubt(name)
        await self._db.fetch(_DROP, list(names), self.holder)
