"""Events of the platform: one aggregate, whose id is `PLATFORM_ID`."""

from typing import ClassVar, Literal

from keelson.events.base import Event
from keelson.events.ids import Position


class EpochBegan(Event, frozen=True, kw_only=True):
    """A lineage of the log began here: the first, or another after a restore or a lossy failover.

    `previous` and `forked_at` name the epoch before and its last position that this one shares.
    """

    event_type: ClassVar[str] = "platform.epoch_began"
    event_version: ClassVar[int] = 1

    epoch: str
    previous: str | None = None
    forked_at: Position | None = None
    cause: Literal["created", "operator", "restored", "promoted"]
