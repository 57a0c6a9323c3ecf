"""A whole stack of real processes, as many of each service as a test wants, to be killed and started again."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from keelson.local.child import Child, in_thread, service_environ
from keelson.local.postgres import Postgres
from support.database import Cluster, Database
from support.keys import SEALING
from support.waiting import eventually, free_port


@dataclass
class Stack:
    """Processes of the services on free ports, against one database."""

    server: Postgres
    database: Database
    operator_token: str
    commands: list[Child] = field(default_factory=list)
    projectors: list[Child] = field(default_factory=list)
    queries: list[Child] = field(default_factory=list)
    schedulers: list[Child] = field(default_factory=list)

    def __iter__(self) -> Iterator[Child]:
        """Go over all processes of services."""
        return iter([*self.commands, *self.projectors, *self.queries, *self.schedulers])

    async def kill(self, process: Child) -> None:
        """End a service by SIGKILL and return when it is gone."""
        await in_thread(process.kill)

    async def restart(self, process: Child, *, wait: bool = True) -> None:
        """Start a service that was killed again; by default return when it is ready."""
        await process.start()
        if wait:
            await self.wait_until_ready(process)

    async def kill_database(self) -> None:
        """End PostgreSQL by SIGKILL."""
        await in_thread(self.server.kill)

    async def restart_database(self) -> None:
        """Start PostgreSQL again and return when it accepts connections; recovery happens before that."""
        await in_thread(self.server.start)

    async def wait_until_ready(self, *processes: Child, timeout_s: float = 60.0) -> None:
        """Return when these (by default all) say that they can do their work; fail with what they lack and logged."""
        async with asyncio.TaskGroup() as group:
            for process in processes or self:
                group.create_task(_wait_until_ready(process, timeout_s))


async def _wait_until_ready(process: Child, timeout_s: float) -> None:
    async def ready() -> bool:
        unreadiness = await process.read_unreadiness()
        assert unreadiness is None, f"{process.name} is not ready: {unreadiness}\n{_log_end(process)}"
        return True

    await eventually(ready, timeout_s, interval_s=0.1)


def _log_end(process: Child) -> str:
    return "\n".join(process.log.read_text().splitlines()[-15:])


@asynccontextmanager
async def running_stack(
    cluster: Cluster,
    database: Database,
    logs: Path,
    *,
    commands: int = 1,
    projectors: int = 1,
    queries: int = 1,
    schedulers: int = 0,
    environ_of: Callable[[str], Mapping[str, str]] = lambda _name: {},
    **settings: str | int,
) -> AsyncIterator[Stack]:
    """Start so many of each service, ready, and end them afterwards; `settings` become `KEELSON_<SETTING>` of each.

    `environ_of` gives what else is in the environment of the process of a name.
    """
    stack = Stack(cluster.server, database, secrets.token_urlsafe(24))
    shared = {"operator_token": stack.operator_token, **settings}
    secret = secrets.token_urlsafe(24)
    stack.commands = [
        _child("command", n, logs, database_url=database.command_dsn, idempotency_secret=secret, **SEALING, **shared)
        for n in range(commands)
    ]
    stack.projectors = [
        _child("projector", n, logs, database_url=database.projector_dsn, **shared) for n in range(projectors)
    ]
    stack.queries = [_child("query", n, logs, database_url=database.query_dsn, **shared) for n in range(queries)]
    stack.schedulers = [_scheduler(stack, n, logs, **settings) for n in range(schedulers)]
    try:
        for process in stack:
            process.environ = {**process.environ, **environ_of(process.name)}
            await process.start()
        await stack.wait_until_ready()
        yield stack
    finally:
        for process in stack:
            await process.stop(grace_s=5.0)


def _scheduler(stack: Stack, number: int, logs: Path, **settings: str | int) -> Child:
    urls = {"command_url": stack.commands[0].url, "query_url": stack.queries[0].url}
    return _child("scheduler", number, logs, **urls, token=stack.operator_token, **settings)


def _child(service: str, number: int, logs: Path, **settings: str | int) -> Child:
    environ = service_environ(os.environ, port=free_port(), **settings)
    return Child(f"{service}-{number}", f"keelson.{service}", environ, logs / f"{service}-{number}.log")
