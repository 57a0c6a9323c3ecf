"""Contention: many callers on one aggregate; and decisions on an aggregate with a long history, cold and warm."""

from statistics import median
from time import perf_counter

import aiohttp
import msgspec

from bench.figures import Figure
from bench.load import Spec, run_load
from bench.over_http import port_of
from bench.world import ANCESTORS, Bench, append_all, begin_world, config_sets, create_envs, set_config
from keelson.events.env import EnvCreated
from support.database import Database
from support.decisions import an_event, decide, made_id
from support.log import appending
from support.stack import Stack

PART = "contention"
CALLERS = 32
HISTORY = 10_000
LONG_ONES = 3
WARM_DECISIONS = 50
_EVENTS_A_COMMAND = 500


async def measure(bench: Bench) -> list[Figure]:
    """Measure callers on one environment, on one replica and on two; then environments of 10,000 events."""
    async with bench.cluster.fresh_database() as database, bench.stack(database, commands=2) as stack:
        (env_id,) = await create_envs(stack, 1)
        ports = [port_of(child) for child in stack.commands]
        requests = [set_config(stack, env_id)]
        one = await run_load(Spec(ports[:1], CALLERS, bench.seconds, requests))
        two = await run_load(Spec(ports, CALLERS, bench.seconds, requests))
    async with bench.cluster.fresh_database() as database:
        long_ones = await _append_histories(database)
        async with bench.stack(database) as stack:
            cold, warm = await _decide(stack, long_ones)
    return [
        one.figure(PART, f"{CALLERS} callers on one aggregate"),
        two.figure(PART, f"{CALLERS} callers on one aggregate, two replicas"),
        Figure(part=PART, what=f"decision on {HISTORY:,} events, warm", value=warm, unit="ms"),
        Figure(part=PART, what=f"decision on {HISTORY:,} events, cold", value=cold, unit="ms"),
    ]


async def _append_histories(database: Database) -> list[str]:
    long_ones = [made_id("env") for _ in range(LONG_ONES)]
    async with appending(database.command_dsn) as (appender, epoch):
        await begin_world(appender, epoch)
        for env_id in long_ones:
            created = an_event(env_id, 1, EnvCreated(name=env_id), **ANCESTORS)
            await append_all(appender, [decide(epoch, created)])
            for first in range(2, HISTORY, _EVENTS_A_COMMAND):
                await append_all(appender, [decide(epoch, *config_sets(env_id, first, _EVENTS_A_COMMAND))])
    return [str(env_id) for env_id in long_ones]


async def _decide(stack: Stack, long_ones: list[str]) -> tuple[float, float]:
    """Give the milliseconds of a first and of a later command on an environment, medians."""
    cold, warm = [], []
    headers = {"Authorization": f"Bearer {stack.operator_token}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(stack.commands[0].url, headers=headers) as session:
        await _post(session, "org.create", {"name": "first-of-all"})
        for env_id in long_ones:
            cold.append(await _set_config(session, env_id, 0))
            warm += [await _set_config(session, env_id, number) for number in range(1, WARM_DECISIONS)]
    return median(cold), median(warm)


async def _set_config(session: aiohttp.ClientSession, env_id: str, number: int) -> float:
    return await _post(session, "env.set_config", {"env_id": env_id, "variables": {"NUMBER": str(number)}})


async def _post(session: aiohttp.ClientSession, name: str, data: dict[str, object]) -> float:
    started = perf_counter()
    async with session.post(f"/v1/commands/{name}", data=msgspec.json.encode(data)) as response:
        body = await response.read()
        if response.status != 200:
            raise RuntimeError(f"{name}: {response.status} {body!r}")
    return (perf_counter() - started) * 1000
