"""F11, clocks jump: order comes from positions alone, every wait ends in its time, and no answer is a defect.

The server and each process of ours have a wall clock of their own, and each of them jumps, under load: by days, to and
fro, and apart from one another. PostgreSQL counts its own time-outs by the wall clock, so that a statement may be
ended early when that jumps: 503, and done when it is repeated.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from keelson.local.child import Child
from keelson.log.database import Connection
from keelson.service.standing import read_standing
from support.answers import Answers
from support.clocks import Clock, cluster_with_clock, needs_fake_clocks, new_clock
from support.database import Cluster, Database
from support.judging import judge, read_when_caught_up, require_claims
from support.load import Load, Request
from support.log import connected
from support.stack import Stack, running_stack
from support.waiting import eventually

pytestmark = needs_fake_clocks

WRITERS = 4
DEADLINE_S = 1.0
# For a slow machine.
LEEWAY_S = 8.0
# The server's, one after another, from real time; what each process makes of it is in `jump`.
FAR = timedelta(days=399)
JUMPS = [timedelta(days=days) for days in (400, -400, 1, -30, 0)]


@pytest.fixture(scope="module")
def clocked() -> Iterator[tuple[Cluster, Clock]]:
    """Start a server with a clock of its own."""
    with cluster_with_clock() as pair:
        yield pair


@dataclass
class Times:
    """A stack among clocks that jump, and who asks it meanwhile."""

    stack: Stack
    database: Database
    server: Clock
    clocks: dict[str, Clock]
    answers: Answers
    load: Load
    session: aiohttp.ClientSession

    def jump(self, offset: timedelta) -> None:
        """Let every clock jump: those of processes elsewhere than the server's, and apart from one another."""
        self.server.jump(offset)
        for factor, clock in zip((-2, -1, 1, 2, 3), self.clocks.values(), strict=True):
            clock.jump(offset * factor)

    @asynccontextmanager
    async def reading(self, path: str, wait_s: int) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask the query service, which may wait so long before it answers."""
        headers = {"Authorization": f"Bearer {self.stack.operator_token}", "Prefer": f"wait={wait_s}"}
        async with self.session.get(self.stack.queries[0].url + path, headers=headers) as response:
            yield response

    async def acknowledge(self, more: int) -> None:
        """Wait until so many more commands are acknowledged."""
        goal = len(self.load.acknowledged) + more
        await eventually(lambda: len(self.load.acknowledged) >= goal, 30)


@asynccontextmanager
async def open_times(clocked: tuple[Cluster, Clock], folder: Path) -> AsyncIterator[Times]:
    """Start the services, two of each that has leases or caches, each with a clock; writers write meanwhile."""
    cluster, server = clocked
    names = ("command-0", "command-1", "projector-0", "projector-1", "query-0")
    clocks = {name: new_clock(folder, name) for name in names}
    async with (
        cluster.fresh_database() as database,
        running_stack(
            cluster,
            database,
            folder,
            commands=2,
            projectors=2,
            environ_of=lambda name: clocks[name].environ,
            receive_deadline_s=str(DEADLINE_S),
        ) as stack,
    ):
        ports = {urlsplit(process.url).port or 0: process.name.partition("-")[0] for process in stack}
        answers = Answers(ports)
        load = Load([each.url for each in stack.commands], stack.operator_token, seed=11)
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=20), trace_configs=[answers.trace]
        ) as session:
            yield Times(stack, database, server, clocks, answers, load, session)


@asynccontextmanager
async def writing(times: Times) -> AsyncIterator[None]:
    """Write for as long as the body runs."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for writer in range(WRITERS):
            group.create_task(times.load.write(times.session, writer, stop))
        try:
            yield
        finally:
            stop.set()


@pytest.mark.timeout(240)
async def test_f11_whatever_clocks_say_nothing_is_lost_late_or_out_of_order(
    clocked: tuple[Cluster, Clock], tmp_path: Path
) -> None:
    async with open_times(clocked, tmp_path) as times, connected(times.database.admin_dsn) as admin:
        async with writing(times):
            await times.acknowledge(50)
            for number, offset in enumerate(JUMPS):
                async with asyncio.TaskGroup() as waits:
                    # Those that a jump meets, and those that begin after it.
                    waits.create_task(assert_silence_is_cut(times.stack.commands[0]))
                    waits.create_task(assert_wait_takes_its_time(times))
                    times.jump(offset)
                    await assert_server_says(admin, offset)
                    waits.create_task(assert_silence_is_cut(times.stack.queries[0]))
                    waits.create_task(assert_wait_takes_its_time(times))
                    await replace_holder(times, admin)
                    await times.acknowledge(30)
                    await assert_own_write_is_seen(times, f"clock-{number}")
                await times.stack.wait_until_ready(timeout_s=20)
                assert not times.answers.faults
        events, views = await read_when_caught_up(times.database)
        await require_claims(times.database, events)
    judge(times.load, events, views)
    assert_all_jumped(times.stack)
    recorded = [event["recorded_at"] for event in events]
    assert recorded == sorted(recorded)
    assert recorded[-1] - recorded[0] > FAR


async def assert_server_says(admin: Connection, offset: timedelta) -> None:
    """Fail unless the server believes its clock: a test whose clocks are right proves nothing."""
    said = await admin.fetchval("SELECT clock_timestamp()")
    assert abs(said - datetime.now(UTC) - offset) < timedelta(minutes=1)


def assert_all_jumped(stack: Stack) -> None:
    """Fail unless every process has logged something at times that are far from one another."""
    for process in stack:
        logged = [datetime.fromisoformat(json.loads(line)["time"]) for line in process.log.read_bytes().splitlines()]
        assert max(logged) - min(logged) > FAR, process.name


async def replace_holder(times: Times, admin: Connection) -> None:
    """Kill the projector that runs things: what it held was given by a clock that is no more."""

    async def read_holding() -> list[Child]:
        holders = {str(item.holder) for item in (await read_standing(admin)).items}
        holding = [each for each in times.stack.projectors if any(f":{each.pid}:" in holder for holder in holders)]
        assert holding, f"nobody who lives holds anything: {holders}"
        return holding

    for projector in await eventually(read_holding):
        await times.stack.kill(projector)
        await times.stack.restart(projector, wait=False)


async def assert_own_write_is_seen(times: Times, name: str) -> None:
    """Write, and read by the position of that."""
    request = Request(name, "/v1/commands/org.create", json.dumps({"name": name}).encode())
    await times.load.settle(times.session, request)
    created = times.load.answered[name].content
    async with times.reading(
        f"/v1/orgs/{created['result']['org_id']}?min_position={created['position']}", 10
    ) as response:
        assert (response.status, (await response.json())["name"]) == (200, name)


async def assert_silence_is_cut(process: Child) -> None:
    """Say nothing, and be cut in the deadline's time."""
    where = urlsplit(process.url)
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        async with asyncio.timeout(DEADLINE_S + LEEWAY_S):
            assert await reader.read() == b""
    finally:
        writer.transport.abort()
    assert time.monotonic() - began > DEADLINE_S / 2


async def assert_wait_takes_its_time(times: Times) -> None:
    """Wait for what does not come: neither shorter nor much longer than was asked for."""
    began = time.monotonic()
    async with times.reading("/v1/orgs?min_position=1000000", 2) as response:
        assert (response.status, (await response.json())["code"]) == (504, "not_yet")
    assert 2 * 0.9 < time.monotonic() - began < 2 + LEEWAY_S
