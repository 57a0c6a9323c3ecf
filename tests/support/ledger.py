"""Whether what runs is what was declared: judged from the log by a fold of its own, that shares nothing with others."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from keelson.client import Client
from keelson.client.reads.events import EventItem


@dataclass
class Wanted:
    """What the log declares of an environment."""

    release_id: str | None = None
    processes: dict[str, dict[str, Any]] = field(default_factory=dict)
    replicas: dict[str, int] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    secret_version: int | None = None


@dataclass
class Seen:
    """What the log says of an instance."""

    env_id: str
    node_id: str
    allocated: dict[str, Any]
    desired: str = "running"
    status: str = "booting"
    endpoints: dict[str, Any] = field(default_factory=dict)

    @property
    def process(self) -> str:
        """Of which process it is."""
        return str(self.allocated["process"])


class Moment(NamedTuple):
    """How many of an environment's instances there were when a command had ended.

    `ready` are those that serve and may go on to, `running` all that should run.
    """

    position: int
    ready: int
    running: int


class Ledger:
    """The log, folded as far as it was read."""

    def __init__(self) -> None:
        self.cursor: str | None = None
        self.position = 0
        self.wanted: dict[str, Wanted] = {}
        self.instances: dict[str, Seen] = {}
        self.nodes: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.deploys: dict[str, str] = {}
        self.moments: dict[str, list[Moment]] = {}

    async def read(self, client: Client) -> None:
        """Read on to the head."""
        async for page in client.events.list(after=self.cursor, limit=500).pages():
            for event in page.items:
                self.apply(event)
            self.cursor = page.next or self.cursor

    def apply(self, event: EventItem) -> None:
        """Take one more event; of one that was read already nothing is new."""
        if event.position <= self.position:
            return
        self.position = event.position
        self._fold(event)
        if event.command_end:
            for env_id in self.wanted:
                self.moments.setdefault(env_id, []).append(self._moment(env_id))

    def live(self, env_id: str) -> dict[str, Seen]:
        """Give an environment's instances that have not stopped."""
        return {
            instance_id: each
            for instance_id, each in self.instances.items()
            if each.env_id == env_id and each.status != "stopped"
        }

    def on(self, env_id: str, node_id: str) -> int:
        """Count those on a node."""
        return sum(each.node_id == node_id for each in self.live(env_id).values())

    def since(self, env_id: str, position: int) -> list[Moment]:
        """Give how it was at that position, and at each command's end after it."""
        moments = self.moments[env_id]
        before = [each for each in moments if each.position <= position]
        return [*before[-1:], *(each for each in moments if each.position > position)]

    def lacks(self, env_id: str) -> str | None:
        """Say in which way an environment is not as declared; None if it is, to the last instance."""
        wanted, live = self.wanted[env_id], self.live(env_id)
        for instance_id, each in live.items():
            if (each.desired, each.status, self.nodes.get(each.node_id)) != ("running", "ready", "active"):
                return f"{instance_id} is {each.status} and to be {each.desired}, its node {self.nodes[each.node_id]}"
            if why := _outdated(wanted, each):
                return f"{instance_id} has another {why}"
        counts = {name: sum(each.process == name for each in live.values()) for name in wanted.replicas}
        if counts != wanted.replicas or sum(counts.values()) != len(live):
            return f"{counts} are there, {wanted.replicas} are wanted"
        return None

    def _fold(self, event: EventItem) -> None:
        kind, _, what = event.type.partition(".")
        match kind:
            case "env" | "secret":
                self._fold_env(self.wanted.setdefault(str(event.env_id), Wanted()), what, event.payload)
            case "instance":
                self._fold_instance(event, what)
            case "node":
                self._fold_node(str(event.node_id), what, event.payload)
            case "deploy" if what == "status_changed":
                self.deploys[event.aggregate_id] = event.payload["status"]

    def _fold_env(self, wanted: Wanted, what: str, payload: dict[str, Any]) -> None:
        match what:
            case "release_set":
                wanted.release_id = payload["release_id"]
                wanted.processes = payload["processes"]
                wanted.replicas = {name: each["replicas"] for name, each in wanted.processes.items()}
            case "scaled":
                wanted.replicas = payload["replicas"]
            case "config_set":
                wanted.variables = payload["variables"]
            case "version_set":
                wanted.secret_version = payload["version"]

    def _fold_instance(self, event: EventItem, what: str) -> None:
        if what == "allocated":
            self.instances[event.aggregate_id] = Seen(str(event.env_id), str(event.node_id), event.payload)
            return
        each = self.instances[event.aggregate_id]
        if what == "desired_state_changed":
            each.desired = event.payload["desired_state"]
        else:
            each.status = event.payload["status"]
            each.endpoints = event.payload.get("endpoints") or {}

    def _fold_node(self, node_id: str, what: str, payload: dict[str, Any]) -> None:
        if what == "enrolled":
            self.nodes[node_id] = "active"
            self.names[payload["name"]] = node_id
        elif what == "state_changed":
            self.nodes[node_id] = payload["state"]

    def _moment(self, env_id: str) -> Moment:
        running = [each for each in self.live(env_id).values() if each.desired == "running"]
        ready = [each for each in running if each.status == "ready" and self.nodes.get(each.node_id) != "offline"]
        return Moment(self.position, len(ready), len(running))


def _outdated(wanted: Wanted, each: Seen) -> str | None:
    """Say what of an instance is another than is wanted."""
    needs_secrets = wanted.processes[each.process]["needs_secrets"]
    for what, has, should in (
        ("release", each.allocated["release_id"], wanted.release_id),
        ("configuration", each.allocated["spec"]["variables"], wanted.variables),
        ("secret", each.allocated.get("secret_version"), wanted.secret_version if needs_secrets else None),
    ):
        if has != should:
            return what
    return None
