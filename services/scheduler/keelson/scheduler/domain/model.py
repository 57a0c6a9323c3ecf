"""The world as the log tells it, as far as it matters for what should run where.

It is a fold, from the beginning of the log: a scheduler that starts knows after it what one knows that has run for a
year. Events come whole commands at a time, or what is seen is half of something.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

import msgspec

from keelson.events import Event
from keelson.events.deploy import DeployCreated, DeployStatus, DeployStatusChanged
from keelson.events.env import EnvConfigSet, EnvCreated, EnvDeleted, EnvProcess, EnvReleaseSet, EnvScaled
from keelson.events.instance import (
    DesiredState,
    InstanceAllocated,
    InstanceDesiredStateChanged,
    InstanceStatusChanged,
    hash_of,
    resolve_spec,
)
from keelson.events.node import NodeCapacitySet, NodeEnrolled, NodeEnrollmentCreated, NodeRemoved, NodeStateChanged
from keelson.events.node import NodeState as State
from keelson.events.release import ReleaseCreated
from keelson.events.secret import SecretDeleted, SecretVersionSet

# The label that names a node's failure domain; a node without it is one by itself.
ZONE = "zone"
# How the message begins by which this scheduler, or another, or it itself before, said that a node is lost.
LOST = "no heartbeat for"


class Fact(NamedTuple):
    """An event, and what the model needs of its envelope."""

    position: int
    recorded_at: datetime
    aggregate_id: str
    seq: int
    env_id: str | None
    node_id: str | None
    event: Event


class Revision(NamedTuple):
    """What an instance is an instance of; another revision of its process is another program, or is told otherwise."""

    release_id: str
    spec_hash: str
    secret_version: int | None


class Node(msgspec.Struct, kw_only=True):
    """A node; it has no state until its machine enrols. `moved` is the position of its last event."""

    id: str
    seq: int
    moved: int
    state: State | None = None
    message: str | None = None
    # What it was before it went offline.
    before: State | None = None
    labels: dict[str, str] = {}
    memory_bytes: int = 0
    # What the instances hold that have not stopped.
    held_bytes: int = 0

    @property
    def zone(self) -> str:
        """The failure domain that it is in."""
        zone = self.labels.get(ZONE)
        return f"node {self.id}" if zone is None else f"zone {zone}"

    @property
    def was_lost(self) -> bool:
        """Whether it is offline because a scheduler missed its heartbeats, and not by an operator's word."""
        return self.state == "offline" and (self.message or "").startswith(LOST)


class Instance(msgspec.Struct, kw_only=True):
    """A replica that has not stopped."""

    id: str
    seq: int
    node_id: str
    revision: Revision
    release_number: int
    memory_bytes: int
    desired: DesiredState = "running"
    # What its node said last, and when it last failed; and whether it has ever been ready.
    report: InstanceStatusChanged | None = None
    failure: InstanceStatusChanged | None = None
    has_served: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether its node last said so."""
        return self.report is not None and self.report.status == "ready"


class Workload(msgspec.Struct, kw_only=True):
    """A process of an environment: its instances that have not stopped, in the order in which they were allocated.

    `allocated` counts all that ever were; `moved` is the position of the last event that concerned it.
    """

    env_id: str
    process: str
    moved: int
    allocated: int = 0
    instances: dict[str, Instance] = {}


class Env(msgspec.Struct, kw_only=True):
    """An environment: what is declared of it.

    `paused` since its last deploy failed, until anything else is declared: what still works is not replaced by what
    failed.
    """

    id: str
    release_id: str | None = None
    release_number: int = 0
    deploy_id: str | None = None
    processes: dict[str, EnvProcess] = {}
    replicas: dict[str, int] = {}
    variables: dict[str, str] = {}
    secret_version: int | None = None
    paused: bool = False
    revisions: dict[str, Revision] = {}


class Deploy(msgspec.Struct, kw_only=True):
    """A deploy that is open; `progressed_at` is when it last came nearer to its end.

    That is: it got its status, or an instance of its release was allocated, or was ready for the first time. What fails
    and starts again is no progress.
    """

    id: str
    env_id: str
    seq: int
    moved: int
    progressed_at: datetime
    status: DeployStatus
    release_id: str
    release_number: int


class World:
    """All of it; `position` is that of the last event, `recorded_at` its time, which is the database's."""

    def __init__(self) -> None:
        self.position = 0
        self.recorded_at: datetime | None = None
        self.nodes: dict[str, Node] = {}
        self.envs: dict[str, Env] = {}
        self.deploys: dict[str, Deploy] = {}
        self.workloads: dict[str, dict[str, Workload]] = {}
        self._images: dict[str, str] = {}
        self._of: dict[str, Workload] = {}

    def apply(self, fact: Fact) -> None:
        """Take in the next event of the log."""
        self.position, self.recorded_at = fact.position, fact.recorded_at
        match fact.event:
            case InstanceAllocated() | InstanceDesiredStateChanged() | InstanceStatusChanged():
                self._apply_to_instance(fact, fact.event)
            case ReleaseCreated(image=image):
                self._images[fact.aggregate_id] = image
            case DeployCreated() | DeployStatusChanged():
                self._apply_to_deploy(fact, fact.event)
            case _ if fact.aggregate_id.startswith("node_"):
                self._apply_to_node(fact)
            case _ if fact.env_id is not None:
                self._apply_to_env(fact, fact.env_id)

    def workloads_of(self, env_id: str) -> dict[str, Workload]:
        """Give the processes of an environment, those among them that its release has no more."""
        return self.workloads.get(env_id, {})

    def all_workloads(self) -> Iterator[Workload]:
        """Give all processes of all environments, in the order of their ids and names."""
        for _, workloads in sorted(self.workloads.items()):
            for _, workload in sorted(workloads.items()):
                yield workload

    def is_lost(self, instance: Instance) -> bool:
        """Whether nothing more is to be heard of an instance: its node is offline."""
        node = self.nodes.get(instance.node_id)
        return node is None or node.state == "offline"

    def is_leaving(self, instance: Instance) -> bool:
        """Whether an instance shall run elsewhere: its node gives away what it has."""
        node = self.nodes.get(instance.node_id)
        return node is not None and node.state == "draining"

    def _apply_to_instance(
        self, fact: Fact, event: InstanceAllocated | InstanceDesiredStateChanged | InstanceStatusChanged
    ) -> None:
        if isinstance(event, InstanceAllocated):
            self._allocate(fact, event)
            return
        workload = self._of.get(fact.aggregate_id)
        if workload is None:  # it has stopped; what is said of it since changes nothing
            return
        workload.moved = fact.position
        instance = workload.instances[fact.aggregate_id]
        instance.seq = fact.seq
        if isinstance(event, InstanceDesiredStateChanged):
            instance.desired = event.desired_state
        else:
            self._report(fact, workload, instance, event)

    def _report(self, fact: Fact, workload: Workload, instance: Instance, report: InstanceStatusChanged) -> None:
        instance.report = report
        match report.status:
            case "stopped":
                del workload.instances[instance.id], self._of[instance.id]
                self._hold(instance, -instance.memory_bytes)
            case "failed":
                instance.failure = report
            case "ready" if not instance.has_served:
                instance.has_served = True
                self._progress(workload, instance.revision.release_id, fact.recorded_at)

    def _progress(self, workload: Workload, release_id: str, at: datetime) -> None:
        env = self.envs.get(workload.env_id)
        deploy = self.deploys.get(env.deploy_id or "") if env else None
        if deploy is not None and deploy.release_id == release_id:
            deploy.progressed_at = at

    def _allocate(self, fact: Fact, event: InstanceAllocated) -> None:
        workload = self._workload(str(fact.env_id), event.process, fact.position)
        instance = Instance(
            id=fact.aggregate_id,
            seq=fact.seq,
            node_id=str(fact.node_id),
            revision=Revision(event.release_id, event.spec_hash, event.secret_version),
            release_number=event.release_number,
            memory_bytes=event.spec.memory_bytes,
        )
        workload.allocated += 1
        workload.instances[instance.id] = instance
        self._of[instance.id] = workload
        self._hold(instance, instance.memory_bytes)
        self._progress(workload, event.release_id, fact.recorded_at)

    def _hold(self, instance: Instance, change_bytes: int) -> None:
        node = self.nodes.get(instance.node_id)
        if node is not None:
            node.held_bytes += change_bytes

    def _workload(self, env_id: str, process: str, position: int) -> Workload:
        workloads = self.workloads.setdefault(env_id, {})
        workload = workloads.setdefault(process, Workload(env_id=env_id, process=process, moved=position))
        workload.moved = position
        return workload

    def _apply_to_deploy(self, fact: Fact, event: DeployCreated | DeployStatusChanged) -> None:
        if isinstance(event, DeployCreated):
            self.deploys[fact.aggregate_id] = Deploy(
                id=fact.aggregate_id,
                env_id=str(fact.env_id),
                seq=fact.seq,
                moved=fact.position,
                progressed_at=fact.recorded_at,
                status="queued",
                release_id=event.release_id,
                release_number=event.release_number,
            )
            return
        deploy = self.deploys[fact.aggregate_id]
        deploy.seq, deploy.moved, deploy.status = fact.seq, fact.position, event.status
        deploy.progressed_at = fact.recorded_at
        env = self.envs.get(deploy.env_id)
        if event.status == "failed" and env is not None and env.deploy_id == deploy.id:
            env.paused = True
        if event.status not in ("queued", "rolling"):
            del self.deploys[deploy.id]

    def _apply_to_node(self, fact: Fact) -> None:
        node_id, event = fact.aggregate_id, fact.event
        if isinstance(event, NodeEnrollmentCreated):
            self.nodes[node_id] = Node(id=node_id, seq=fact.seq, moved=fact.position)
            return
        node = self.nodes[node_id]
        node.seq, node.moved = fact.seq, fact.position
        match event:
            case NodeEnrolled():
                node.state, node.labels, node.memory_bytes = "active", event.labels, event.memory_bytes
            case NodeStateChanged():
                node.before = node.state if event.state == "offline" else None
                node.state, node.message = event.state, event.message
                self._touch(node)
            case NodeCapacitySet():
                node.memory_bytes = event.memory_bytes
            case NodeRemoved():
                del self.nodes[node_id]

    def _touch(self, node: Node) -> None:
        """Let what a node has be concerned by what has happened to it."""
        for workload in self.all_workloads():
            if any(instance.node_id == node.id for instance in workload.instances.values()):
                workload.moved = node.moved

    def _apply_to_env(self, fact: Fact, env_id: str) -> None:
        event = fact.event
        if isinstance(event, EnvCreated):
            self.envs[env_id] = Env(id=env_id)
            return
        if isinstance(event, EnvDeleted):
            self.envs.pop(env_id, None)
            self.workloads.pop(env_id, None)
            return
        env = self.envs.get(env_id)
        if env is None:
            return
        match event:
            case EnvReleaseSet():
                env.deploy_id, env.release_id = event.deploy_id, event.release_id
                env.release_number, env.processes = event.release_number, event.processes
                env.replicas = {name: process.replicas for name, process in event.processes.items()}
            case EnvScaled():
                env.replicas = event.replicas
            case EnvConfigSet():
                env.variables = event.variables
            case SecretVersionSet():
                env.secret_version = event.version
            case SecretDeleted():
                env.secret_version = None
            case _:
                return
        env.paused = False
        self._declare(env, fact.position)

    def _declare(self, env: Env, position: int) -> None:
        """Say of each process what an instance would be that is allocated now, as `instance.allocate` would."""
        if env.release_id is None:
            return
        image = self._images[env.release_id]
        env.revisions = {
            name: Revision(
                env.release_id,
                hash_of(resolve_spec(image, process, env.variables)),
                env.secret_version if process.needs_secrets else None,
            )
            for name, process in env.processes.items()
        }
        for name in {*env.processes, *self.workloads_of(env.id)}:
            self._workload(env.id, name, position)
