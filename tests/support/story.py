"""Histories as the command service would write them: made up from a seed, valid, and inserted as the log's owner."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import NamedTuple

import msgspec

from keelson.events import Envelope, Event, Ids
from keelson.events.app import AppCreated, AppDeleted, AppRenamed
from keelson.events.deploy import DeployCreated, DeployStatus, DeployStatusChanged
from keelson.events.env import EnvConfigSet, EnvCreated, EnvDeleted, EnvProcess, EnvReleaseSet, EnvRenamed, EnvScaled
from keelson.events.ids import AggregateId, Position, Seq
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
from keelson.events.org import (
    OrgCreated,
    OrgCredentialIssued,
    OrgCredentialRevoked,
    OrgMemberAdded,
    OrgMemberErased,
    OrgMemberRemoved,
    OrgMemberRoleChanged,
    OrgQuotaSet,
    OrgRenamed,
    Quota,
    Role,
)
from keelson.events.principal import (
    PrincipalCreated,
    PrincipalCredentialIssued,
    PrincipalCredentialRevoked,
    PrincipalDeleted,
    PrincipalScopesSet,
)
from keelson.events.project import ProjectCreated, ProjectDeleted, ProjectRenamed
from keelson.events.registry import encode
from keelson.events.release import Health, Port, Process, ReleaseCreated, Source
from keelson.events.route import RouteCreated, RouteDeleted, RouteUpdated
from keelson.events.secret import SecretCreated, SecretDeleted, SecretRevealed, SecretVersionSet
from keelson.log.database import Connection

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = Envelope.__struct_fields__

# What one command appends: aggregates with their ancestors, and what happened to them.
Command = list[tuple[str, Ids, Event]]


class Env(NamedTuple):
    """An environment of the story, and what is in it."""

    ids: Ids
    deploys: list[str]
    processes: list[str]
    # Each with its hostname and its process.
    routes: dict[str, tuple[str, str]]
    # Those that have not stopped, each with its ids.
    instances: dict[str, Ids]


class Story:
    """Appends commands one after another; `first` is the position of the first event."""

    def __init__(self, seed: int = 0, *, first: int = 1) -> None:
        self._random = Random(seed)
        self._position = first - 1
        self._seqs: dict[str, int] = {}
        self._count = 0
        self._projects: list[Ids] = []
        self._apps: list[Ids] = []
        self._releases: dict[str, list[tuple[str, dict[str, Process]]]] = {}
        self._envs: list[Env] = []
        self._free_hostnames: list[str] = []
        # By their environments, each with its version.
        self._secrets: dict[str, tuple[str, int]] = {}
        # Those that wait for a machine, and those that have one.
        self._awaited: list[Ids] = []
        self._nodes: list[Ids] = []
        # Live ones, each with its live credentials.
        self._members: dict[str, list[str]] = {}
        self._principals: dict[str, list[str]] = {}
        self._former_members: list[str] = []
        self._org = Ids(org_id=self._mint("org"))
        self._opened = False

    def tell(self, commands: int) -> list[Envelope]:
        """Give the events of so many more commands."""
        return [envelope for _ in range(commands) for envelope in self.envelopes(self._next_command())]

    def envelopes(self, command: Command) -> Iterator[Envelope]:
        """Give a command's events the places that come next."""
        command_id = self._mint("command")
        for index, (aggregate_id, ids, event) in enumerate(command, start=1):
            self._position += 1
            self._seqs[aggregate_id] = seq = self._seqs.get(aggregate_id, 0) + 1
            yield Envelope(
                position=Position(self._position),
                aggregate_id=AggregateId(aggregate_id),
                seq=Seq(seq),
                type=event.event_type,
                version=event.event_version,
                org_id=ids.org_id,
                project_id=ids.project_id,
                app_id=ids.app_id,
                env_id=ids.env_id,
                node_id=ids.node_id,
                actor_type="system",
                actor_id="operator",
                reason=self._random.choice((None, "because", "no særlig reason")),
                request_id=f"request-{self._position}",
                command_id=command_id,
                command_end=index == len(command),
                recorded_at=BEGAN + timedelta(milliseconds=self._position),
                payload=encode(event),
            )

    def _mint(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}_{self._count:026d}"

    def _name(self) -> str:
        return f"name-{self._random.randrange(10**6)}"

    def _next_command(self) -> Command:
        """Choose what happens next; what it needs comes first."""
        if not self._opened:
            self._opened = True
            return [(self._org.org_id or "", self._org, OrgCreated(name="acme"))]
        if not self._projects:
            return self._create_project()
        if not self._apps:
            return self._create_app()
        if not self._envs:
            return self._create_env()
        choices = (
            (self._create_project, 1),
            (self._create_app, 3),
            (self._create_env, 4),
            (self._create_release, 12),
            (self._create_deploy, 20),
            (self._finish_deploy, 20),
            (self._scale, 12),
            (self._configure, 12),
            (self._rename, 6),
            (self._create_route, 6),
            (self._update_route, 4),
            (self._delete_route, 3),
            (self._set_secret, 6),
            (self._reveal_secret, 4),
            (self._await_node, 3),
            (self._enroll_node, 4),
            (self._change_node, 4),
            (self._remove_node, 1),
            (self._allocate, 12),
            (self._change_instance, 20),
            (self._delete, 2),
            (self._set_quota, 1),
            (self._add_member, 2),
            (self._change_member, 3),
            (self._create_principal, 2),
            (self._change_principal, 3),
        )
        chosen = self._random.choices([make for make, _ in choices], [weight for _, weight in choices])[0]
        return chosen() or self._configure()

    def _create_project(self) -> Command:
        ids = msgspec.structs.replace(self._org, project_id=self._mint("project"))
        self._projects.append(ids)
        return [(ids.project_id or "", ids, ProjectCreated(name=self._name()))]

    def _create_app(self) -> Command:
        ids = msgspec.structs.replace(self._random.choice(self._projects), app_id=self._mint("app"))
        self._apps.append(ids)
        return [(ids.app_id or "", ids, AppCreated(name=self._name()))]

    def _create_env(self) -> Command:
        ids = msgspec.structs.replace(self._random.choice(self._apps), env_id=self._mint("env"))
        self._envs.append(Env(ids, [], [], {}, {}))
        return [(ids.env_id or "", ids, EnvCreated(name=self._name()))]

    def _create_release(self) -> Command:
        ids = self._random.choice(self._apps)
        release_id = self._mint("release")
        processes = {name: self._process() for name in self._random.sample(("web", "worker", "cron"), k=2)}
        releases = self._releases.setdefault(ids.app_id or "", [])
        releases.append((release_id, processes))
        source = Source(repository="https://git.example/shop", commit="c0ffee")
        event = ReleaseCreated(
            number=len(releases), image=f"shop@sha256:{len(releases):064x}", processes=processes, source=source
        )
        return [(release_id, ids, event)]

    def _process(self) -> Process:
        return Process(
            command=("run", str(self._random.randrange(9))),
            ports=(Port("http", 8080),),
            cpu_millis=250,
            memory_bytes=2**28,
            health=self._random.choice((None, Health(path="/", port="http"))),
        )

    def _create_deploy(self) -> Command:
        env = self._random.choice(self._envs)
        releases = self._releases.get(env.ids.app_id or "", [])
        used = {process for _, process in env.routes.values()}
        possible = [each for each in releases if used <= each[1].keys()]
        if not possible:
            return []
        release_id, processes = self._random.choice(possible)
        number = [each for each, _ in releases].index(release_id) + 1
        deploy_id = self._mint("deploy")
        superseded = env.deploys[-1:]
        env.deploys[:] = [deploy_id]
        env.processes[:] = sorted(processes)
        wanted = {
            name: EnvProcess(**msgspec.structs.asdict(process), replicas=self._random.randrange(4))
            for name, process in processes.items()
        }
        return [
            *((each, env.ids, DeployStatusChanged(status="superseded")) for each in superseded),
            (deploy_id, env.ids, DeployCreated(release_id=release_id, release_number=number, kind="deploy")),
            (
                env.ids.env_id or "",
                env.ids,
                EnvReleaseSet(deploy_id=deploy_id, release_id=release_id, release_number=number, processes=wanted),
            ),
        ]

    def _finish_deploy(self) -> Command:
        env = self._random.choice(self._envs)
        if not env.deploys:
            return []
        statuses: tuple[DeployStatus, ...] = ("rolling", "succeeded", "failed")
        status = self._random.choice(statuses)
        deploy_id = env.deploys[-1] if status == "rolling" else env.deploys.pop()
        return [(deploy_id, env.ids, DeployStatusChanged(status=status, message="said the test"))]

    def _scale(self) -> Command:
        env = self._random.choice(self._envs)
        if not env.processes:
            return []
        replicas = {name: self._random.randrange(5) for name in env.processes}
        memory_bytes = self._random.choice((None, 2**28 * sum(replicas.values())))
        return [(env.ids.env_id or "", env.ids, EnvScaled(replicas=replicas, memory_bytes=memory_bytes))]

    def _configure(self) -> Command:
        env = self._random.choice(self._envs)
        names = self._random.sample(("A", "B", "LOG_LEVEL", "Z"), k=3)
        return [(env.ids.env_id or "", env.ids, EnvConfigSet(variables={name: self._name() for name in names}))]

    def _create_route(self) -> Command:
        env = self._random.choice(self._envs)
        if not env.processes:
            return []
        route_id = self._mint("route")
        env.routes[route_id] = (self._hostname(), self._random.choice(env.processes))
        hostname, process = env.routes[route_id]
        return [(route_id, env.ids, RouteCreated(hostname=hostname, process=process, port="http"))]

    def _update_route(self) -> Command:
        env = self._random.choice(self._envs)
        if not env.routes:
            return []
        route_id, (hostname, _) = self._random.choice(list(env.routes.items()))
        if self._random.random() < 0.5:
            self._free_hostnames.append(hostname)
            hostname = self._hostname()
        env.routes[route_id] = (hostname, self._random.choice(env.processes))
        return [(route_id, env.ids, RouteUpdated(hostname=hostname, process=env.routes[route_id][1], port="http"))]

    def _delete_route(self) -> Command:
        env = self._random.choice(self._envs)
        return [self._end_route(env, self._random.choice(list(env.routes)))] if env.routes else []

    def _set_secret(self) -> Command:
        env = self._random.choice(self._envs)
        secret_id, version = self._secrets.get(env.ids.env_id or "", ("", 0))
        created: Command = []
        if not version:
            secret_id = self._mint("secret")
            created = [(secret_id, env.ids, SecretCreated())]
        self._secrets[env.ids.env_id or ""] = (secret_id, version + 1)
        keys = tuple(sorted(self._random.sample(("A", "B", "TOKEN"), k=self._random.randrange(4))))
        set_ = SecretVersionSet(version=version + 1, keys=keys, digest=f"hmac-sha256:{self._random.randrange(16):064x}")
        return [*created, (secret_id, env.ids, set_)]

    def _reveal_secret(self) -> Command:
        env = self._random.choice(self._envs)
        secret_id, version = self._secrets.get(env.ids.env_id or "", ("", 0))
        if not version or not env.instances:
            return []
        instance_id, ids = self._random.choice(list(env.instances.items()))
        told = SecretRevealed(version=version, node_id=ids.node_id or "", instance_id=instance_id)
        return [(secret_id, env.ids, told)]

    def _end_secret(self, env: Env) -> Command:
        secret_id, version = self._secrets.pop(env.ids.env_id or "", ("", 0))
        return [(secret_id, env.ids, SecretDeleted())] if version else []

    def _end_route(self, env: Env, route_id: str) -> tuple[str, Ids, Event]:
        self._free_hostnames.append(env.routes.pop(route_id)[0])
        return (route_id, env.ids, RouteDeleted())

    def _hostname(self) -> str:
        """Give one that no route has; perhaps one that a route had."""
        if self._free_hostnames and self._random.random() < 0.5:
            return self._free_hostnames.pop(self._random.randrange(len(self._free_hostnames)))
        return f"{self._mint('host')}.example".replace("_", "-")

    def _await_node(self) -> Command:
        ids = Ids(node_id=self._mint("node"))
        self._awaited.append(ids)
        created = NodeEnrollmentCreated(BEGAN + timedelta(hours=1), credential_id=self._mint("credential"))
        return [(ids.node_id or "", ids, created)]

    def _enroll_node(self) -> Command:
        if not self._awaited:
            return []
        ids = self._awaited.pop()
        self._nodes.append(ids)
        enrolled = NodeEnrolled(
            name=self._mint("machine").replace("_", "-"),
            labels={"zone": self._name(), "arch": "arm64"},
            cpu_millis=4000,
            memory_bytes=2**33,
            address=self._random.choice((None, "10.0.0.7")),
            credential_id=self._mint("credential"),
        )
        return [(ids.node_id or "", ids, enrolled)]

    def _change_node(self) -> Command:
        if not self._nodes:
            return []
        ids = self._random.choice(self._nodes)
        states: tuple[NodeState, ...] = ("active", "draining", "disabled", "offline")
        message = self._random.choice((None, "said the test"))
        changes: tuple[Event, ...] = (
            NodeStateChanged(state=self._random.choice(states), message=message),
            NodeCapacitySet(cpu_millis=self._random.randrange(9000), memory_bytes=2**34),
        )
        return [(ids.node_id or "", ids, self._random.choice(changes))]

    def _remove_node(self) -> Command:
        placed = {ids.node_id for env in self._envs for ids in env.instances.values()}
        for ids in [each for each in self._nodes if each.node_id not in placed][:1]:
            self._nodes.remove(ids)
            return [(ids.node_id or "", ids, NodeRemoved())]
        return []

    def _allocate(self) -> Command:
        env = self._random.choice(self._envs)
        if not env.processes or not self._nodes:
            return []
        ids = msgspec.structs.replace(env.ids, node_id=self._random.choice(self._nodes).node_id)
        instance_id = self._mint("instance")
        env.instances[instance_id] = ids
        spec = InstanceSpec(
            image=f"shop@sha256:{0:064x}",
            command=("run",),
            ports=(Port("http", 8080),),
            cpu_millis=250,
            memory_bytes=2**28,
            health=Health(path="/", port="http"),
            variables={"Z": self._name(), "A": "1"},
        )
        allocated = InstanceAllocated(
            process=self._random.choice(env.processes),
            release_id=self._releases[ids.app_id or ""][-1][0],
            release_number=len(self._releases[ids.app_id or ""]),
            secret_version=self._random.choice((None, 3)),
            spec=spec,
            spec_hash=f"{self._random.randrange(2**64):064x}",
        )
        return [(instance_id, ids, allocated)]

    def _change_instance(self) -> Command:
        env = self._random.choice(self._envs)
        if not env.instances:
            return []
        instance_id, ids = self._random.choice(list(env.instances.items()))
        if self._random.random() < 0.25:
            desired: tuple[DesiredState, ...] = ("draining", "stopped")
            return [(instance_id, ids, InstanceDesiredStateChanged(self._random.choice(desired)))]
        statuses: tuple[InstanceStatus, ...] = ("booting", "ready", "ready", "draining", "failed", "stopped")
        status = self._random.choice(statuses)
        if status == "stopped":
            del env.instances[instance_id]
        reported = InstanceStatusChanged(
            status=status,
            endpoints={"http": Endpoint("10.0.0.7", 31000)} if status == "ready" else None,
            reason_code="exited" if status == "failed" else None,
            exit_code=self._random.choice((None, 1)) if status == "failed" else None,
            message=self._random.choice((None, "said the node")),
        )
        return [(instance_id, ids, reported)]

    def _rename(self) -> Command:
        env = self._random.choice(self._envs)
        app = self._random.choice(self._apps)
        project = self._random.choice(self._projects)
        renamed: tuple[tuple[str | None, Ids, Event], ...] = (
            (env.ids.env_id, env.ids, EnvRenamed(name=self._name())),
            (app.app_id, app, AppRenamed(name=self._name())),
            (project.project_id, project, ProjectRenamed(name=self._name())),
            (self._org.org_id, self._org, OrgRenamed(name=self._name())),
        )
        aggregate_id, ids, event = self._random.choice(renamed)
        return [(aggregate_id or "", ids, event)]

    def _set_quota(self) -> Command:
        quota = Quota(apps=self._random.choice((None, 10)), memory_bytes=self._random.randrange(2**40))
        return [(self._org.org_id or "", self._org, OrgQuotaSet(quota=quota))]

    def _add_member(self) -> Command:
        member_id, role = self._mint("member"), self._role()
        self._members[member_id] = []
        event = OrgMemberAdded(member_id=member_id, person_id=self._mint("person"), role=role)
        return [(self._org.org_id or "", self._org, event)]

    def _role(self) -> Role:
        roles: tuple[Role, ...] = ("owner", "admin", "developer", "readonly")
        return self._random.choice(roles)

    def _change_member(self) -> Command:
        if not self._members:
            return []
        member_id, credentials = self._random.choice(list(self._members.items()))
        match self._random.randrange(5):
            case 0 if self._former_members:
                events: list[Event] = [OrgMemberErased(member_id=self._former_members.pop())]
            case 0:
                del self._members[member_id]
                events = [OrgMemberRemoved(member_id=member_id), OrgMemberErased(member_id=member_id)]
            case 1:
                del self._members[member_id]
                self._former_members.append(member_id)
                events = [OrgMemberRemoved(member_id=member_id)]
            case 2:
                events = [OrgMemberRoleChanged(member_id=member_id, role=self._role())]
            case 3 if credentials:
                events = [OrgCredentialRevoked(member_id=member_id, credential_id=credentials.pop())]
            case _:
                credentials.append(self._mint("credential"))
                issued = OrgCredentialIssued(
                    member_id=member_id, credential_id=credentials[-1], expires_at=self._expires_at()
                )
                events = [issued]
        return [(self._org.org_id or "", self._org, event) for event in events]

    def _expires_at(self) -> datetime | None:
        return self._random.choice((None, BEGAN + timedelta(days=self._random.randrange(400))))

    def _create_principal(self) -> Command:
        principal_id = self._mint("principal")
        self._principals[principal_id] = []
        return [(principal_id, self._org, PrincipalCreated(name=self._name(), scopes=self._scopes()))]

    def _scopes(self) -> tuple[str, ...]:
        return tuple(sorted(self._random.sample(("apps:read", "apps:write", "deploys:write", "*"), k=2)))

    def _change_principal(self) -> Command:
        if not self._principals:
            return []
        principal_id, credentials = self._random.choice(list(self._principals.items()))
        event: Event
        match self._random.randrange(4):
            case 0:
                del self._principals[principal_id]
                event = PrincipalDeleted()
            case 1:
                event = PrincipalScopesSet(scopes=self._scopes())
            case 2 if credentials:
                event = PrincipalCredentialRevoked(credential_id=credentials.pop())
            case _:
                credentials.append(self._mint("credential"))
                event = PrincipalCredentialIssued(credential_id=credentials[-1], expires_at=self._expires_at())
        return [(principal_id, self._org, event)]

    def _delete(self) -> Command:
        """Delete something that nothing in the story will speak of again."""
        if len(self._envs) > 1:
            env = self._envs.pop(self._random.randrange(len(self._envs)))
            superseded = [(each, env.ids, DeployStatusChanged(status="superseded")) for each in env.deploys]
            ended = [self._end_route(env, route_id) for route_id in list(env.routes)]
            ended += [(each, ids, InstanceStatusChanged(status="stopped")) for each, ids in env.instances.items()]
            return [*ended, *superseded, *self._end_secret(env), (env.ids.env_id or "", env.ids, EnvDeleted())]
        used = {ids.project_id for ids in self._apps}
        for ids in [each for each in self._projects if each.project_id not in used][:1]:
            if len(self._projects) > 1:
                self._projects.remove(ids)
                return [(ids.project_id or "", ids, ProjectDeleted())]
        busy = {env.ids.app_id for env in self._envs}
        for ids in [each for each in self._apps if each.app_id not in busy][:1]:
            self._apps.remove(ids)
            return [(ids.app_id or "", ids, AppDeleted())]
        return []


def raw_command(position: int, *events: tuple[str, str, str]) -> list[Envelope]:
    """Make one command of (aggregate, type, payload), whatever they are; seqs begin at 1."""
    story = Story(first=position)
    command: Command = [(aggregate_id, Ids(org_id=aggregate_id), OrgCreated(name="x")) for aggregate_id, _, _ in events]
    return [
        msgspec.structs.replace(envelope, type=event_type, payload=payload)
        for envelope, (_, event_type, payload) in zip(story.envelopes(command), events, strict=True)
    ]


async def insert(owner: Connection, envelopes: Sequence[Envelope], *, notify: bool = True) -> None:
    """Append events just as they are, in one transaction; the log's owner may, whatever times and ids they have."""
    records = [msgspec.structs.astuple(envelope) for envelope in envelopes]
    last = envelopes[-1]
    async with owner.transaction():
        await owner.copy_records_to_table("events", schema_name="log", records=records, columns=COLUMNS)
        await owner.execute("UPDATE log.head SET position = $1, recorded_at = $2", last.position, last.recorded_at)
        if notify:
            await owner.execute("SELECT pg_notify('keelson_log', $1)", str(last.position))
