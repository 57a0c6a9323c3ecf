"""The query service as a process: streams beyond the usual limit of open files; its end within the grace (F32, F33)."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic

import aiohttp

from keelson.events.app import AppRenamed
from keelson.events.env import EnvConfigSet
from support.database import Database
from support.query_world import APP, ENV, NODE, TOKEN, World, open_world
from support.sse import Ended, Stream, streamed
from support.stalling import asking
from support.waiting import eventually, free_port

GRACE_S = 10.0
# More than the kernel takes for a client.
LARGE_BYTES = 7_000_000
CREDENTIAL = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
_WITH_LIMIT = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft_limit}, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
runpy.run_module("keelson.query", run_name="__main__", alter_sys=True)
"""


@asynccontextmanager
async def running(database: Database, *, soft_limit: int | None = None) -> AsyncIterator[tuple[Process, str]]:
    """Run the service as a process; give it and its URL once it is ready. It is ended by its process, if need be.

    `soft_limit` is how many files it may open, unless it says otherwise.
    """
    program = ("-m", "keelson.query") if soft_limit is None else ("-c", _WITH_LIMIT.format(soft_limit=soft_limit))
    port = free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "KEELSON_DATABASE_URL": database.query_dsn,
        "KEELSON_PORT": str(port),
        "KEELSON_OPERATOR_TOKEN": TOKEN,
        "KEELSON_SHUTDOWN_GRACE_S": str(GRACE_S),
    }
    process = await asyncio.create_subprocess_exec(sys.executable, *program, env=environ, stdout=PIPE, stderr=PIPE)
    reading = asyncio.create_task(process.communicate())
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session:

            async def is_ready() -> bool:
                async with session.get(f"{url}/readyz") as answer:
                    return answer.status == 200

            await eventually(is_ready, 30)
        yield process, url
    finally:
        if process.returncode is None:
            process.kill()
        await reading


async def cursor_at_end(stream: Stream, cursor: str | None = None) -> str | None:
    """Read a stream to its clean end; give the last id that it had."""
    try:
        while True:
            cursor = (await stream.frame()).id or cursor
    except Ended:
        return cursor


async def append_for_a_while(world: World, commands: int) -> None:
    for number in range(commands):
        await world.append((APP, AppRenamed(name=f"name-{number}")))


async def test_f33_sigterm_ends_streams_with_their_cursor_and_the_process_within_the_grace(database: Database) -> None:
    """Fifty streams, some quiet, some told something at that very moment; each cursor is good on another replica."""
    async with open_world(database) as world, AsyncExitStack() as stack:
        await world.append_base()
        await world.project()
        process, url = await stack.enter_async_context(running(database))
        quiet = [await stack.enter_async_context(streamed(url, TOKEN, node_id=NODE)) for _ in range(25)]
        busy = [await stack.enter_async_context(streamed(url, TOKEN)) for _ in range(25)]
        for stream in quiet:
            await stream.next("bookmark")
        for stream in busy:
            await stream.events_to(world.head)
        writing = asyncio.create_task(append_for_a_while(world, 50))
        began = monotonic()
        process.terminate()
        cursors = await asyncio.gather(*(cursor_at_end(each) for each in (*quiet, *busy)))
        assert await asyncio.wait_for(process.wait(), GRACE_S) == 0
        took_s = monotonic() - began
        print(f"ended with 50 streams after {took_s:.2f} s")  # noqa: T201
        assert took_s < GRACE_S
        await writing
        _, other = await stack.enter_async_context(running(database))
        for cursor in {each for each in cursors if each is not None}:
            async with streamed(other, TOKEN, headers={"Last-Event-ID": cursor}) as resumed:
                position = int(cursor.partition("-")[2])
                told = [each.position for each in await resumed.events_to(world.head)]
                assert told == list(range(position + 1, world.head + 1))


async def test_f33_sigterm_ends_a_process_whose_clients_take_nothing(database: Database) -> None:
    """One is told something large while its stream sleeps; one has been answered, and has not read all of it."""
    async with open_world(database) as world, AsyncExitStack() as stack:
        await world.append_base()
        await world.project()
        process, url = await stack.enter_async_context(running(database))
        port = int(url.rpartition(":")[2])
        listening = f"GET /v1/events?after={world.head} HTTP/1.1\r\nAccept: text/event-stream"
        client = await stack.enter_async_context(asking(port, f"{listening}\r\n{CREDENTIAL}\r\n"))
        async with asyncio.timeout(GRACE_S):
            told = b""
            while b"bookmark" not in told:
                told += await asyncio.get_running_loop().sock_recv(client, 1)
        await world.append((ENV, EnvConfigSet(variables={"A": "x" * LARGE_BYTES})))
        reading = f"GET /v1/events?after={world.head - 1} HTTP/1.1"
        answered = await stack.enter_async_context(asking(port, f"{reading}\r\n{CREDENTIAL}\r\n"))
        await asyncio.get_running_loop().sock_recv(answered, 1)
        began = monotonic()
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 2 * GRACE_S) == 0
        assert monotonic() - began < GRACE_S - 2


async def test_f32_there_are_as_many_streams_as_are_promised_under_the_usual_soft_limit(database: Database) -> None:
    """The limit in small: 300 streams where 256 files may be open. All are told, and a connection more is answered."""
    async with open_world(database) as world, AsyncExitStack() as stack:
        await world.append_base()
        await world.project()
        _, url = await stack.enter_async_context(running(database, soft_limit=256))
        streams = [await stack.enter_async_context(streamed(url, TOKEN)) for _ in range(300)]
        for stream in streams:
            await stream.events_to(world.head)
        async with aiohttp.ClientSession() as session, session.get(f"{url}/readyz") as answer:
            assert answer.status == 200
