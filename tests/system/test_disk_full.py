"""F10, the disk is full: writes answer 503, reads go on where they can, and all goes on by itself when there is room.

PostgreSQL's data files, or its WAL, lie on a small disk that is filled under load. What was acknowledged is then judged
by code that shares nothing with Keelson's.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from keelson.local.child import Child, in_thread
from keelson.local.keeper import kept_alive
from keelson.local.server import KeptPostgres
from keelson.log.database import UNAVAILABLE
from keelson.service.standing import read_standing
from support.database import Cluster, Database
from support.disk import Disk, cluster_with_small_disk
from support.judging import judge, read_when_caught_up
from support.load import Load
from support.projecting import pooled
from support.stack import Stack, running_stack
from support.waiting import eventually

WRITERS = 8
READS = ("/v1/orgs?limit=5", "/v1/envs?limit=5", "/v1/activity?limit=5", "/v1/events?limit=5&order=desc")
# Short, so that a command that cannot be done is answered soon.
SETTINGS: dict[str, Any] = {"command_timeout_s": 2, "statement_timeout_s": 2}

Statuses = Counter[int]


@pytest.fixture
def small_data() -> Iterator[tuple[Cluster, Disk]]:
    """Run a server whose data files can be kept from growing."""
    with cluster_with_small_disk("data") as pair:
        yield pair


@pytest.fixture
def small_wal() -> Iterator[tuple[Cluster, Disk]]:
    """Run a server whose WAL can be kept from growing."""
    with cluster_with_small_disk("wal") as pair:
        yield pair


class Traffic:
    """Writers who repeat what is not answered, a reader, and every status that either was given."""

    def __init__(self, stack: Stack) -> None:
        self.load = Load([each.url for each in stack.commands], stack.operator_token, seed=10)
        self.writes: Statuses = Counter()
        self.reads: Statuses = Counter()
        self._stack = stack
        self._headers = {"Authorization": f"Bearer {stack.operator_token}"}
        self._stop = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write and read for as long as the body runs."""
        async with (
            self._session(self.writes) as writing,
            self._session(self.reads) as reading,
            asyncio.TaskGroup() as group,
        ):
            for writer in range(WRITERS):
                group.create_task(self.load.write(writing, writer, self._stop))
            group.create_task(self._read(reading))
            try:
                yield
            finally:
                self._stop.set()

    async def acknowledge(self, more: int) -> None:
        """Wait until so many more commands are acknowledged."""
        goal = len(self.load.acknowledged) + more
        await eventually(lambda: len(self.load.acknowledged) >= goal, 60)

    def _session(self, statuses: Statuses) -> aiohttp.ClientSession:
        tracing = aiohttp.TraceConfig()

        async def note(_session: Any, _context: Any, ended: aiohttp.TraceRequestEndParams) -> None:
            statuses[ended.response.status] += 1

        tracing.on_request_end.append(note)
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15), trace_configs=[tracing])

    async def _read(self, session: aiohttp.ClientSession) -> None:
        while not self._stop.is_set():
            for path in READS:
                async with session.get(self._stack.queries[0].url + path, headers=self._headers) as response:
                    await response.read()
            await asyncio.sleep(0.02)


async def test_f10_while_data_files_cannot_grow_writes_get_503_and_reads_go_on(
    small_data: tuple[Cluster, Disk], tmp_path: Path
) -> None:
    cluster, disk = small_data
    async with (
        cluster.fresh_database() as database,
        running_stack(cluster, database, tmp_path, **SETTINGS) as stack,
        pooled(database.query_dsn) as observer,
    ):
        traffic = Traffic(stack)
        projector = stack.projectors[0]
        async with traffic.running():
            await traffic.acknowledge(200)
            # What it finds to do when it is back will not fit.
            await projector.stop()
            await traffic.acknowledge(400)
            await in_thread(disk.fill)
            full_since = time.monotonic()
            await eventually(lambda: traffic.writes[503] >= WRITERS, 30)
            await projector.start()
            await eventually(lambda: meetings(projector, "projection_waits") >= 6, 30)  # each time it has tried again

            states = {item.name: item.state for item in (await read_standing(observer)).items}
            assert set(states.values()) == {"running"}, "no event is to blame"
            assert set(traffic.reads) == {200}
            tries = meetings(stack.commands[0], "append_interrupted")
            assert 0 < tries < 10 + 2 * (time.monotonic() - full_since), "retries back off"

            await in_thread(disk.free)
            await traffic.acknowledge(200)
        await stack.wait_until_ready()
        await assert_nothing_lost(traffic, database)
    assert set(traffic.reads) == {200}
    assert "PANIC" not in cluster.server.log.read_text()


async def test_f10_while_the_wal_cannot_grow_everything_waits_for_the_server(
    small_wal: tuple[Cluster, Disk], tmp_path: Path
) -> None:
    """The server panics and cannot recover; whoever keeps it starts it again and again."""
    cluster, disk = small_wal
    await in_thread(cluster.server.stop)
    ends: list[str] = []
    async with (
        kept_alive([KeptPostgres(cluster.server)], lambda _, line: ends.append(line), lambda *_: None),
        cluster.fresh_database() as database,
        running_stack(cluster, database, tmp_path, **SETTINGS) as stack,
    ):
        traffic = Traffic(stack)
        async with traffic.running():
            await traffic.acknowledge(200)
            await in_thread(disk.fill)
            await eventually(lambda: panics(cluster), 30)
            await eventually(lambda: ends, 30)
            await eventually(lambda: traffic.writes[503] >= WRITERS and traffic.reads[503] > 0, 30)

            await in_thread(disk.free)
            await traffic.acknowledge(200)
        await stack.wait_until_ready()
        await assert_nothing_lost(traffic, database)
    assert set(traffic.reads) == {200, 503}


def meetings(service: Child, event: str) -> int:
    """Count how often a service has said that something met the full disk."""
    lines = [msgspec.json.decode(line) for line in service.log.read_bytes().splitlines()]
    return sum((line["event"], line.get("error")) == (event, "DiskFullError") for line in lines)


async def panics(cluster: Cluster) -> bool:
    """Whether the server has; meanwhile go on to the next file of the WAL, of which there may be some left."""
    with suppress(*UNAVAILABLE):
        async with pooled(cluster.server.url(), max_size=1) as pool:
            await pool.fetchval("SELECT pg_switch_wal()")
    return "PANIC" in cluster.server.log.read_text()


async def assert_nothing_lost(traffic: Traffic, database: Database) -> None:
    """Judge log and views by independent code, and every status of a write: refusals are part of the load."""
    judge(traffic.load, *await read_when_caught_up(database))
    assert {status for status in traffic.writes if status >= 500} == {503}
