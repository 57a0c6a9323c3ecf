"""Deploys: a release on its way into an environment, one open at a time."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from keelson.command.domain.deploy_state import TRANSITIONS, Deploy, supersede_open
from keelson.command.domain.env import Env
from keelson.command.domain.quota import Wanted, limit_wanted
from keelson.command.domain.release import Release, ports_of
from keelson.command.domain.route import Route
from keelson.command.fields import DeployId, EnvId, ReleaseId, Text
from keelson.command.handlers import Command, Handler
from keelson.command.refusal import Refusal
from keelson.command.state import Aggregate
from keelson.command.transaction import Transaction
from keelson.events.deploy import DeployCreated, DeployKind, DeployStatusChanged
from keelson.events.env import EnvProcess, EnvReleaseSet
from keelson.events.ids import AggregateId
from keelson.events.release import Process
from keelson.events.route import hostnames_in

# A refusal names so many of the routes that would break, and says how many more there are.
MAX_NAMED = 20


class CreateDeploy(Command, frozen=True, kw_only=True):
    """Deploy a release into an environment, unless that breaks a route; an open deploy is superseded."""

    env_id: EnvId
    release_id: ReleaseId
    kind: DeployKind = "deploy"
    deploy_id: DeployId | None = None


class SetDeployStatus(Command, frozen=True, kw_only=True):
    """Say how far a deploy is."""

    deploy_id: DeployId
    status: Literal["rolling", "succeeded", "failed"]
    message: Text | None = None


class DeployResult(msgspec.Struct, frozen=True):
    """Which deploy."""

    deploy_id: str


async def create_deploy(tx: Transaction, command: CreateDeploy) -> DeployResult:
    """Queue it and set the environment's release, at once, unless that would break a route or a quota."""
    env = await tx.get(Env, command.env_id)
    release = await get_deployable(tx, env, command.release_id)
    replicas = scaled(release.state, env.state.replicas)
    deploy_id = await start_deploy(tx, env, release, replicas, kind=command.kind, chosen_id=command.deploy_id)
    return DeployResult(deploy_id)


async def start_deploy(
    tx: Transaction,
    env: Aggregate[Env],
    release: Aggregate[Release],
    replicas: Mapping[str, int],
    *,
    kind: DeployKind,
    chosen_id: str | None = None,
) -> AggregateId:
    """Queue a deploy in the place of an open one, and set the environment's release with so many of each process.

    Raises Refusal for more than the quotas allow.
    """
    processes = {name: _replicated(process, replicas[name]) for name, process in release.state.processes.items()}
    await limit_wanted(tx, env.ids.org_id, before=env.state.wanted, after=Wanted.of(processes.values()))
    deploy_id = await tx.new_id(Deploy, chosen_id)
    await supersede_open(tx, env.state.deploy_id, f"deploy {deploy_id} took its place")
    number = release.state.number
    tx.create(Deploy, deploy_id, env.ids, DeployCreated(release_id=release.id, release_number=number, kind=kind))
    tx.append(
        env, EnvReleaseSet(deploy_id=deploy_id, release_id=release.id, release_number=number, processes=processes)
    )
    return deploy_id


async def get_deployable(tx: Transaction, env: Aggregate[Env], release_id: str) -> Aggregate[Release]:
    """Give a release that the environment can run as it is. Raises Refusal."""
    release = await tx.get(Release, release_id)
    if release.ids.app_id != env.ids.app_id:
        raise Refusal("wrong_app", f"release {release.id} is of another app than environment {env.id}")
    await _require_unbroken(tx, env, release)
    return release


async def _require_unbroken(tx: Transaction, env: Aggregate[Env], release: Aggregate[Release]) -> None:
    """Refuse a release that lacks what a route leads to. The environment's routes join the read set, each of them."""
    ports = ports_of(release.state.processes)
    broken = []
    for route_id in await tx.holders(hostnames_in(env.id)):
        route = (await tx.get(Route, route_id)).state
        if route.port not in ports.get(route.process, ()):
            broken.append(f"{route_id} ({route.hostname} to {route.port} of {route.process})")
    if broken:
        more = f" and {len(broken) - MAX_NAMED} more" if len(broken) > MAX_NAMED else ""
        raise Refusal("route_would_break", f"release {release.id} would break {', '.join(broken[:MAX_NAMED])}{more}")


def scaled(release: Release, replicas: Mapping[str, int]) -> dict[str, int]:
    """Give how many of a release's processes an environment with these replicas wants: one of what it never scaled."""
    return {name: replicas.get(name, 1) for name in release.processes}


def _replicated(process: Process, replicas: int) -> EnvProcess:
    return EnvProcess(**msgspec.structs.asdict(process), replicas=replicas)


async def set_deploy_status(tx: Transaction, command: SetDeployStatus) -> DeployResult:
    """Take it on to its next status, unless that is its status."""
    deploy = await tx.get(Deploy, command.deploy_id)
    status = deploy.state.status
    if status == command.status:
        return DeployResult(deploy.id)
    if command.status not in TRANSITIONS.get(status, ()):
        raise Refusal("invalid_transition", f"deploy {deploy.id} is {status} and cannot become {command.status}")
    tx.append(deploy, DeployStatusChanged(status=command.status, message=command.message))
    return DeployResult(deploy.id)


HANDLERS = (
    Handler(name="deploy.create", command=CreateDeploy, handle=create_deploy, result=DeployResult),
    Handler(
        name="deploy.set_status",
        command=SetDeployStatus,
        handle=set_deploy_status,
        result=DeployResult,
        target="deploy_id",
    ),
)
