"""Faults of all kinds, each made on a stack under load until clients feel it, and then mended.

Every fault lasts until a service has answered 503 because of it, where it must: one that nobody feels proves nothing.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
import asyncpg

from keelson.local.child import Child, in_thread
from keelson.log.database import Connection, connect
from support.answers import Answers
from support.database import Database
from support.load import Load, Request
from support.proxy import Proxy
from support.stack import Stack
from support.waiting import eventually

SERVICES = ("command", "query")
CROWD = 20
HOSTILE_STATUSES = frozenset({400, 401, 408, 413, 431})

_APPENDING = """
    SELECT pid FROM pg_stat_activity
    WHERE application_name = 'keelson-command-append' AND datname = current_database() AND wait_event_type = 'Lock'
"""


@dataclass
class Scene:
    """A stack behind a proxy, who asks it, and what was answered."""

    stack: Stack
    database: Database
    proxy: Proxy
    session: aiohttp.ClientSession
    load: Load
    answers: Answers

    @property
    def headers(self) -> dict[str, str]:
        """What every request needs."""
        return {"Authorization": f"Bearer {self.stack.operator_token}"}

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[Connection]:
        """Lend a superuser's connection past the proxy."""
        connection = await connect(self.database.admin_dsn, application_name="test-admin")
        try:
            yield connection
        finally:
            connection.terminate()

    @asynccontextmanager
    async def locked(self, lock: str) -> AsyncIterator[Connection]:
        """Hold a lock; it is gone afterwards, whatever became of the connection."""
        async with self.admin() as connection:
            await connection.execute(f"BEGIN; {lock}")
            yield connection
            with suppress(asyncpg.InterfaceError, asyncpg.PostgresError, OSError):
                await connection.execute("ROLLBACK")

    async def felt(self, *services: str) -> None:
        """Wait until each of the services has answered 503 once more."""
        before = {service: self.answers.of(service, "unavailable") for service in services or SERVICES}
        await eventually(
            lambda: all(self.answers.of(service, "unavailable") > count for service, count in before.items()), 20
        )

    async def served(self, requests: int = 10) -> None:
        """Wait until so many more requests were answered by 200."""
        goal = self.answers.good + requests
        await eventually(lambda: self.answers.good >= goal, 20)

    async def healed(self) -> None:
        """Wait until every service says that it can work, and its clients are served."""
        await self.stack.wait_until_ready(timeout_s=20)
        await self.served()


Fault = Callable[[Scene], Awaitable[None]]


async def delays(scene: Scene) -> None:
    """Let every message to and from the database take its time."""
    scene.proxy.to_server.delay_s = scene.proxy.to_client.delay_s = 0.03
    await scene.served(20)
    scene.proxy.to_server.delay_s = scene.proxy.to_client.delay_s = 0.0


async def answers_lost(scene: Scene) -> None:
    """Drop what the server says, silently."""
    scene.proxy.to_client.swallow()
    await scene.felt()
    scene.proxy.cut()
    scene.proxy.to_client.release()


async def statements_lost(scene: Scene) -> None:
    """Drop what the server is told, silently."""
    scene.proxy.to_server.swallow()
    await scene.felt()
    scene.proxy.cut()
    scene.proxy.to_server.release()


async def black_hole(scene: Scene) -> None:
    """Drop everything, silently; what was open then stays so for whoever does not look."""
    scene.proxy.to_server.swallow()
    scene.proxy.to_client.swallow()
    await scene.felt()
    scene.proxy.cut()
    scene.proxy.to_server.release()
    scene.proxy.to_client.release()


async def cuts(scene: Scene) -> None:
    """Reset all connections, again and again, and then refuse new ones for a while."""
    for _ in range(5):
        scene.proxy.cut()
        await scene.served(3)
    scene.proxy.refuses = True
    scene.proxy.cut()
    await scene.felt()
    scene.proxy.refuses = False


async def frozen_writer(scene: Scene) -> None:
    """Freeze the server's process of an append that holds the head; another one, under the same key, comes after it."""
    async with scene.locked("LOCK TABLE log.events IN SHARE MODE"), scene.admin() as admin:
        pid = await eventually(lambda: admin.fetchval(_APPENDING))
        os.kill(pid, signal.SIGSTOP)
    try:
        await scene.felt("command")
    finally:
        os.kill(pid, signal.SIGCONT)


async def frozen_holder(scene: Scene) -> None:
    """Freeze somebody else who holds the head."""
    async with scene.locked("SELECT FROM log.head FOR UPDATE") as holder:
        os.kill(holder.get_server_pid(), signal.SIGSTOP)
        try:
            await scene.felt("command")
        finally:
            os.kill(holder.get_server_pid(), signal.SIGCONT)


async def frozen_postmaster(scene: Scene) -> None:
    """Freeze whoever takes connections, while all want new ones."""
    postmaster = scene.stack.server.identity()
    assert postmaster is not None
    postmaster.signal(signal.SIGSTOP)
    try:
        scene.proxy.cut()
        await scene.felt()
    finally:
        postmaster.signal(signal.SIGCONT)


async def immediate_stop(scene: Scene) -> None:
    """Stop the server as `pg_ctl stop -m immediate` does, and start it again."""
    postmaster = scene.stack.server.identity()
    assert postmaster is not None
    postmaster.signal(signal.SIGQUIT)
    assert await in_thread(lambda: postmaster.wait_until_gone(10.0))
    await scene.felt()
    await scene.stack.restart_database()


async def slow_queries(scene: Scene) -> None:
    """Use the pools up by statements that wait for a lock, beyond their time."""
    name = f"slow-{scene.answers.good}"
    requests = _create_orgs(name)
    locks = "LOCK TABLE log.idempotency_keys, ops.checkpoints IN ACCESS EXCLUSIVE MODE"
    async with asyncio.TaskGroup() as crowd, scene.locked(locks):
        for request in requests:
            crowd.create_task(scene.load.settle(scene.session, request))
            crowd.create_task(_read(scene, "/v1/orgs"))
        await scene.felt()


def _create_orgs(name: str) -> list[Request]:
    return [
        Request(f"{name}-{number}", "/v1/commands/org.create", b'{"name": "%s-%d"}' % (name.encode(), number))
        for number in range(CROWD)
    ]


async def _read(scene: Scene, path: str) -> None:
    async with scene.session.get(scene.stack.queries[0].url + path, headers=scene.headers) as response:
        await response.read()


async def clients_leave(scene: Scene) -> None:
    """Leave in the middle of commands, some within the body; then ask what became of those that were sent."""
    requests = _create_orgs(f"left-{scene.answers.good}")
    async with scene.locked("SELECT FROM log.head FOR UPDATE"):
        for number, request in enumerate(requests):
            await _send_and_leave(scene, request, whole=number % 4 > 0)
    for request in requests:
        await scene.load.settle(scene.session, request)


async def _send_and_leave(scene: Scene, request: Request, *, whole: bool) -> None:
    head = [
        f"POST {request.path} HTTP/1.1",
        "Host: test",
        f"Authorization: Bearer {scene.stack.operator_token}",
        "Content-Type: application/json",
        f"Idempotency-Key: {request.key}",
        f"X-Request-Id: {request.key}",
        f"Content-Length: {len(request.body)}",
    ]
    data = "\r\n".join([*head, "", ""]).encode() + request.body
    _, writer = await _connect(scene.stack.commands[0])
    writer.write(data if whole else data[:-5])
    await writer.drain()
    writer.transport.abort()


async def hostile_clients(scene: Scene) -> None:
    """Be slow, huge and silent, on many connections of every service at once."""
    shapes = (
        b"",
        b"GET /v1/orgs HT",
        b"GET /v1/orgs HTTP/1.1\r\nHost: test\r\nX-Slow: ",
        b"GET /healthz HTTP/1.1\r\nHost: test\r\nX-Large: " + b"x" * 100_000,
        b"POST /v1/commands/org.create HTTP/1.1\r\nHost: test\r\nContent-Length: 52428800\r\n\r\n" + b"x" * 500_000,
        b"POST /v1/commands HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    async with asyncio.TaskGroup() as crowd:
        for process in scene.stack:
            for shape in shapes * 5:
                crowd.create_task(_be_hostile(scene, process, shape))
        crowd.create_task(_be_deep(scene))


async def _be_hostile(scene: Scene, process: Child, shape: bytes) -> None:
    """Send something, and hear what the service says before it hangs up."""
    reader, writer = await _connect(process)
    answer = b""
    try:
        async with asyncio.timeout(15):
            with suppress(ConnectionError):
                writer.write(shape)
                await writer.drain()
                answer = await reader.read()
    finally:
        writer.transport.abort()
    status = int(answer.split()[1]) if answer else None
    if shape and answer and status not in HOSTILE_STATUSES:
        scene.answers.faults.append(f"{process.name} answered {shape[:60]!r} by {answer[:200]!r}")


async def _be_deep(scene: Scene) -> None:
    headers = {**scene.headers, "Content-Type": "application/json"}
    url = f"{scene.stack.commands[0].url}/v1/commands/org.create"
    async with aiohttp.ClientSession() as session, session.post(url, data=b"[" * 100_000, headers=headers) as response:
        if response.status != 400:
            scene.answers.faults.append(f"deep JSON: {response.status} {await response.text()}")


async def _connect(process: Child) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    where = urlsplit(process.url)
    return await asyncio.open_connection(where.hostname, where.port)


# Those that reset every connection come first: what the others leave open must not be closed for them.
FAULTS: Sequence[Fault] = (
    answers_lost,
    statements_lost,
    black_hole,
    cuts,
    frozen_postmaster,
    immediate_stop,
    frozen_writer,
    frozen_holder,
    slow_queries,
    clients_leave,
    hostile_clients,
    delays,
)
