"""The world as the log tells it, as far as it matters for what should run where.

It is a fold, from the beginning of the log: a scheduler that starts knows after it what one knows that has run for a
year. Events come whole commands at a time, or what is seen is half of something.
"""

from collections.abc import Iterator
from datetime import datetime

from keelson.events.deploy import DeployCreated, DeployStatusChanged
from keelson.events.env import EnvConfigSet, EnvCreated, EnvDeleted, EnvReleaseSet, EnvScaled
from keelson.events.instance import (
    InstanceAllocated,
    InstanceDesiredStateChanged,
    InstanceStatusChanged,
    hash_of,
    resolve_spec,
)
from keelson.events.node import NodeCapacitySet, NodeEnrolled, NodeEnrollmentCreated, NodeRemoved, NodeStateChanged
from keelson.events.release import ReleaseCreated
from keelson.events.secret import SecretDeleted, SecretVersionSet
from keelson.scheduler.domain.ids import instance_id
from keelson.scheduler.domain.model import Deploy, Env, Fact, Instance, Node, Revision, Workload


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
                self._progress(workload, instance.revision.release_id, fact)

    def _progress(self, workload: Workload, release_id: str, fact: Fact) -> None:
        env = self.envs.get(workload.env_id)
        deploy = self.deploys.get(env.deploy_id or "") if env else None
        if deploy is not None and deploy.release_id == release_id:
            deploy.progressed, deploy.progressed_at = fact.position, fact.recorded_at

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
        _count(workload, instance.id)
        workload.instances[instance.id] = instance
        self._of[instance.id] = workload
        self._hold(instance, instance.memory_bytes)
        self._progress(workload, event.release_id, fact)

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
                progressed=fact.position,
                progressed_at=fact.recorded_at,
                status="queued",
                release_id=event.release_id,
                release_number=event.release_number,
            )
            return
        deploy = self.deploys[fact.aggregate_id]
        deploy.seq, deploy.moved, deploy.status = fact.seq, fact.position, event.status
        deploy.progressed, deploy.progressed_at = fact.position, fact.recorded_at
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


def _count(workload: Workload, allocated_id: str) -> None:
    """Note that an id is taken; the first number that is not is the next."""
    workload.ahead.add(allocated_id)
    while (following := instance_id(workload.env_id, workload.process, workload.next)) in workload.ahead:
        workload.ahead.remove(following)
        workload.next += 1
