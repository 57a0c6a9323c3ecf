"""What a service holds: memory, open files, sessions of the database. What it was before, it should be again."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from keelson.local.child import Child
from keelson.log.database import Connection

# Each service's sessions that are not its pool's, by their names: of each there is one, no more and no less.
SINGLE_SESSIONS = {
    "keelson-command-append",
    "keelson-command-listener",
    "keelson-projector-listener",
    "keelson-query-listener",
}

_SESSIONS = """
    SELECT application_name AS name, state, xact_start IS NOT NULL AS in_transaction
    FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'keelson-%' AND backend_type = 'client backend'
"""


class Footprint(NamedTuple):
    """What one process holds; `files` are the open ones but for sessions of the database."""

    resident_bytes: int
    files: int


class Sessions(NamedTuple):
    """The database's sessions, by name, and how many of them are within a transaction or at work."""

    of: Counter[str]
    busy: int

    @property
    def total(self) -> int:
        """How many there are."""
        return self.of.total()

    def of_service(self, service: str) -> int:
        """How many a service has."""
        return sum(number for name, number in self.of.items() if f"{name}-".startswith(f"keelson-{service}-"))


async def read_sessions(admin: Connection) -> Sessions:
    """Give the services' sessions."""
    rows = await admin.fetch(_SESSIONS)
    return Sessions(Counter(row["name"] for row in rows), sum(row["in_transaction"] for row in rows))


def read_footprints(processes: Iterable[Child], sessions: Sessions) -> dict[str, Footprint]:
    """Give what each process holds, by its name; there must be one of each service."""
    return {
        process.name: Footprint(
            _resident_bytes(process), _open_files(process) - sessions.of_service(process.name.partition("-")[0])
        )
        for process in processes
    }


def _open_files(process: Child) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


def _resident_bytes(process: Child) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    (kibibytes,) = [line.split()[1] for line in lines if line.startswith("VmRSS")]
    return int(kibibytes) * 1024
