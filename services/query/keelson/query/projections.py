"""How the projections are doing, by the database's own account."""

from typing import Any, Self

import msgspec

from keelson.log.database import Database
from keelson.log.queries import load

_READ_PROJECTIONS = load(__file__, "read_projections")


class ProjectionError(msgspec.Struct, frozen=True):
    """The event that stopped a projection, and what its handler said."""

    position: int
    event_type: str | None
    message: str | None


class ProjectionItem(msgspec.Struct, frozen=True, kw_only=True):
    """One projection: `lag_s` is the age of the oldest event that it has not applied, `rate` in events per second."""

    name: str
    version: int
    state: str
    checkpoint: int
    lag_events: int
    lag_s: float
    rate: float
    holder: str | None
    error: ProjectionError | None

    @classmethod
    def of(cls, row: Any) -> Self:
        """Make one of a row of the statement. When all is applied, there is no oldest event and no lag."""
        error = ProjectionError(row["error_position"], row["error_type"], row["error_message"])
        return cls(
            name=row["name"],
            version=row["version"],
            state=row["state"],
            checkpoint=row["checkpoint"],
            lag_events=row["lag_events"],
            lag_s=row["lag_s"] or 0.0,
            rate=row["rate"],
            holder=row["holder"],
            error=None if row["error_position"] is None else error,
        )


class ProjectionsPage(msgspec.Struct, frozen=True, kw_only=True):
    """All projections and the head, of one snapshot."""

    items: list[ProjectionItem]
    head: int


async def read_projections(db: Database) -> tuple[str, ProjectionsPage]:
    """Give the epoch and the page. Raises LookupError on a log that was never begun."""
    rows = await db.fetch(_READ_PROJECTIONS)
    if not rows:
        raise LookupError("the log has no head: migrate the database first")
    items = [ProjectionItem.of(row) for row in rows if row["name"] is not None]
    return rows[0]["epoch"], ProjectionsPage(items=items, head=rows[0]["head"])
