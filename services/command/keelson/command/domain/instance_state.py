"""Instances as folded; apart from their commands, since a node is told secrets for one."""

from typing import ClassVar

import msgspec

from keelson.command.state import State
from keelson.events import Event
from keelson.events.instance import (
    DesiredState,
    InstanceAllocated,
    InstanceDesiredStateChanged,
    InstanceStatus,
    InstanceStatusChanged,
)

# What each desired state may become; what is not here is final.
DESIRED: dict[DesiredState, tuple[DesiredState, ...]] = {
    "running": ("draining", "stopped"),
    "draining": ("stopped",),
}
# What each status may become beside itself; `None` is before the node has said anything. A stopped one has ended.
STATUSES: dict[InstanceStatus | None, tuple[InstanceStatus, ...]] = {
    None: ("booting", "ready", "draining", "stopped", "failed"),
    "booting": ("ready", "draining", "stopped", "failed"),
    "ready": ("draining", "stopped", "failed"),
    "draining": ("stopped", "failed"),
    "failed": ("booting", "stopped"),
    "stopped": (),
}


class Instance(State, frozen=True, kw_only=True):
    """An instance: what it is, which secret it may be told, what its node should do, and what that said last."""

    aggregate_type: ClassVar[str] = "instance"
    noun: ClassVar[str] = "instance"

    ports: frozenset[str]
    secret_version: int | None = None
    desired_state: DesiredState = "running"
    report: InstanceStatusChanged | None = None

    @property
    def status(self) -> InstanceStatus | None:
        """What its node said last."""
        return self.report.status if self.report else None

    @classmethod
    def evolve(cls, state: "Instance | None", event: Event) -> "Instance":
        """Give the state after an event."""
        match state, event:
            case None, InstanceAllocated(spec=spec, secret_version=secret_version):
                return cls(ports=frozenset(port.name for port in spec.ports), secret_version=secret_version)
            case Instance(), InstanceDesiredStateChanged(desired_state=desired_state):
                return msgspec.structs.replace(state, desired_state=desired_state)
            case Instance(), InstanceStatusChanged():
                return msgspec.structs.replace(state, report=event)
            case _:
                raise TypeError(f"not an event of this instance: {event.event_type}")
