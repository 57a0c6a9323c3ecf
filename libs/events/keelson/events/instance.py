"""Events of instances: one replica of a process, on a node."""

import hashlib
from collections.abc import Mapping
from typing import ClassVar, Literal

import msgspec

from keelson.events.base import ClaimChange, Event, Release, Take
from keelson.events.envelope import Ids
from keelson.events.node import memory_of
from keelson.events.release import Health, Port, Process

_canonical = msgspec.json.Encoder(order="sorted").encode

DesiredState = Literal["running", "draining", "stopped"]
InstanceStatus = Literal["booting", "ready", "draining", "stopped", "failed"]


def instances_of(env_id: str | None) -> str:
    """Give the scope of an environment's instances that have not stopped."""
    return f"instance.of:{env_id}"


class InstanceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that a node must know to run an instance, but for its secrets."""

    image: str
    command: tuple[str, ...]
    ports: tuple[Port, ...] = ()
    cpu_millis: int
    memory_bytes: int
    health: Health | None = None
    variables: dict[str, str] = {}


def resolve_spec(image: str, process: Process, variables: Mapping[str, str]) -> InstanceSpec:
    """Give the spec of an instance of a process: what `instance.allocate` resolves it to, as of now."""
    return InstanceSpec(
        image=image,
        command=process.command,
        ports=process.ports,
        cpu_millis=process.cpu_millis,
        memory_bytes=process.memory_bytes,
        health=process.health,
        variables=dict(variables),
    )


def hash_of(spec: InstanceSpec) -> str:
    """Give the SHA-256, in hex, of a spec's canonical encoding: equal for equal specs, whoever resolved them."""
    return hashlib.sha256(_canonical(spec)).hexdigest()


class Endpoint(msgspec.Struct, frozen=True):
    """Where a port of an instance can be reached."""

    host: str
    port: int


class InstanceAllocated(Event, frozen=True, kw_only=True):
    """A node should run an instance of a process; `spec` is resolved, `spec_hash` is of its canonical encoding."""

    event_type: ClassVar[str] = "instance.allocated"
    event_version: ClassVar[int] = 1

    process: str
    release_id: str
    release_number: int
    secret_version: int | None = None
    spec: InstanceSpec
    spec_hash: str

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Hold the node's memory, and count among the environment's instances."""
        return (
            Take(memory_of(ids.node_id), amount=self.spec.memory_bytes),
            Take(instances_of(ids.env_id)),
        )


class InstanceDesiredStateChanged(Event, frozen=True):
    """The node should run the instance, let it finish, or have stopped it."""

    event_type: ClassVar[str] = "instance.desired_state_changed"
    event_version: ClassVar[int] = 1

    desired_state: DesiredState


class InstanceStatusChanged(Event, frozen=True, kw_only=True):
    """How the instance is, as its node says; `endpoints` by the ports' names, once it is ready."""

    event_type: ClassVar[str] = "instance.status_changed"
    event_version: ClassVar[int] = 1

    status: InstanceStatus
    endpoints: dict[str, Endpoint] | None = None
    reason_code: str | None = None
    exit_code: int | None = None
    message: str | None = None

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Let go of the node's memory and of the environment once it has stopped; until then it may come back."""
        if self.status != "stopped":
            return ()
        return (Release(memory_of(ids.node_id)), Release(instances_of(ids.env_id)))
