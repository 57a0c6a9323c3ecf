"""Nodes as folded; apart from their commands, since an instance is placed on one."""

from typing import ClassVar

from msgspec.structs import replace

from keelson.access import NodeAccess
from keelson.command.state import State
from keelson.events import Event
from keelson.events.node import (
    NodeCapacitySet,
    NodeEnrolled,
    NodeEnrollmentCreated,
    NodeRemoved,
    NodeState,
    NodeStateChanged,
)


class Node(State, frozen=True, kw_only=True):
    """A node; it has no state until its machine enrols. `access` is what that may enrol by, and then acts by."""

    aggregate_type: ClassVar[str] = "node"
    noun: ClassVar[str] = "node"

    access: NodeAccess
    state: NodeState | None = None
    message: str | None = None
    cpu_millis: int = 0
    memory_bytes: int = 0

    @property
    def is_lost(self) -> bool:
        """Whether nothing more is to be heard of what was placed on it."""
        return self.deleted or self.state == "offline"

    @classmethod
    def evolve(cls, state: "Node | None", event: Event) -> "Node":
        """Give the state after an event."""
        access = (state.access if state else NodeAccess()).evolve(event)
        match state, event:
            case None, NodeEnrollmentCreated():
                return cls(access=access)
            case Node(), NodeEnrolled(cpu_millis=cpu_millis, memory_bytes=memory_bytes):
                capacity = {"cpu_millis": cpu_millis, "memory_bytes": memory_bytes}
                return replace(state, access=access, state="active", **capacity)
            case Node(), NodeStateChanged(state=new, message=message):
                return replace(state, state=new, message=message)
            case Node(), NodeCapacitySet(cpu_millis=cpu_millis, memory_bytes=memory_bytes):
                return replace(state, cpu_millis=cpu_millis, memory_bytes=memory_bytes)
            case Node(), NodeRemoved():
                return replace(state, access=access, deleted=True)
            case _:
                raise TypeError(f"not an event of this node: {event.event_type}")
