"""How the projections stand, by the database's own account."""

from typing import Any, Self

import msgspec

from keelson.log.database import Database
from keelson.log.queries import load

_READ_STANDING = load(__file__, "read_standing")


class ProjectionError(msgspec.Struct, frozen=True):
    """The event that a projection cannot take, and why."""

    position: int
    event_type: str | None
    message: str | None


class ProjectionItem(msgspec.Struct, frozen=True, kw_only=True):
    """One projection: `lag_s` is the age of the oldest event that is not applied, `rate` in events per second."""

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
            name=row["projection"],
            version=row["version"],
            state=row["state"],
            checkpoint=row["position"],
            lag_events=max(row["head"] - row["position"], 0),
            lag_s=row["lag_s"] or 0.0,
            rate=row["rate"],
            holder=row["holder"],
            error=None if row["error_position"] is None else error,
        )


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """All projections that ever began, and the head and the epoch of the same snapshot."""

    epoch: str
    head: int
    items: tuple[ProjectionItem, ...]

    def read_item(self, projection: str) -> ProjectionItem | None:
        """Give one projection's; None if it never began."""
        return next((item for item in self.items if item.name == projection), None)


async def read_standing(db: Database) -> Standing:
    """Read how the projections stand. Raises LookupError on a log that was never begun."""
    rows = await db.fetch(_READ_STANDING)
    if not rows:
        raise LookupError("the log has no head: migrate the database first")
    items = tuple(ProjectionItem.of(row) for row in rows if row["projection"] is not None)
    return Standing(epoch=rows[0]["epoch"], head=rows[0]["head"], items=items)
