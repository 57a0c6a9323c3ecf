"""Events of nodes: the machines that instances run on."""

from datetime import datetime
from typing import ClassVar, Literal

from keelson.events.base import ClaimChange, Event, Release, Take
from keelson.events.envelope import Ids

NAMES = "node.name"

NodeState = Literal["active", "draining", "disabled", "offline"]


def memory_of(node_id: str | None) -> str:
    """Give the scope of the memory that instances hold of a node; it is empty when nothing is placed there."""
    return f"node.memory_bytes:{node_id}"


class NodeEnrollmentCreated(Event, frozen=True):
    """A machine may enrol as this node, once, until `expires_at`; the hash of the token is in the vault."""

    event_type: ClassVar[str] = "node.enrollment_created"
    event_version: ClassVar[int] = 1

    expires_at: datetime
    credential_id: str


class NodeEnrolled(Event, frozen=True, kw_only=True):
    """A machine enrolled: it is active, and acts by the credential whose hash is in the vault."""

    event_type: ClassVar[str] = "node.enrolled"
    event_version: ClassVar[int] = 1

    name: str
    labels: dict[str, str]
    cpu_millis: int
    memory_bytes: int
    address: str | None = None
    credential_id: str

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:  # noqa: ARG002 - the platform has one scope of names
        """Take the name on the platform."""
        return (Take(NAMES, self.name),)


class NodeStateChanged(Event, frozen=True):
    """The node takes instances (active), gives them away (draining), or neither."""

    event_type: ClassVar[str] = "node.state_changed"
    event_version: ClassVar[int] = 1

    state: NodeState
    message: str | None = None


class NodeCapacitySet(Event, frozen=True):
    """The node has so much."""

    event_type: ClassVar[str] = "node.capacity_set"
    event_version: ClassVar[int] = 1

    cpu_millis: int
    memory_bytes: int


class NodeRemoved(Event, frozen=True):
    """The node is gone, and its credential with it; its name is free again."""

    event_type: ClassVar[str] = "node.removed"
    event_version: ClassVar[int] = 1

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:  # noqa: ARG002 - the platform has one scope of names
        """Free the name on the platform."""
        return (Release(NAMES),)
