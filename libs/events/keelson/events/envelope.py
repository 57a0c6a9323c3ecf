"""The envelope: what the log keeps of every event, whatever its type."""

from datetime import datetime
from typing import Literal

import msgspec

from keelson.events.ids import AggregateId, Position, Seq

ActorType = Literal["user", "principal", "node", "system"]


class Actor(msgspec.Struct, frozen=True):
    """Who: the type says which kind of id it is."""

    type: ActorType
    id: str


class Ids(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The ids under which an event can be found: its aggregate's ancestors, and its own where it has a column."""

    org_id: str | None = None
    project_id: str | None = None
    app_id: str | None = None
    env_id: str | None = None
    node_id: str | None = None


class Envelope(msgspec.Struct, frozen=True):
    """One event as the log holds it; `payload` is the exact text that was encoded, `version` the one it was written in.

    What every event has comes first, then what it may have: readers select in this order and build by position, which
    costs a sixth of building by name.
    """

    position: Position
    aggregate_id: AggregateId
    seq: Seq
    type: str
    version: int
    actor_type: ActorType
    actor_id: str
    request_id: str
    command_id: str
    command_end: bool
    recorded_at: datetime
    payload: str
    org_id: str | None = None
    project_id: str | None = None
    app_id: str | None = None
    env_id: str | None = None
    node_id: str | None = None
    reason: str | None = None
    correlation_id: str | None = None
    causation_id: Position | None = None
    traceparent: str | None = None

    @property
    def aggregate_type(self) -> str:
        """The type of the aggregate: the prefix of its id."""
        return self.aggregate_id.partition("_")[0]

    @property
    def ids(self) -> Ids:
        """The ids of the ancestors and the aggregate itself."""
        return Ids(
            org_id=self.org_id,
            project_id=self.project_id,
            app_id=self.app_id,
            env_id=self.env_id,
            node_id=self.node_id,
        )
