"""Streams: many subscribers of one query replica while events come at a steady rate, beside a queue for each client."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import aiohttp
import msgspec

from bench.figures import Figure
from bench.listeners import Committed, Heard, Spec, allow_files, listening
from bench.over_http import port_of
from bench.world import ANCESTORS, VARIABLES, Bench, append_all, begin_world
from keelson.events.env import EnvConfigSet, EnvCreated
from keelson.local.child import Child
from keelson.log.append import Appender
from keelson.log.decision import Decision, Done
from support.database import Database
from support.decisions import an_event, decide, made_id
from support.log import appending, connected
from support.stack import Stack
from support.waiting import eventually, free_port

PART = "streams"
SUBSCRIBERS = (500, 2000)
RATE = 100
# How many times as long as other rates: what is late must have had the time to be.
TIMES = 5
# What has not come by then, after the last event, has not been delivered.
GRACE_S = 1.0
LEAST_DELIVERED = 99.0
MOST_P99_MS = 250.0
MOST_IDLE_KIB = 60.0
_APPEND_TIMEOUT_S = 30.0

_READ_TIMES = "SELECT position, extract(epoch FROM recorded_at)::float8 AS at FROM log.events WHERE position > $1"


class Load(NamedTuple):
    """What a replica was put through: what was heard of it, of how much, and what that cost it."""

    heard: Heard
    expected: int
    events: int
    cpu_s: float

    def figures(self, what: str, *, is_ours: bool) -> list[Figure]:
        """Give the share that was delivered, with latencies, and the cost of an event."""
        share = self.heard.share(self.expected)
        delivered = Figure(part=PART, what=f"{what}, delivered", value=share, unit="%")
        late = self.heard.figure(PART, f"{what}, p99 from commit to receipt", most=MOST_P99_MS if is_ours else None)
        cost = self.cpu_s * 1e6 / self.events
        return [
            msgspec.structs.replace(delivered, least=LEAST_DELIVERED if is_ours else None),
            late,
            Figure(part=PART, what=f"{what}, CPU of an event", value=cost, unit="us"),
        ]


async def measure(bench: Bench) -> list[Figure]:
    """Measure a queue for each client, then ours: subscribers of everything, and of one organisation each."""
    allow_files(SUBSCRIBERS[-1])
    seconds = bench.seconds * TIMES
    figures: list[Figure] = []
    for number in SUBSCRIBERS:
        figures += (await _queued(seconds, number)).figures(f"a queue each, {number:,} clients", is_ours=False)
    async with _serving(bench) as replica:
        for number in SUBSCRIBERS:
            figures += await _measure_all_alike(replica, number, seconds)
        for number in SUBSCRIBERS:
            figures += await _measure_each_its_own(replica, number, seconds)
    return figures


async def _measure_all_alike(replica: "_Replica", number: int, seconds: float) -> list[Figure]:
    envs = await replica.create_envs([ANCESTORS["org_id"]] * 64)
    load, idle_kib = await replica.put_through(number, ["/v1/events?after={head}"], envs, seconds)
    is_ours = number == SUBSCRIBERS[-1]
    what = f"{number:,} subscribers, memory of an idle one"
    idle = Figure(part=PART, what=what, value=idle_kib, unit="KiB", most=MOST_IDLE_KIB if is_ours else None)
    return [*load.figures(f"{number:,} subscribers", is_ours=is_ours), idle]


async def _measure_each_its_own(replica: "_Replica", number: int, seconds: float) -> list[Figure]:
    orgs = [made_id("org") for _ in range(number)]
    envs = await replica.create_envs(orgs)
    paths = [f"/v1/events?after={{head}}&org_id={org}" for org in orgs]
    load, _ = await replica.put_through(number, paths, envs, seconds)
    alone = Load(load.heard, load.events, load.events, load.cpu_s)
    return alone.figures(f"{number:,} subscribers, an organisation each", is_ours=False)


class _Env:
    """An environment that changes."""

    def __init__(self, org_id: str) -> None:
        self.env_id = made_id("env")
        self._ids = {**ANCESTORS, "org_id": org_id}
        self._seq = 0

    def decide(self, epoch: str) -> Decision:
        """Decide that it begins to be, or that its variables change."""
        self._seq += 1
        event = EnvCreated(name=self.env_id) if self._seq == 1 else EnvConfigSet(variables=VARIABLES)
        return decide(epoch, an_event(self.env_id, self._seq, event, **self._ids))


class _Replica:
    """One query replica under test, and the log that it tells of."""

    def __init__(self, database: Database, stack: Stack, appender: Appender, epoch: str) -> None:
        self._database = database
        self._stack = stack
        self._appender = appender
        self._epoch = epoch

    async def create_envs(self, orgs: Sequence[str]) -> list[_Env]:
        """Create an environment in each of these."""
        envs = [_Env(org_id) for org_id in orgs]
        await append_all(self._appender, [env.decide(self._epoch) for env in envs])
        return envs

    async def put_through(
        self, number: int, paths: Sequence[str], envs: Sequence[_Env], seconds: float
    ) -> tuple[Load, float]:
        """Let everybody listen, then change environments in turn; give what came of it, and the KiB of an idle one."""
        query = self._stack.queries[0]
        head = await read_head(self._database)
        here = [path.format(head=head) for path in paths]
        spec = Spec(port=port_of(query), connections=number, paths=here, token=self._stack.operator_token)
        before = resident_kib(query)
        async with listening(spec) as audience:
            idle_kib = (resident_kib(query) - before) / number
            began_s = cpu_s(query.pid)
            decisions = [envs[turn % len(envs)].decide(self._epoch) for turn in range(int(RATE * seconds))]
            await append_steadily(self._appender, decisions, RATE)
            await asyncio.sleep(GRACE_S)
            spent_s = cpu_s(query.pid) - began_s
            heard = await audience.tell(await read_times(self._database, head))
        _require_sound(heard)
        return Load(heard, len(decisions) * number, len(decisions), spent_s), idle_kib


@asynccontextmanager
async def _serving(bench: Bench) -> AsyncIterator[_Replica]:
    options = {"commands": 0, "feed_max_streams": 10_000}
    async with (
        bench.cluster.fresh_database() as database,
        bench.stack(database, **options) as stack,
        appending(database.command_dsn) as (appender, epoch),
    ):
        await begin_world(appender, epoch)
        yield _Replica(database, stack, appender, epoch)


def _require_sound(heard: Heard) -> None:
    if heard.disordered or heard.lost:
        raise RuntimeError(f"{heard.lost} streams ended, {heard.disordered} were told what they knew")


async def append_steadily(appender: Appender, decisions: Sequence[Decision], rate: int) -> None:
    """Append so many a second, whether or not those before are done."""
    started = perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number, decision in enumerate(decisions):
            await asyncio.sleep(max(0.0, started + number / rate - perf_counter()))
            tasks.create_task(_append(appender, decision))


async def _append(appender: Appender, decision: Decision) -> None:
    outcome = await appender.append(decision, _APPEND_TIMEOUT_S)
    if not isinstance(outcome, Done):
        raise TypeError(f"not appended: {outcome}")


async def read_head(database: Database) -> int:
    """Give the head's position."""
    async with connected(database.owner_dsn) as connection:
        return int(await connection.fetchval("SELECT position FROM log.head"))


async def read_times(database: Database, after: int) -> Committed:
    """Give when the events after a position were recorded: just before they were committed."""
    async with connected(database.owner_dsn) as connection:
        return Committed({row["position"]: row["at"] for row in await connection.fetch(_READ_TIMES, after)})


def resident_kib(child: Child) -> float:
    """Give what memory a process has."""
    lines = Path(f"/proc/{child.pid}/status").read_text(encoding="ascii").splitlines()
    [kib] = [line.split()[1] for line in lines if line.startswith("VmRSS")]
    return float(kib)


def cpu_s(pid: int | None) -> float:
    """Give what CPU time a process has used, to a hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _queued(seconds: float, number: int) -> Load:
    """Put the plain way to stream through the same; what it has not even made in time, it has not delivered."""
    port = free_port()
    command = (sys.executable, "-m", "bench.queued", str(port))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        await eventually(lambda: _begin_queued(port, 0.0), 20.0)
        async with listening(Spec(port, number, ["/v1/events"], "nobody")) as audience:
            began_s = cpu_s(process.pid)
            await _begin_queued(port, seconds)
            await asyncio.sleep(seconds + GRACE_S)
            spent_s = cpu_s(process.pid) - began_s
            process.kill()
            made = (await process.communicate())[0].decode()
            heard = await audience.tell(
                Committed({int(at): float(time) for at, time in map(str.split, made.splitlines())})
            )
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    events = int(RATE * seconds)
    return Load(heard, events * number, events, spent_s)


async def _begin_queued(port: int, seconds: float) -> bool:
    url = f"http://127.0.0.1:{port}/run?rate={RATE}&seconds={seconds}"
    async with aiohttp.ClientSession() as session, session.post(url) as response:
        return response.status == 200
