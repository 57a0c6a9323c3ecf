"""Nodes and instances in the projection `platform`: what runs where, and what is derived for those who make it so."""

from collections.abc import Iterator
from datetime import datetime
from importlib.resources import files
from typing import Any, Literal

import msgspec

from keelson.events import Envelope, Event
from keelson.events.instance import (
    DesiredState,
    Endpoint,
    InstanceAllocated,
    InstanceDesiredStateChanged,
    InstanceSpec,
    InstanceStatus,
    InstanceStatusChanged,
)
from keelson.events.node import (
    NodeCapacitySet,
    NodeEnrolled,
    NodeEnrollmentCreated,
    NodeRemoved,
    NodeState,
    NodeStateChanged,
)
from keelson.views.changes import Change, patch, put
from keelson.views.projection import Handler
from keelson.views.table import DerivedView, Row, Table

EnvHealth = Literal["healthy", "progressing", "degraded", "failed"]


class NodeRow(Row, frozen=True, kw_only=True):
    """A machine that instances run on; before it has enrolled, as it may until `expires_at`, without name and state."""

    id: str
    name: str | None = None
    state: NodeState | None = None
    message: str | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    cpu_millis: int | None = None
    memory_bytes: int | None = None
    address: str | None = None
    credential_id: str
    expires_at: datetime | None
    deleted_at: datetime | None = None


class InstanceRow(Row, frozen=True, kw_only=True):
    """One replica of a process, on a node. It is booting until its node says otherwise.

    `desired_position` is that of the last event that changed what its node should do about it.
    """

    id: str
    org_id: str
    project_id: str
    app_id: str
    env_id: str
    node_id: str
    process: str
    release_id: str
    release_number: int
    secret_version: int | None
    spec: InstanceSpec
    spec_hash: str
    desired_state: DesiredState
    desired_position: int
    status: InstanceStatus
    endpoints: dict[str, Endpoint] | None = None
    reason_code: str | None = None
    exit_code: int | None = None
    message: str | None = None


class EnvStatusRow(msgspec.Struct, frozen=True, kw_only=True):
    """How a process of an environment is: how many replicas should be ready, how many are, and what that means.

    Ready are instances of the environment's release, wanted running, which their node says are ready, unless that node
    is offline. Lost are those of them that failed, or whose node is offline. Outdated are instances wanted running of
    another release, or of a process that the release has not (it then has a row of its own, with `desired` 0).

    `healthy`: as many are ready as should be, or more, and none is outdated. `progressing`: it is on its way there, and
    nothing is lost that is missing. `degraded`: fewer are ready than should be, though some, and some are lost.
    `failed`: none is ready that should be, and some are lost.
    """

    env_id: str
    process: str
    org_id: str
    project_id: str
    app_id: str
    desired: int
    ready: int
    status: EnvHealth


class DesiredInstance(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that a node should run, drain or stop; it is named here until its node says that it has stopped."""

    instance_id: str
    org_id: str
    project_id: str
    app_id: str
    env_id: str
    process: str
    release_id: str
    release_number: int
    secret_version: int | None
    spec: InstanceSpec
    spec_hash: str
    desired_state: DesiredState


class NodeDesiredRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a node that is there should do, ordered by the instances' ids.

    `version` is the position of the last event that changed any of it, an end included; 0 if there never was one.
    """

    node_id: str
    version: int
    items: tuple[DesiredInstance, ...]


class Backend(msgspec.Struct, frozen=True):
    """Where an edge finds an instance."""

    host: str
    port: int
    instance_id: str


class DesiredRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A hostname and the ready instances behind it, ordered by their ids; none is being drained, and there may be none.

    Those of a node that is offline are among them: it is out of the control plane's sight, and may well be in the
    edge's, which finds out by asking.
    """

    hostname: str
    route_id: str
    org_id: str
    project_id: str
    app_id: str
    env_id: str
    process: str
    port: str
    backends: tuple[Backend, ...]


class EdgeDesiredRow(msgspec.Struct, frozen=True, kw_only=True):
    """Where all hostnames lead, in their order: the same for every edge, so that there is one row, `all`.

    `version` is the position of the last event that may have changed any of it; 0 if there never was one.
    """

    edge: str
    version: int
    items: tuple[DesiredRoute, ...]


def _read_select(name: str) -> str:
    """Give the SELECT of a derived view: a file of this package, read once, as its code is."""
    return files("keelson.views").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


NODES = Table(name="nodes", row=NodeRow, indexes=(("name",),), aggregate="node", collection=True)
INSTANCES = Table(
    name="instances",
    row=InstanceRow,
    indexes=(
        ("org_id", "id"),
        ("env_id", "id"),
        ("env_id", "status"),
        ("node_id", "id"),
        ("node_id", "status"),
        ("node_id", "desired_position"),
        ("position",),
    ),
    aggregate="instance",
    collection=True,
)
ENV_STATUS = DerivedView(
    name="env_status", row=EnvStatusRow, key=("env_id", "process"), select=_read_select("env_status")
)
NODE_DESIRED = DerivedView(
    name="node_desired", row=NodeDesiredRow, key=("node_id",), select=_read_select("node_desired")
)
EDGE_DESIRED = DerivedView(name="edge_desired", row=EdgeDesiredRow, key=("edge",), select=_read_select("edge_desired"))


def enrollment_created(envelope: Envelope, event: NodeEnrollmentCreated) -> Iterator[Change]:
    """Begin the node's row; nothing is known of the machine yet."""
    yield put(NODES, id=envelope.aggregate_id, credential_id=event.credential_id, expires_at=event.expires_at)


def enrolled(envelope: Envelope, event: NodeEnrolled) -> Iterator[Change]:
    """Say what the machine is; it takes instances from here on."""
    said = {name: getattr(event, name) for name in event.__struct_fields__}
    yield patch(NODES, envelope.aggregate_id, state="active", expires_at=None, **said)


def state_changed(envelope: Envelope, event: NodeStateChanged) -> Iterator[Change]:
    """Say whether it takes instances."""
    yield patch(NODES, envelope.aggregate_id, state=event.state, message=event.message)


def capacity_set(envelope: Envelope, event: NodeCapacitySet) -> Iterator[Change]:
    """Say how much it has."""
    yield patch(NODES, envelope.aggregate_id, cpu_millis=event.cpu_millis, memory_bytes=event.memory_bytes)


def removed(envelope: Envelope, event: NodeRemoved) -> Iterator[Change]:  # noqa: ARG001 - says nothing more
    """Say when it was removed."""
    yield patch(NODES, envelope.aggregate_id, deleted_at=envelope.recorded_at)


def allocated(envelope: Envelope, event: InstanceAllocated) -> Iterator[Change]:
    """Begin the instance's row."""
    yield put(
        INSTANCES,
        id=envelope.aggregate_id,
        org_id=envelope.org_id,
        project_id=envelope.project_id,
        app_id=envelope.app_id,
        env_id=envelope.env_id,
        node_id=envelope.node_id,
        process=event.process,
        release_id=event.release_id,
        release_number=event.release_number,
        secret_version=event.secret_version,
        spec=event.spec,
        spec_hash=event.spec_hash,
        desired_state="running",
        desired_position=envelope.position,
        status="booting",
    )


def desired_state_changed(envelope: Envelope, event: InstanceDesiredStateChanged) -> Iterator[Change]:
    """Say what its node should do about it."""
    moved = {"desired_state": event.desired_state, "desired_position": envelope.position}
    yield patch(INSTANCES, envelope.aggregate_id, **moved)


def status_changed(envelope: Envelope, event: InstanceStatusChanged) -> Iterator[Change]:
    """Say how it is, by what this report says and nothing of those before; once stopped, nothing is to be done."""
    said: dict[str, Any] = {name: getattr(event, name) for name in event.__struct_fields__}
    if event.status == "stopped":
        said["desired_position"] = envelope.position
    yield patch(INSTANCES, envelope.aggregate_id, **said)


HANDLERS: tuple[tuple[type[Event], Handler[Any]], ...] = (
    (NodeEnrollmentCreated, enrollment_created),
    (NodeEnrolled, enrolled),
    (NodeStateChanged, state_changed),
    (NodeCapacitySet, capacity_set),
    (NodeRemoved, removed),
    (InstanceAllocated, allocated),
    (InstanceDesiredStateChanged, desired_state_changed),
    (InstanceStatusChanged, status_changed),
)
