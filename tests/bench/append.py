"""Appending from within a process, every promise kept, beside plain INSERTs into a table of the same shape."""

import asyncio
import gc
import re
from itertools import count
from pathlib import Path
from time import perf_counter

import msgspec

from bench.figures import Figure
from bench.world import VARIABLES, Bench, append_all, config_sets
from keelson.events.ids import AggregateId
from keelson.local.postgres import HOST, SUPERUSER
from keelson.log.append import Appender
from keelson.log.decision import Decision
from keelson.log.queries import load
from support.database import Database
from support.decisions import an_app, decide, made_id
from support.log import appending, connected

PART = "append"
CALLERS = (1, 32, 256)
# What is expected of one event a command, by callers, beside pgbench at the same clients.
LEAST_OF_PGBENCH = {1: 0.35, 32: 1.0, 256: None}
LEAST_OF_UNNEST = 0.3
ROWS = 500
# More than is appended in a second on any machine known, so that what is made beforehand lasts.
_MOST_PER_CALLER = {1: 4_000, 32: 1_000, 256: 150}

_CREATE_BASELINE = load(__file__, "create_baseline")
_INSERT_ONE = load(__file__, "insert_one")
_INSERT_MANY = load(__file__, "insert_many")
_PAYLOAD = msgspec.json.encode({"variables": VARIABLES}).decode()


async def measure(bench: Bench) -> list[Figure]:
    """Measure appends and both baselines, each on its own, one after another."""
    async with bench.cluster.fresh_database() as database:
        async with connected(database.admin_dsn) as connection:
            await connection.execute(_CREATE_BASELINE)
        pgbench = {clients: await _pgbench(bench, database, clients) for clients in CALLERS}
        unnest = await _unnest(bench, database)
        figures = [*pgbench.values(), unnest]
        for callers in CALLERS:
            one = await _appends(bench, database, callers, 1)
            figures.append(one.beside(pgbench[callers], LEAST_OF_PGBENCH[callers]))
            if callers == CALLERS[-1]:
                figures.append(
                    msgspec.structs.replace(one, what=f"{one.what}, beside many rows").beside(unnest, LEAST_OF_UNNEST)
                )
        claim = await _appends(bench, database, 32, 1, claims=True)
        figures.append(claim.beside(pgbench[32]))
        figures += [(await _appends(bench, database, callers, 10)).beside(unnest) for callers in CALLERS]
    return figures


async def _pgbench(bench: Bench, database: Database, clients: int) -> Figure:
    """Let pgbench insert single rows, a commit each, prepared."""
    script = bench.folder / "insert_one.sql"
    comments_left_out = "\n".join(line for line in _INSERT_ONE.splitlines() if not line.startswith("--"))
    script.write_text(comments_left_out % {"payload": _PAYLOAD})
    server = bench.cluster.server
    process = await asyncio.create_subprocess_exec(
        str(Path(server.binaries) / "pgbench"),
        *("-n", "-M", "prepared", "-c", str(clients), "-T", str(_pgbench_s(bench, clients)), "-f", str(script)),
        *("-h", HOST, "-p", str(server.port), "-U", SUPERUSER, database.name),
        env={"PGPASSWORD": server.password, "LC_ALL": "C"},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(bench.seconds + 60):
            said = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    found = re.search(r"^tps = ([\d.]+)", said, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"pgbench says no rate: {said}")
    return Figure(part=PART, what=f"pgbench, INSERT and COMMIT, {_many(clients, 'client')}", value=float(found[1]))


def _pgbench_s(bench: Bench, clients: int) -> int:
    """Give how long pgbench runs: its time counts from before it connects, its rate from after that."""
    return max(1, round(bench.seconds + clients / 64))


async def _unnest(bench: Bench, database: Database) -> Figure:
    payloads, inserted = [_PAYLOAD] * ROWS, 0
    numbers = count(1)
    async with connected(database.admin_dsn) as connection:
        started = perf_counter()
        while perf_counter() - started < bench.seconds:
            ids = [f"env_{next(numbers):026d}" for _ in range(ROWS)]
            await connection.execute(_INSERT_MANY, ids, payloads)
            inserted += ROWS
        elapsed_s = perf_counter() - started
    return Figure(part=PART, what=f"INSERT unnest, {ROWS} rows a commit", value=inserted / elapsed_s)


async def _appends(bench: Bench, database: Database, callers: int, events: int, *, claims: bool = False) -> Figure:
    """Append decisions that were made beforehand, for so long at most; the first tenth warms up."""
    async with appending(database.command_dsn) as (appender, epoch):
        number = int(callers * _MOST_PER_CALLER[callers] * bench.seconds / 2 / events)
        decisions = [_decision(epoch, events, claims=claims) for _ in range(number)]
        warm_up = number // 10
        await append_all(appender, decisions[:warm_up], callers)
        gc.collect()
        gc.freeze()
        try:
            elapsed_s = await _timed(appender, decisions[warm_up:], callers)
        finally:
            gc.unfreeze()
    what = f"{_many(callers, 'caller')}, {_many(events, 'event')} a command{', with a claim' if claims else ''}"
    return Figure(part=PART, what=what, value=(number - warm_up) * events / elapsed_s)


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"


async def _timed(appender: Appender, decisions: list[Decision], callers: int) -> float:
    started = perf_counter()
    await append_all(appender, decisions, callers)
    return perf_counter() - started


def _decision(epoch: str, events: int, *, claims: bool) -> Decision:
    env_id = AggregateId(made_id("env"))
    return decide(epoch, an_app()) if claims else decide(epoch, *config_sets(env_id, 1, events))
