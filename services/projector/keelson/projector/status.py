"""How the projections stand, by the database's own account, and what an operator should know of it."""

from collections.abc import Iterator, Mapping
from typing import Any, Self

import msgspec

from keelson.log.database import Database
from keelson.log.queries import load
from keelson.projector.checkpoints import Checkpoint
from keelson.views import Projection

_READ_STANDING = load(__file__, "read_standing")


class EventError(msgspec.Struct, frozen=True):
    """The event that a projection cannot take, and why."""

    position: int
    event_type: str | None
    message: str | None


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One projection: `lag_s` is the age of the oldest event that is not applied, `rate` in events per second."""

    name: str
    version: int
    state: str
    checkpoint: int
    lag_events: int
    lag_s: float
    rate: float
    holder: str | None
    error: EventError | None

    @classmethod
    def of(cls, row: Any) -> Self:
        """Make one of a row of the statement."""
        error = EventError(row["error_position"], row["error_type"], row["error_message"])
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

    @property
    def as_checkpoint(self) -> Checkpoint:
        """The checkpoint's row alone."""
        return Checkpoint(
            version=self.version,
            position=self.checkpoint,
            state=self.state,
            error_position=self.error.position if self.error else None,
        )


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """All projections that ever began, and the head of the same snapshot."""

    head: int
    items: tuple[Item, ...]

    def read_item(self, projection: str) -> Item | None:
        """Give one projection's; None if it never began."""
        return next((item for item in self.items if item.name == projection), None)


async def read_standing(db: Database) -> Standing:
    """Read how the projections stand. Raises LookupError on a log that was never begun."""
    rows = await db.fetch(_READ_STANDING)
    if not rows:
        raise LookupError("the log has no head: migrate the database first")
    items = tuple(Item.of(row) for row in rows if row["projection"] is not None)
    return Standing(head=rows[0]["head"], items=items)


def complaints(standing: Standing, projections: Mapping[str, Projection]) -> Iterator[str]:
    """Say what keeps the projections of this code from going on; nothing if all is well."""
    for name, projection in projections.items():
        item = standing.read_item(name)
        if item is None:
            yield f"{name} has not begun"
        elif item.version != projection.version:
            yield f"{name} needs rebuild: stored version {item.version}, code has {projection.version}"
        elif item.error is not None:
            yield f"{name} is {item.state} at {item.error.position} ({item.error.event_type}): {item.error.message}"
