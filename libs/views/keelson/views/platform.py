"""The projection `platform`: what there is to run, and what should run where."""

from collections.abc import Iterator
from datetime import datetime

import msgspec

from keelson.events import Envelope
from keelson.events.app import AppCreated, AppDeleted, AppRenamed
from keelson.events.deploy import DeployCreated, DeployKind, DeployStatus, DeployStatusChanged
from keelson.events.env import EnvConfigSet, EnvCreated, EnvDeleted, EnvReleaseSet, EnvRenamed, EnvScaled
from keelson.events.release import Health, Port, Process, ReleaseCreated, Source
from keelson.events.route import RouteCreated, RouteDeleted, RouteUpdated
from keelson.events.secret import SecretCreated, SecretDeleted, SecretVersionSet
from keelson.views import placement
from keelson.views.changes import Change, patch, put, replace
from keelson.views.projection import Projection
from keelson.views.table import Row, Table


class AppRow(Row, frozen=True, kw_only=True):
    """An app of a project."""

    id: str
    org_id: str
    project_id: str
    name: str
    deleted_at: datetime | None = None


class EnvRow(Row, frozen=True, kw_only=True):
    """An environment of an app; it has no release until its first deploy."""

    id: str
    org_id: str
    project_id: str
    app_id: str
    name: str
    release_id: str | None = None
    release_number: int | None = None
    deploy_id: str | None = None
    replicas: dict[str, int] = msgspec.field(default_factory=dict)
    variables: dict[str, str] = msgspec.field(default_factory=dict)
    deleted_at: datetime | None = None


class EnvProcessRow(Row, frozen=True, kw_only=True):
    """A process of the release that an environment should run; `resource_version` is the environment's seq."""

    env_id: str
    process: str
    org_id: str
    project_id: str
    app_id: str
    release_id: str
    release_number: int
    replicas: int
    command: tuple[str, ...]
    ports: tuple[Port, ...]
    cpu_millis: int
    memory_bytes: int
    health: Health | None
    needs_secrets: bool


class ReleaseRow(Row, frozen=True, kw_only=True):
    """A release of an app."""

    id: str
    org_id: str
    project_id: str
    app_id: str
    number: int
    image: str
    processes: dict[str, Process]
    source: Source | None


class DeployRow(Row, frozen=True, kw_only=True):
    """A release on its way into an environment."""

    id: str
    org_id: str
    project_id: str
    app_id: str
    env_id: str
    release_id: str
    release_number: int
    kind: DeployKind
    status: DeployStatus
    message: str | None = None


class RouteRow(Row, frozen=True, kw_only=True):
    """A hostname that leads to a port of an environment's process."""

    id: str
    org_id: str
    project_id: str
    app_id: str
    env_id: str
    hostname: str
    process: str
    port: str
    deleted_at: datetime | None = None


class SecretRow(Row, frozen=True, kw_only=True):
    """An environment's bundle of secret values: which there are, and a digest that is equal while they are."""

    id: str
    org_id: str
    project_id: str
    app_id: str
    env_id: str
    version: int = 0
    keys: tuple[str, ...] = ()
    digest: str = ""
    deleted_at: datetime | None = None


APPS = Table(
    name="apps",
    row=AppRow,
    indexes=(("org_id", "id"), ("project_id", "id")),
    aggregate="app",
    collection=True,
)
ENVS = Table(name="envs", row=EnvRow, indexes=(("org_id", "id"), ("app_id", "id")), aggregate="env", collection=True)
ENV_PROCESSES = Table(name="env_processes", row=EnvProcessRow, key=("env_id", "process"))
RELEASES = Table(
    name="releases",
    row=ReleaseRow,
    indexes=(("org_id", "id"), ("app_id", "id")),
    aggregate="release",
    collection=True,
)
DEPLOYS = Table(
    name="deploys",
    row=DeployRow,
    indexes=(("org_id", "id"), ("env_id", "id")),
    aggregate="deploy",
    collection=True,
)

ROUTES = Table(
    name="routes",
    row=RouteRow,
    indexes=(("org_id", "id"), ("env_id", "id"), ("hostname", "id")),
    aggregate="route",
    collection=True,
)

SECRETS = Table(
    name="secrets",
    row=SecretRow,
    indexes=(("org_id", "id"), ("env_id", "id")),
    aggregate="secret",
    collection=True,
)

PLATFORM = Projection(
    "platform",
    version=4,
    tables=(APPS, ENVS, ENV_PROCESSES, RELEASES, DEPLOYS, ROUTES, SECRETS, placement.NODES, placement.INSTANCES),
    derived=(placement.ENV_STATUS, placement.NODE_DESIRED, placement.EDGE_DESIRED),
)
for event_class, handler in placement.HANDLERS:
    PLATFORM.on(event_class)(handler)


@PLATFORM.on(AppCreated)
def app_created(envelope: Envelope, event: AppCreated) -> Iterator[Change]:
    """Begin the app's row."""
    yield put(
        APPS,
        id=envelope.aggregate_id,
        org_id=envelope.org_id,
        project_id=envelope.project_id,
        name=event.name,
    )


@PLATFORM.on(AppRenamed)
def app_renamed(envelope: Envelope, event: AppRenamed) -> Iterator[Change]:
    """Change its name."""
    yield patch(APPS, envelope.aggregate_id, name=event.name)


@PLATFORM.on(AppDeleted)
def app_deleted(envelope: Envelope, event: AppDeleted) -> Iterator[Change]:  # noqa: ARG001 - says nothing more
    """Say when it was deleted."""
    yield patch(APPS, envelope.aggregate_id, deleted_at=envelope.recorded_at)


@PLATFORM.on(EnvCreated)
def env_created(envelope: Envelope, event: EnvCreated) -> Iterator[Change]:
    """Begin the environment's row."""
    yield put(
        ENVS,
        id=envelope.aggregate_id,
        org_id=envelope.org_id,
        project_id=envelope.project_id,
        app_id=envelope.app_id,
        name=event.name,
    )


@PLATFORM.on(EnvRenamed)
def env_renamed(envelope: Envelope, event: EnvRenamed) -> Iterator[Change]:
    """Change its name."""
    yield patch(ENVS, envelope.aggregate_id, name=event.name)


@PLATFORM.on(EnvDeleted)
def env_deleted(envelope: Envelope, event: EnvDeleted) -> Iterator[Change]:  # noqa: ARG001 - says nothing more
    """Say when it was deleted; nothing should run in it any more."""
    yield patch(ENVS, envelope.aggregate_id, deleted_at=envelope.recorded_at)
    yield replace(ENV_PROCESSES, envelope.aggregate_id, rows=[])


@PLATFORM.on(EnvConfigSet)
def env_config_set(envelope: Envelope, event: EnvConfigSet) -> Iterator[Change]:
    """Exchange its variables."""
    yield patch(ENVS, envelope.aggregate_id, variables=event.variables)


@PLATFORM.on(EnvScaled)
def env_scaled(envelope: Envelope, event: EnvScaled) -> Iterator[Change]:
    """Change the numbers of replicas, in the environment and in each of its processes."""
    yield patch(ENVS, envelope.aggregate_id, replicas=event.replicas)
    for process, replicas in sorted(event.replicas.items()):
        yield patch(ENV_PROCESSES, envelope.aggregate_id, process, replicas=replicas)


@PLATFORM.on(EnvReleaseSet)
def env_release_set(envelope: Envelope, event: EnvReleaseSet) -> Iterator[Change]:
    """Exchange the environment's release and all of its processes."""
    release = {"release_id": event.release_id, "release_number": event.release_number}
    replicas = {name: process.replicas for name, process in event.processes.items()}
    yield patch(ENVS, envelope.aggregate_id, deploy_id=event.deploy_id, replicas=replicas, **release)
    common = {
        "env_id": envelope.aggregate_id,
        "org_id": envelope.org_id,
        "project_id": envelope.project_id,
        "app_id": envelope.app_id,
        **release,
    }
    rows = [
        {
            **common,
            "process": name,
            "replicas": process.replicas,
            "command": process.command,
            "ports": process.ports,
            "cpu_millis": process.cpu_millis,
            "memory_bytes": process.memory_bytes,
            "health": process.health,
            "needs_secrets": process.needs_secrets,
        }
        for name, process in sorted(event.processes.items())
    ]
    yield replace(ENV_PROCESSES, envelope.aggregate_id, rows=rows)


@PLATFORM.on(ReleaseCreated)
def release_created(envelope: Envelope, event: ReleaseCreated) -> Iterator[Change]:
    """Write the release's row; it never changes."""
    yield put(
        RELEASES,
        id=envelope.aggregate_id,
        org_id=envelope.org_id,
        project_id=envelope.project_id,
        app_id=envelope.app_id,
        number=event.number,
        image=event.image,
        processes=event.processes,
        source=event.source,
    )


@PLATFORM.on(DeployCreated)
def deploy_created(envelope: Envelope, event: DeployCreated) -> Iterator[Change]:
    """Begin the deploy's row."""
    yield put(
        DEPLOYS,
        id=envelope.aggregate_id,
        org_id=envelope.org_id,
        project_id=envelope.project_id,
        app_id=envelope.app_id,
        env_id=envelope.env_id,
        release_id=event.release_id,
        release_number=event.release_number,
        kind=event.kind,
        status="queued",
    )


@PLATFORM.on(DeployStatusChanged)
def deploy_status_changed(envelope: Envelope, event: DeployStatusChanged) -> Iterator[Change]:
    """Say how it went on."""
    yield patch(DEPLOYS, envelope.aggregate_id, status=event.status, message=event.message)


@PLATFORM.on(RouteCreated)
def route_created(envelope: Envelope, event: RouteCreated) -> Iterator[Change]:
    """Begin the route's row."""
    yield put(
        ROUTES,
        id=envelope.aggregate_id,
        org_id=envelope.org_id,
        project_id=envelope.project_id,
        app_id=envelope.app_id,
        env_id=envelope.env_id,
        hostname=event.hostname,
        process=event.process,
        port=event.port,
    )


@PLATFORM.on(RouteUpdated)
def route_updated(envelope: Envelope, event: RouteUpdated) -> Iterator[Change]:
    """Say where it leads now, and from which hostname."""
    yield patch(ROUTES, envelope.aggregate_id, hostname=event.hostname, process=event.process, port=event.port)


@PLATFORM.on(RouteDeleted)
def route_deleted(envelope: Envelope, event: RouteDeleted) -> Iterator[Change]:  # noqa: ARG001 - says nothing more
    """Say when it was deleted."""
    yield patch(ROUTES, envelope.aggregate_id, deleted_at=envelope.recorded_at)


@PLATFORM.on(SecretCreated)
def secret_created(envelope: Envelope, event: SecretCreated) -> Iterator[Change]:  # noqa: ARG001 - says nothing more
    """Begin the secret's row."""
    yield put(
        SECRETS,
        id=envelope.aggregate_id,
        org_id=envelope.org_id,
        project_id=envelope.project_id,
        app_id=envelope.app_id,
        env_id=envelope.env_id,
    )


@PLATFORM.on(SecretVersionSet)
def secret_version_set(envelope: Envelope, event: SecretVersionSet) -> Iterator[Change]:
    """Say which values there are now."""
    yield patch(SECRETS, envelope.aggregate_id, version=event.version, keys=event.keys, digest=event.digest)


@PLATFORM.on(SecretDeleted)
def secret_deleted(envelope: Envelope, event: SecretDeleted) -> Iterator[Change]:  # noqa: ARG001 - says nothing more
    """Say when it was deleted."""
    yield patch(SECRETS, envelope.aggregate_id, deleted_at=envelope.recorded_at)
