"""What there is to schedule, as far as it matters for what should run where, as plain values."""

from datetime import datetime
from typing import NamedTuple

import msgspec

from keelson.events import Event
from keelson.events.deploy import DeployStatus
from keelson.events.env import EnvProcess
from keelson.events.instance import DesiredState, InstanceStatusChanged
from keelson.events.node import NodeState

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
    state: NodeState | None = None
    message: str | None = None
    # What it was before it went offline.
    before: NodeState | None = None
    labels: dict[str, str] = {}
    memory_bytes: int = 0
    # What the instances hold that have not stopped.
    held_bytes: int = 0

    @property
    def zone(self) -> str | None:
        """The failure domain that it is in; None if it is one by itself."""
        return self.labels.get(ZONE)

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

    `next` is the first number under which no instance was ever allocated; `ahead` are the ids of those beyond it, and
    of those that were allocated by hand, under no number. `moved` is the position of the last event that concerned it.
    """

    env_id: str
    process: str
    moved: int
    next: int = 1
    ahead: set[str] = set()
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
    """A deploy that is open; at the position `progressed`, `progressed_at` by the database, it came nearer to its end.

    That is: it got its status, or an instance of its release was allocated, or was ready for the first time. What fails
    and starts again is no progress.
    """

    id: str
    env_id: str
    seq: int
    moved: int
    progressed: int
    progressed_at: datetime
    status: DeployStatus
    release_id: str
    release_number: int
