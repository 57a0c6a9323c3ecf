"""Rollback: an environment gets back a release that it had, or all that it should be at a position of the log.

It is a command like any other: new events that say what is wanted from now on. So it can itself be rolled back, by the
position before it. What it would come to is decided first, on the past, which never changes, and on the present, which
is in the read set; a dry run tells just that.
"""

from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from keelson.command.domain.deploy import get_deployable, scaled, start_deploy
from keelson.command.domain.deploy_state import Deploy
from keelson.command.domain.desired import (
    Bundle,
    Change,
    Desired,
    DesiredRelease,
    changes_between,
    desired_at,
    desired_now,
    release_of,
)
from keelson.command.domain.env import Env, rescale
from keelson.command.domain.release import Release
from keelson.command.domain.route import Route
from keelson.command.domain.secret_state import Secret, read_bundle, set_version
from keelson.command.fields import DeployId, EnvId, ReleaseId
from keelson.command.handlers import Command, Handler
from keelson.command.refusal import Reason, Refusal
from keelson.command.state import Aggregate
from keelson.command.transaction import NotReachedError, Transaction
from keelson.events.env import EnvConfigSet
from keelson.events.route import HOSTNAMES, RouteCreated, RouteDeleted, RouteUpdated, hostnames_in


class RollBackEnv(Command, frozen=True, kw_only=True):
    """Roll an environment back to the release of a deploy, to a release, or to all that it was at a position.

    At a position, commands count that were complete by then. A dry run changes nothing: it tells what would change.
    """

    env_id: EnvId
    deploy_id: DeployId | None = None
    release_id: ReleaseId | None = None
    position: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.deploy_id, self.release_id, self.position)) != 1:
            raise ValueError("exactly one of deploy_id, release_id and position says what to go back to")


class RollBackResult(msgspec.Struct, frozen=True):
    """What changes; `deploy_id` is the deploy of kind `rollback`, if another release is wanted from now on."""

    deploy_id: str | None
    changes: list[Change]


class _Plan(NamedTuple):
    """What the environment is, and what it will be."""

    present: Desired
    wanted: Desired
    # The release to deploy, unless it is the present one.
    release: Aggregate[Release] | None = None
    # What the secret's next version will hold, if it gets one.
    values: dict[str, str] | None = None


async def roll_back_env(tx: Transaction, command: RollBackEnv) -> RollBackResult:
    """Change what must be changed, all or nothing; what is so already stays as it is."""
    env = await tx.get(Env, command.env_id)
    if command.position is not None:
        plan = await _plan_position(tx, env, command.position)
    else:
        plan = await _plan_release(tx, env, await _release_id(tx, env, command))
    deploy_id = None if command.dry_run else await _apply(tx, env, plan)
    return RollBackResult(deploy_id, changes_between(plan.present, plan.wanted))


async def _release_id(tx: Transaction, env: Aggregate[Env], command: RollBackEnv) -> str:
    if command.deploy_id is None:
        return str(command.release_id)
    deploy = await tx.get(Deploy, command.deploy_id)
    if deploy.ids.env_id != env.id:
        raise _cannot([Reason("/deploy_id", f"deploy {deploy.id} is of another environment")])
    return deploy.state.release_id


async def _plan_release(tx: Transaction, env: Aggregate[Env], release_id: str) -> _Plan:
    """Plan what a deploy of the release would do. Raises Refusal as for a deploy."""
    present = Desired(release=release_of(env.state), replicas=env.state.replicas)
    if env.state.release_id == release_id:
        return _Plan(present, present)
    release = await get_deployable(tx, env, release_id)
    wanted = Desired(
        release=DesiredRelease(release.id, release.state.number), replicas=scaled(release.state, env.state.replicas)
    )
    return _Plan(present, wanted, release)


async def _plan_position(tx: Transaction, env: Aggregate[Env], position: int) -> _Plan:
    """Plan how to get back all that the environment was. Raises Refusal, with every reason why that cannot be."""
    try:
        past = await desired_at(tx, env.id, position)
    except NotReachedError:
        raise _cannot([Reason("/position", f"the log has not come to position {position}")]) from None
    if past is None:
        raise _cannot([Reason("/position", f"there was no environment {env.id} at position {position}")])
    present = await desired_now(tx, env)
    reasons = [*await _lost_hostnames(tx, present, past)]
    release = await _changed_release(tx, present, past, reasons)
    secret, values = await _changed_secret(tx, present, past, reasons)
    if reasons:
        raise _cannot(reasons)
    return _Plan(present, msgspec.structs.replace(past, secret=secret), release, values)


async def _lost_hostnames(tx: Transaction, present: Desired, past: Desired) -> list[Reason]:
    """Name the hostnames that lead to another environment by now, whose is not told."""
    missing = sorted(past.routes.keys() - present.routes.keys())
    taken = [hostname for hostname in missing if await tx.holder(HOSTNAMES, hostname) is not None]
    return [Reason("/position", f"the hostname {hostname} is taken") for hostname in taken]


async def _changed_release(
    tx: Transaction, present: Desired, past: Desired, reasons: list[Reason]
) -> Aggregate[Release] | None:
    """Give the release to deploy, if it is another than now; add a reason if there is none."""
    if past.release == present.release:
        return None
    if past.release is None:
        reasons.append(Reason("/position", "nothing was deployed then, and what is deployed now cannot be taken back"))
        return None
    release = await tx.read(Release, past.release.release_id)
    if release is None or release.state.deleted:
        reasons.append(Reason("/position", f"release {past.release.release_id} is gone"))
        return None
    return release


async def _changed_secret(
    tx: Transaction, present: Desired, past: Desired, reasons: list[Reason]
) -> tuple[Bundle | None, dict[str, str] | None]:
    """Give the secret as it will be, and what its next version will hold if it gets one; add a reason if it is lost."""
    if _content(past.secret) == _content(present.secret):
        return present.secret, None
    if past.secret is None:
        return None, {}
    secret = await tx.read(Secret, past.secret.secret_id)
    if secret is not None and not secret.state.deleted:
        values = await tx.open_secret(secret.id, past.secret.version)
        if values is not None:
            return msgspec.structs.replace(past.secret, version=secret.state.version + 1), values
    reasons.append(Reason("/position", f"version {past.secret.version} of secret {past.secret.secret_id} was erased"))
    return None, None


def _content(secret: Bundle | None) -> tuple[str | None, str] | None:
    """Give what is equal for equal values: digests are of one secret each."""
    return (secret.secret_id, secret.digest) if secret else None


async def _apply(tx: Transaction, env: Aggregate[Env], plan: _Plan) -> str | None:
    """Append what makes the environment what is planned; give the deploy, if there is one."""
    present, wanted = plan.present, plan.wanted
    routes = [await tx.get(Route, each) for each in await tx.holders(hostnames_in(env.id))] if _routed(plan) else []
    for route in routes:
        if route.state.hostname not in wanted.routes:
            tx.append(route, RouteDeleted())
    deploy_id = None
    if plan.release is not None:
        deploy_id = await start_deploy(tx, env, plan.release, wanted.replicas, kind="rollback")
    elif wanted.replicas != present.replicas:
        await rescale(tx, env, dict(wanted.replicas))
    if wanted.variables != present.variables:
        tx.append(env, EnvConfigSet(variables=dict(wanted.variables)))
    await _restore_routes(tx, env, {route.state.hostname: route for route in routes}, plan)
    if plan.values is not None:
        await _restore_secret(tx, env, plan.values)
    return deploy_id


def _routed(plan: _Plan) -> bool:
    return plan.present.routes != plan.wanted.routes


async def _restore_routes(
    tx: Transaction, env: Aggregate[Env], routes: dict[str, Aggregate[Route]], plan: _Plan
) -> None:
    """Let hostnames lead where they led: a route that has one is changed, for the others there are new routes."""
    for hostname, target in sorted(plan.wanted.routes.items()):
        if plan.present.routes.get(hostname) == target:
            continue
        if hostname in routes:
            updated = RouteUpdated(hostname=hostname, process=target.process, port=target.port)
            tx.append(routes[hostname], updated)
        else:
            created = RouteCreated(hostname=hostname, process=target.process, port=target.port)
            tx.create(Route, await tx.new_id(Route, None), env.ids, created)


async def _restore_secret(tx: Transaction, env: Aggregate[Env], values: dict[str, str]) -> None:
    """Give the bundle a version with these values; empty where there was no bundle then, so that this can be undone."""
    secret = await read_bundle(tx, env.id)
    if secret is not None:
        set_version(tx, secret, values)


def _cannot(reasons: list[Reason]) -> Refusal:
    return Refusal("cannot_restore", "; ".join(each.detail for each in reasons), reasons)


HANDLERS = (
    Handler(
        name="env.rollback",
        command=RollBackEnv,
        handle=roll_back_env,
        result=RollBackResult,
        target="env_id",
        needs_reason=True,
    ),
)
