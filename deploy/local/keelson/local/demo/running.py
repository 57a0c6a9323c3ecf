"""Waiting until what is declared runs: the story declares, and what brings it about is seen by what the views say."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from keelson.client import Client
from keelson.client.commands.env import ScaleEnv
from keelson.client.reads.envs import EnvRow
from keelson.client.reads.instances import InstanceRow
from keelson.local.demo.telling import Actor, Telling
from keelson.local.demo.terminal import say
from keelson.local.errors import LocalError

_WITHIN_S = 60.0
_POLL_INTERVAL_S = 0.1


async def see_deployed(telling: Telling, owner: Actor, deploy_id: str, where: str, *, since: float) -> None:
    """Wait for a deploy's success, and tell it. Raises LocalError if it fails, or takes too long."""
    while True:
        deploy = await owner.client.deploys.get(deploy_id, min_position=telling.position)
        if deploy.status == "succeeded":
            break
        if deploy.status not in ("queued", "rolling") or time.monotonic() - since > _WITHIN_S:
            raise LocalError(f"the deploy into {where} is {deploy.status}: {deploy.message}")
        await asyncio.sleep(_POLL_INTERVAL_S)
    await see_running(telling, owner, deploy.env_id, where, since=since)


async def see_running(telling: Telling, owner: Actor, env_id: str, where: str, *, since: float) -> None:
    """Wait until an environment runs what it should and nothing else; tell how long that took. Raises LocalError."""
    while why := await _what_lacks(owner.client, env_id, telling.position):
        if time.monotonic() - since > _WITHIN_S:
            raise LocalError(f"{where} does not come to run what it should within {_WITHIN_S:g} s: {why}")
        await asyncio.sleep(_POLL_INTERVAL_S)
    status = await owner.client.envs.status(env_id)
    ready = ", ".join(f"{each.process} {each.ready} of {each.desired}" for each in status.processes)
    took_s = time.monotonic() - since
    owner.tell("GET envs/{id}/status", where, f"{status.status} after {took_s:.1f} s: {ready}")


async def live_instances(client: Client, env_id: str, position: int | None = None) -> list[InstanceRow]:
    """Give the instances of an environment that have not stopped."""
    rows = client.instances.list(env_id=env_id, min_position=position)
    return [row async for row in rows if row.status != "stopped"]


@asynccontextmanager
async def lights_out(telling: Telling) -> AsyncIterator[list[str]]:
    """Lend a list for ids of environments, of which none runs anything when the block has ended, however it ended."""
    env_ids: list[str] = []
    try:
        yield env_ids
    finally:
        await _put_out(telling["operator"].client, env_ids)


async def _put_out(operator: Client, env_ids: list[str]) -> None:
    """Scale all to nothing, and wait until nothing runs. Raises LocalError if something does."""
    # Of a story that was broken off, not even its teller knows what came of the last command.
    position = (await operator.projections.list()).head
    for env_id in env_ids:
        env = await operator.envs.get(env_id, min_position=position)
        if env.replicas:
            nothing = ScaleEnv(env_id=env_id, replicas=dict.fromkeys(env.replicas, 0))
            await operator.send(nothing, reason="the story is told, and its nodes are for others")
    deadline = time.monotonic() + _WITHIN_S
    for env_id in env_ids:
        while rows := await live_instances(operator, env_id, position):
            if time.monotonic() > deadline:
                raise LocalError(f"{len(rows)} instances do not stop within {_WITHIN_S:g} s")
            await asyncio.sleep(_POLL_INTERVAL_S)
    say("", "What the story declared is scaled to nothing again: its nodes are free.")


async def _what_lacks(client: Client, env_id: str, position: int) -> str | None:
    """Say what an environment does not run as it should as of a position or later; None if it does."""
    env = await client.envs.get(env_id, min_position=position)
    versions = await _secret_versions(client, env_id, position)
    rows = await live_instances(client, env_id, position)
    late = [row for row in rows if not _is_as_declared(row, env, versions)]
    if late:
        return f"{len(late)} instances are others than were declared, or not ready"
    if len(rows) != sum(env.replicas.values()):
        return f"{len(rows)} instances are ready"
    return None


async def _secret_versions(client: Client, env_id: str, position: int) -> dict[str, int]:
    """Give the version of the secret for each process that needs it, if there is one."""
    secrets = [row async for row in client.secrets.list(env_id=env_id, min_position=position)]
    processes = await client.envs.processes(env_id, min_position=position)
    return {each.process: row.version for row in secrets for each in processes.items if each.needs_secrets}


def _is_as_declared(row: InstanceRow, env: EnvRow, secret_versions: Mapping[str, int]) -> bool:
    return (
        row.status == "ready"
        and row.desired_state == "running"
        and row.release_id == env.release_id
        and row.spec.variables == env.variables
        and row.secret_version == secret_versions.get(row.process)
    )
