"""The log under test: appenders that run, groups sent as they are, what a sound log is, planted bugs, plans."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec

from keelson.events import Envelope
from keelson.events.ids import Position
from keelson.log.append import _APPEND, Appender
from keelson.log.claims import verify_claims
from keelson.log.database import Connection, connect
from keelson.log.decision import Decision, Done, Outcome, Replayed
from keelson.log.group import arguments, outcomes
from keelson.log.read import read_head, read_page
from support.waiting import eventually

PATIENCE_S = 20.0

_IS_WAITING = """
    SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name = $1
"""


@asynccontextmanager
async def connected(
    dsn: str, application_name: str = "keelson-tests", **settings: str
) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Lend a connection of one's own."""
    connection = await connect(dsn, application_name=application_name, **settings)
    try:
        yield connection
    finally:
        connection.terminate()


@asynccontextmanager
async def running(*appenders: Appender, ready: bool = True) -> AsyncIterator[None]:
    """Run appenders; once entered, they know the epoch. A failure inside is raised as it is, not as a group."""
    runs = [asyncio.create_task(appender.run()) for appender in appenders]
    try:
        if ready:
            await eventually(lambda: all(appender.epoch for appender in appenders))
        yield
    finally:
        for run in runs:
            run.cancel()
        for ended in await asyncio.gather(*runs, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended


@asynccontextmanager
async def appending(dsn: str, **options: Any) -> AsyncIterator[tuple[Appender, str]]:
    """Lend an appender that runs, and the epoch."""
    appender = Appender(dsn, **options)
    async with running(appender):
        assert appender.epoch is not None
        yield appender, appender.epoch


async def append(appender: Appender, *decisions: Decision, timeout_s: float = PATIENCE_S) -> list[Outcome]:
    """Append decisions at once; they share groups as far as they may."""
    return await asyncio.gather(*(appender.append(decision, timeout_s) for decision in decisions))


async def append_group(connection: Connection, *decisions: Decision, epoch: str | None = None) -> list[Outcome]:
    """Send decisions as one group, whether they may share one or not."""
    rows = await connection.fetch(_APPEND, *arguments(epoch or decisions[0].epoch, list(decisions)))
    return outcomes(list(decisions), rows)


async def read_epoch(connection: Connection) -> str:
    """Give the epoch."""
    return (await read_head(connection)).epoch


async def begin_epoch(owner: Connection, name: str) -> None:
    """Begin an epoch as an operator would."""
    sql = "SELECT log.begin_epoch_v1($1, 'operator', 'system', 'operator', 'a restore', 'request')"
    await owner.fetchval(sql, name)


async def read_all(connection: Connection) -> list[Envelope]:
    """Give every event in order."""
    page = await read_page(connection, Position(0), 1_000_000, max_bytes=10**12)
    return page.envelopes


async def waits_for_lock(connection: Connection, application_name: str) -> bool:
    """Tell whether a session of that name waits for a lock."""
    return bool(await connection.fetch(_IS_WAITING, application_name))


async def assert_sound(connection: Connection, *, claims: bool = True) -> list[Envelope]:
    """Hold the whole log against what it promises; give its events."""
    envelopes = await read_all(connection)
    head = await read_head(connection)
    assert [each.position for each in envelopes] == list(range(1, head.position + 1))
    assert [each.position for each in envelopes if each.command_end][-1] == head.position
    assert envelopes == sorted(envelopes, key=lambda each: each.recorded_at)
    assert envelopes[-1].recorded_at <= head.recorded_at
    seqs: dict[str, int] = {}
    for each in envelopes:
        assert each.seq == seqs.get(each.aggregate_id, 0) + 1
        seqs[each.aggregate_id] = each.seq
    _assert_commands_whole(envelopes)
    if claims:
        assert await verify_claims(connection) == []
    return envelopes


def _assert_commands_whole(envelopes: Iterable[Envelope]) -> None:
    ended: set[str] = set()
    before: Envelope | None = None
    for each in envelopes:
        assert each.command_id not in ended
        assert before is None or before.command_end or before.command_id == each.command_id
        if each.command_end:
            ended.add(each.command_id)
        before = each


def is_own(decision: Decision, outcome: Outcome) -> bool:
    """Tell whether an outcome says that this very decision was committed."""
    return isinstance(outcome, Done) or (isinstance(outcome, Replayed) and outcome.command_id == decision.command_id)


async def plant(admin_dsn: str, function: str, *changes: tuple[str, str]) -> None:
    """Replace texts in the definition of a function of the log, in this database alone; each must be there."""
    async with connected(admin_dsn) as connection:
        definition: str = await connection.fetchval("SELECT pg_get_functiondef($1::regproc)", f"log.{function}")
        for old, new in changes:
            assert old in definition, f"log.{function} no longer says {old!r}: plant the bug anew"
            definition = definition.replace(old, new)
        await connection.execute(definition)


async def plans_of(connection: Connection, run: Callable[[Connection], Any]) -> list[dict[str, Any]]:
    """Give the plan of every statement that ran, also inside functions. Needs a superuser."""
    heard: list[str] = []
    for setting, value in {
        "log_min_duration": "0",
        "log_nested_statements": "on",
        "log_analyze": "on",
        "log_format": "json",
        "log_level": "notice",
    }.items():
        if setting == "log_min_duration":
            await connection.execute("LOAD 'auto_explain'")
        await connection.execute(f"SET auto_explain.{setting} = {value!r}")

    def hear(_connection: object, message: asyncpg.PostgresLogMessage) -> None:
        heard.append(str(message.message))

    connection.add_log_listener(hear)
    try:
        await run(connection)
        await connection.execute("SET auto_explain.log_min_duration = -1")
    finally:
        connection.remove_log_listener(hear)
    return [msgspec.json.decode(text[text.index("{") :]) for text in heard if "plan:" in text]


def nodes_of(plans: Sequence[Any]) -> list[dict[str, Any]]:
    """Give every node of these plans."""
    nodes: list[dict[str, Any]] = []
    left = [plan.get("Plan", plan) for plan in plans]
    while left:
        node = left.pop()
        nodes.append(node)
        left.extend(node.get("Plans", ()))
    return nodes
