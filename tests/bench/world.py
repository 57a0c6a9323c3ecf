"""What the parts share: the server, how long to measure, the stack of services, and a made-up world to act on."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from bench.wire import NUMBER, request
from keelson.access.tokens import new_token
from keelson.client import Client
from keelson.events.app import AppCreated
from keelson.events.env import EnvConfigSet, EnvCreated
from keelson.events.org import OrgCreated
from keelson.events.project import ProjectCreated
from keelson.local.child import service_environ
from keelson.local.operator import make_operator
from keelson.log.append import Appender
from keelson.log.decision import Decision, Done, NewEvent
from support.database import Cluster, Database
from support.decisions import an_event, decide, made_id
from support.stack import Stack, running_stack
from support.waiting import eventually, free_port

APPEND_TIMEOUT_S = 60.0
FILLING_CALLERS = 64
# So that a payload is of 363 bytes, as in the prototypes that the expectations come from.
VARIABLES = {"LOG_LEVEL": "info", "DATABASE_URL": "postgresql://app@db.internal:5432/app", "NOTE": "x" * 263}
ANCESTORS = {"org_id": made_id("org", 1), "project_id": made_id("project", 1), "app_id": made_id("app", 1)}


@dataclass(frozen=True)
class Bench:
    """One run's means: `seconds` is how long each rate is measured, `events` how many are projected."""

    cluster: Cluster
    folder: Path
    seconds: float
    events: int

    @asynccontextmanager
    async def stack(self, database: Database, **options: Any) -> AsyncIterator[Stack]:
        """Run services as processes; their access logs go to files in the run's folder.

        Whoever asks is an operator whom the log knows, so that what authorisation costs is in the figures.
        """
        token = new_token()
        environ = service_environ(os.environ, database_url=database.command_dsn, operator_token=token)
        await make_operator(environ, token, self.folder / "bootstrap.log")
        async with running_stack(self.cluster, database, self.folder, **options) as stack:
            yield replace(stack, operator_token=token)


@asynccontextmanager
async def noop(server: str = "uvicorn") -> AsyncIterator[int]:
    """Run the no-op in a process of its own, on one of its servers; lend its port."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.noop", str(port), server)
    try:
        async with aiohttp.ClientSession() as session:
            await eventually(lambda: _answers(session, port), 20.0)
        yield port
    finally:
        process.terminate()
        await process.wait()


async def _answers(session: aiohttp.ClientSession, port: int) -> bool:
    async with session.get(f"http://127.0.0.1:{port}/v1/envs/1") as response:
        return response.status == 200


async def create_envs(stack: Stack, count: int) -> list[str]:
    """Create so many environments of one app, over HTTP."""
    async with Client(stack.commands[0].url, stack.queries[0].url, stack.operator_token) as client:
        org_id = (await client.org.create(name="bench")).result.org_id
        project_id = (await client.project.create(org_id=org_id, name="bench")).result.project_id
        app_id = (await client.app.create(project_id=project_id, name="bench")).result.app_id
        envs = [await client.env.create(app_id=app_id, name=f"env-{n}") for n in range(count)]
        await client.env.set_config(env_id=envs[-1].result.env_id, variables={}, wait_s=20)
        return [env.result.env_id for env in envs]


def set_config(stack: Stack, env_id: str, *, key: bool = False) -> str:
    """Write a request that changes an environment's variables each time it is sent."""
    body = {"env_id": env_id, "variables": {**VARIABLES, "LOG_LEVEL": NUMBER}}
    return request("POST", "/v1/commands/env.set_config", stack.operator_token, body, key=key)


def config_sets(env_id: str, first: int, count: int) -> list[NewEvent]:
    """Make events of an environment, one after another from this seq on."""
    return [an_event(env_id, first + n, EnvConfigSet(variables=VARIABLES), **ANCESTORS) for n in range(count)]


async def begin_world(appender: Appender, epoch: str) -> None:
    """Append what every other made-up event hangs on."""
    org_id, project_id = ANCESTORS["org_id"], ANCESTORS["project_id"]
    org = an_event(org_id, 1, OrgCreated(name="bench"))
    project = an_event(project_id, 1, ProjectCreated(name="bench"), org_id=org_id)
    app = an_event(ANCESTORS["app_id"], 1, AppCreated(name="bench"), **ANCESTORS)
    await append_all(appender, [decide(epoch, org, project, app)])


def an_env(epoch: str, events: int) -> Decision:
    """Decide a new environment with so many events in all."""
    env_id = made_id("env")
    created = an_event(env_id, 1, EnvCreated(name=env_id), **ANCESTORS)
    return decide(epoch, created, *config_sets(env_id, 2, events - 1))


async def append_all(appender: Appender, decisions: list[Decision], callers: int = FILLING_CALLERS) -> None:
    """Append decisions by so many callers at once; fail unless each is done."""
    left = iter(decisions)

    async def call() -> None:
        for decision in left:
            outcome = await appender.append(decision, APPEND_TIMEOUT_S)
            if not isinstance(outcome, Done):
                raise TypeError(f"not appended: {outcome}")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(call())
