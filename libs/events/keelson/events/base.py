"""What an event is, and how it says which claims it changes."""

from typing import ClassVar

import msgspec

from keelson.events.envelope import Ids


class Take(msgspec.Struct, frozen=True):
    """The event's aggregate takes `key` in `scope`; `amount` counts towards what the scope holds.

    Without a key it is the aggregate's own id that is taken: it counts, and nobody else can want it.
    """

    scope: str
    key: str | None = None
    amount: int = 0

    def key_of(self, aggregate_id: str) -> str:
        """Give the key that an aggregate takes by this."""
        return aggregate_id if self.key is None else self.key


class Release(msgspec.Struct, frozen=True):
    """The event's aggregate lets go of every key that it holds in `scope`."""

    scope: str


ClaimChange = Take | Release


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all events: a frozen struct that declares its stable type name and its schema version.

    Decoding tolerates unknown fields, so that a newer minor writer can run beside an older reader. Once released, a
    version's fields never change; a new version is a new class, and the older one gets an `upcast`.
    """

    event_type: ClassVar[str]
    event_version: ClassVar[int]

    def upcast(self) -> "Event":
        """Give this event as the next version; overridden by every version but the newest."""
        raise NotImplementedError(f"{self.event_type} version {self.event_version} is the newest")

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:  # noqa: ARG002 - most events change no claims
        """Give the claims that this event changes, in order: pure, used by the append and by a rebuild alike."""
        return ()
