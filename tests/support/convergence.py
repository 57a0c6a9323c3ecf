"""A small control plane in memory, for the scheduler: who declares, agents, and what commands do, told once more.

It is independent of the command service's handlers, and as simple as can be: one list of facts, plain dictionaries.
What the scheduler does is held against its promises whenever it does it.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from keelson.events import Event
from keelson.events.deploy import DeployCreated, DeployStatusChanged
from keelson.events.env import EnvConfigSet, EnvCreated, EnvProcess, EnvReleaseSet, EnvScaled
from keelson.events.instance import (
    InstanceAllocated,
    InstanceDesiredStateChanged,
    InstanceStatus,
    InstanceStatusChanged,
    hash_of,
    resolve_spec,
)
from keelson.events.node import NodeEnrolled, NodeEnrollmentCreated, NodeState, NodeStateChanged
from keelson.events.release import Process, ReleaseCreated
from keelson.events.secret import SecretCreated, SecretVersionSet
from keelson.scheduler.domain.actions import Allocate, AnyAction, Drain, EndLost, SetDeployStatus, SetNodeState
from keelson.scheduler.domain.model import Fact
from keelson.scheduler.domain.world import World

MIB = 1024 * 1024
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def make_id(prefix: str, number: int) -> str:
    """Give an id by number; ids order as their numbers do."""
    return f"{prefix}_{number:026d}"


def make_process(memory_mib: int = 100, *, needs_secrets: bool = False) -> Process:
    """Give a process that needs so much memory."""
    return Process(command=("serve",), cpu_millis=100, memory_bytes=memory_mib * MIB, needs_secrets=needs_secrets)


class Refused(Exception):  # noqa: N818 - an answer
    """A command was refused; `args[0]` is the code."""


class Broken(AssertionError):  # noqa: N818 - a promise
    """The scheduler broke a promise."""


@dataclass
class Node:
    """A node as commands know it, and whether its agent lives."""

    memory_bytes: int
    state: NodeState = "active"
    message: str | None = None
    is_alive: bool = True


@dataclass
class Replica:
    """An instance as commands know it."""

    env_id: str
    process: str
    node_id: str
    memory_bytes: int
    revision: tuple[str, str, int | None]
    desired: str = "running"
    status: InstanceStatus | None = None


@dataclass
class Env:
    """An environment as commands know it."""

    image: str = ""
    release_id: str = ""
    processes: Mapping[str, EnvProcess] = field(default_factory=dict)
    replicas: dict[str, int] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    secret_version: int | None = None
    deploy_id: str | None = None

    def revision_of(self, process: str) -> tuple[str, str, int | None]:
        """Give what an instance would be that is allocated now."""
        declared = self.processes[process]
        secret = self.secret_version if declared.needs_secrets else None
        return self.release_id, hash_of(resolve_spec(self.image, declared, self.variables)), secret


class ControlPlane:
    """The log, and what commands do; `surge` and `unavailable` are the bounds that every scheduler shall keep."""

    def __init__(self, *, surge: int = 1, unavailable: int = 0) -> None:
        self.facts: list[Fact] = []
        self.nodes: dict[str, Node] = {}
        self.replicas: dict[str, Replica] = {}
        self.envs: dict[str, Env] = {}
        self.deploys: dict[str, str] = {}
        self.broken_releases: set[str] = set()
        self.passed = timedelta()
        self._surge = surge
        self._unavailable = unavailable
        self._seqs: dict[str, int] = {}
        self._made = 0
        # What was wanted of each process, and since when.
        self._wanted: dict[tuple[str, str], list[tuple[int, int]]] = {}

    @property
    def position(self) -> int:
        """The head."""
        return len(self.facts)

    def world(self, position: int | None = None) -> World:
        """Fold the log, up to a position."""
        world = World()
        for fact in self.facts[:position]:
            world.apply(fact)
        return world

    def append(self, aggregate_id: str, event: Event, *, env_id: str | None = None, node_id: str | None = None) -> None:
        """Append an event."""
        seq = self._seqs[aggregate_id] = self._seqs.get(aggregate_id, 0) + 1
        recorded_at = BEGAN + self.passed + timedelta(milliseconds=self.position)
        self.facts.append(Fact(self.position + 1, recorded_at, aggregate_id, seq, env_id, node_id, event))

    # What people declare.

    def enroll(self, memory_mib: int = 1000, **labels: str) -> str:
        """Let a machine become a node."""
        node_id = self._new("node")
        self.append(node_id, NodeEnrollmentCreated(expires_at=BEGAN, credential_id="c"), node_id=node_id)
        enrolled = NodeEnrolled(
            name="n", labels=labels, cpu_millis=1000, memory_bytes=memory_mib * MIB, credential_id="c"
        )
        self.append(node_id, enrolled, node_id=node_id)
        self.nodes[node_id] = Node(memory_mib * MIB)
        return node_id

    def set_node(self, node_id: str, state: NodeState, message: str | None = None) -> None:
        """Set a node's state, and why it is so."""
        node = self.nodes[node_id]
        if node.state != state or (state == "offline" and node.message != message):
            node.state, node.message = state, message
            self.append(node_id, NodeStateChanged(state=state, message=message), node_id=node_id)

    def create_env(self) -> str:
        """Create an environment."""
        env_id = self._new("env")
        self.append(env_id, EnvCreated(name="e"), env_id=env_id)
        self.envs[env_id] = Env()
        return env_id

    def deploy(self, env_id: str, *, broken: bool = False, **processes: Process) -> str:
        """Create a release and deploy it; give the deploy."""
        env, release_id, deploy_id = self.envs[env_id], self._new("release"), self._new("deploy")
        number = self._made
        self.append(release_id, ReleaseCreated(number=number, image=f"image-{number}", processes=processes))
        if broken:
            self.broken_releases.add(release_id)
        if env.deploy_id is not None and self.deploys[env.deploy_id] in ("queued", "rolling"):
            self.set_deploy(env.deploy_id, env_id, "superseded")
        created = DeployCreated(release_id=release_id, release_number=number, kind="deploy")
        self.append(deploy_id, created, env_id=env_id)
        self.deploys[deploy_id] = "queued"
        env.release_id, env.deploy_id, env.image = release_id, deploy_id, f"image-{number}"
        env.replicas = {name: env.replicas.get(name, 1) for name in processes}
        env.processes = {
            name: EnvProcess(**{each: getattr(process, each) for each in process.__struct_fields__}, replicas=number)
            for (name, process), number in zip(processes.items(), env.replicas.values(), strict=True)
        }
        released = EnvReleaseSet(
            deploy_id=deploy_id, release_id=release_id, release_number=number, processes=dict(env.processes)
        )
        self.append(env_id, released, env_id=env_id)
        self._note_wanted(env_id)
        return deploy_id

    def scale(self, env_id: str, **replicas: int) -> None:
        """Want other numbers of replicas."""
        self.envs[env_id].replicas |= replicas
        self.append(env_id, EnvScaled(replicas=dict(self.envs[env_id].replicas)), env_id=env_id)
        self._note_wanted(env_id)

    def configure(self, env_id: str, **variables: str) -> None:
        """Set the variables."""
        self.envs[env_id].variables = variables
        self.append(env_id, EnvConfigSet(variables=variables), env_id=env_id)

    def set_secret(self, env_id: str) -> None:
        """Give the environment another version of its secret."""
        env, secret_id = self.envs[env_id], env_id.replace("env_", "secret_")
        if env.secret_version is None:
            self.append(secret_id, SecretCreated(), env_id=env_id)
        env.secret_version = (env.secret_version or 0) + 1
        self.append(secret_id, SecretVersionSet(version=env.secret_version, keys=(), digest=""), env_id=env_id)

    # What agents report.

    def report(self, instance_id: str, status: InstanceStatus, **said: Any) -> None:
        """Let a node say how an instance is."""
        replica = self.replicas[instance_id]
        replica.status = status
        event = InstanceStatusChanged(status=status, **said)
        self.append(instance_id, event, env_id=replica.env_id, node_id=replica.node_id)
        if status == "stopped":
            del self.replicas[instance_id]

    def step_agent(self, instance_id: str, chance: random.Random) -> bool:
        """Let an agent go one step on with an instance, if there is one to go; broken releases never become ready."""
        replica = self.replicas[instance_id]
        if not self.nodes[replica.node_id].is_alive:
            return False
        is_broken = replica.revision[0] in self.broken_releases
        match replica.desired, replica.status:
            case "running", None | "failed":
                self.report(instance_id, "booting")
            case "running", "booting":
                if is_broken:
                    self.report(instance_id, "failed", reason_code="exited", exit_code=1)
                else:
                    self.report(instance_id, "ready")
            case "running", "ready":
                return False
            case _, "draining":
                self.report(instance_id, "stopped")
            case "draining", "failed":
                self.report(instance_id, "stopped")
            case "draining", _ if chance.random() < 0.8:
                self.report(instance_id, "draining")
            case _:
                self.report(instance_id, "stopped")
        return True

    # What the scheduler does.

    def perform(self, action: AnyAction, seen: int) -> None:
        """Do an action of a plan that was made at a position. Raises Refused, and Broken."""
        match action:
            case Allocate():
                self._allocate(action, seen)
            case Drain():
                self._drain(action, seen)
            case EndLost():
                self._require(action.node)
                self.set_node(action.node.id, "offline", action.message)
                for instance_id in action.instance_ids:
                    self._end(instance_id)
            case SetNodeState():
                self._require(action.node)
                self.set_node(action.node.id, action.state, action.message)
            case SetDeployStatus():
                self._require(action.deploy)
                env_id = next(fact.env_id for fact in self.facts if fact.aggregate_id == action.deploy.id)
                self.set_deploy(action.deploy.id, str(env_id), action.status, action.message)

    def _allocate(self, action: Allocate, seen: int) -> None:
        env, node = self.envs[action.env_id], self.nodes[action.node_id]
        if action.instance_id in self._seqs:
            raise Refused("id_taken")
        if action.process not in env.processes:
            raise Refused("unknown_process")
        if node.state != "active":
            raise Refused("node_not_active")
        process = env.processes[action.process]
        held = sum(each.memory_bytes for each in self.replicas.values() if each.node_id == action.node_id)
        if held + process.memory_bytes > node.memory_bytes:
            raise Refused("no_capacity")
        revision = env.revision_of(action.process)
        allocated = InstanceAllocated(
            process=action.process,
            release_id=revision[0],
            release_number=1,
            secret_version=revision[2],
            spec=resolve_spec(env.image, process, env.variables),
            spec_hash=revision[1],
        )
        self.append(action.instance_id, allocated, env_id=action.env_id, node_id=action.node_id)
        self.replicas[action.instance_id] = Replica(
            action.env_id, action.process, action.node_id, process.memory_bytes, revision
        )
        self._expect_no_surge(action, seen)

    def _drain(self, action: Drain, seen: int) -> None:
        for each in (*action.relied_on, *action.instances):
            self._require(each)
        for each in action.instances:
            replica = self.replicas.get(each.id)
            if replica is None or replica.desired != "running":
                raise Refused("invalid_transition")
            replica.desired = "draining"
            event = InstanceDesiredStateChanged(desired_state="draining")
            self.append(each.id, event, env_id=replica.env_id, node_id=replica.node_id)
            if replica.status == "ready":
                self._expect_enough_ready(replica, seen)

    def _end(self, instance_id: str) -> None:
        replica = self.replicas.get(instance_id)
        if replica is None:
            return
        if replica.desired != "stopped":
            replica.desired = "stopped"
            event = InstanceDesiredStateChanged(desired_state="stopped")
            self.append(instance_id, event, env_id=replica.env_id, node_id=replica.node_id)
        if self.nodes[replica.node_id].state == "offline":
            self.report(instance_id, "stopped", reason_code="node_lost")

    def _require(self, seen: tuple[str, int]) -> None:
        if self._seqs[seen[0]] != seen[1]:
            raise Refused("seq_mismatch")

    def set_deploy(self, deploy_id: str, env_id: str, status: Any, message: str | None = None) -> None:
        """Say how far a deploy is. Raises Refused."""
        legal = {"queued": ("rolling", "failed", "superseded"), "rolling": ("succeeded", "failed", "superseded")}
        if status not in legal.get(self.deploys[deploy_id], ()):
            raise Refused("invalid_transition")
        self.deploys[deploy_id] = status
        self.append(deploy_id, DeployStatusChanged(status=status, message=message), env_id=env_id)

    # What it promises.

    def running(self, env_id: str, process: str) -> list[Replica]:
        """Give the replicas of a process that should run."""
        found = self.replicas.values()
        return [each for each in found if (each.env_id, each.process, each.desired) == (env_id, process, "running")]

    def _expect_no_surge(self, action: Allocate, seen: int) -> None:
        running = len(self.running(action.env_id, action.process))
        most = max(self._wanted_since(action.env_id, action.process, seen)) + self._surge
        if running > most:
            raise Broken(f"{running} of {action.process} run, {most} may")

    def _expect_enough_ready(self, drained: Replica, seen: int) -> None:
        ready = [
            each
            for each in self.running(drained.env_id, drained.process)
            if each.status == "ready" and self.nodes[each.node_id].state != "offline"
        ]
        least = min(self._wanted_since(drained.env_id, drained.process, seen)) - self._unavailable
        if len(ready) < least:
            raise Broken(f"{len(ready)} of {drained.process} are ready, {least} must be")

    def _note_wanted(self, env_id: str) -> None:
        known = {process for each, process in self._wanted if each == env_id}
        replicas = self.envs[env_id].replicas
        for process in known | replicas.keys():
            self._wanted.setdefault((env_id, process), []).append((self.position, replicas.get(process, 0)))

    def _wanted_since(self, env_id: str, process: str, seen: int) -> list[int]:
        """Give what was wanted at a position, and since: who planned there knew no better."""
        noted = self._wanted[env_id, process]
        before = [wanted for position, wanted in noted if position <= seen]
        return [*before[-1:], *(wanted for position, wanted in noted if position > seen)]

    def _new(self, prefix: str) -> str:
        self._made += 1
        return make_id(prefix, self._made)


def shuffled(facts: Iterable[Fact], chance: random.Random) -> list[Fact]:
    """Give facts in another order, each aggregate's in its own: for what must not depend on the order of the others."""
    queues: dict[str, list[Fact]] = {}
    for fact in facts:
        queues.setdefault(fact.aggregate_id, []).append(fact)
    result = []
    while queues:
        chosen = chance.choice(sorted(queues))
        result.append(queues[chosen].pop(0))
        if not queues[chosen]:
            del queues[chosen]
    return result
