"""Listening: what is missed while the connection is dead, silently or not, is caught up with (F19, F20, F22)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from keelson.log.epochs import Epochs
from keelson.log.listen import Listener
from keelson.log.tail import LOG_CHANNEL, Tail
from support.database import Database
from support.decisions import an_app, decide
from support.log import PATIENCE_S, append, appending, begin_epoch, connected, read_epoch
from support.proxy import proxied
from support.waiting import eventually

NAME = "listening"


@asynccontextmanager
async def listening(dsn: str, **options: Any) -> AsyncIterator[tuple[Listener, list[str]]]:
    """Lend a listener that has connected, and what it hears from then on."""
    heard: list[str] = []
    listener = Listener(dsn, LOG_CHANNEL, application_name=NAME, **{"reconnect_delay_s": 0.05, **options})
    listener.subscribe(heard.append)
    running = asyncio.create_task(listener.run())
    try:
        await eventually(lambda: heard == [""])
        heard.clear()
        yield listener, heard
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert not listener.connected
        assert running.cancelled()


async def test_each_group_is_told_of_once_with_the_head(database: Database) -> None:
    async with listening(database.query_dsn) as (_, heard), appending(database.command_dsn) as (appender, epoch):
        await append(appender, *(decide(epoch, an_app()) for _ in range(100)))
        await eventually(lambda: heard == ["101"])
        await append(appender, decide(epoch), decide(epoch, an_app(), reads={an_app().aggregate_id: 1}))
        await append(appender, decide(epoch, an_app()))
        await eventually(lambda: heard == ["101", "102"])


async def test_f19_a_killed_listener_listens_again_and_says_look(database: Database) -> None:
    async with (
        listening(database.query_dsn, probe_interval_s=PATIENCE_S) as (listener, heard),
        connected(database.admin_dsn) as admin,
        appending(database.command_dsn) as (appender, epoch),
    ):
        kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1"
        assert await admin.fetchval(kill, NAME) == 1
        await eventually(lambda: heard == [""])
        assert listener.connected
        await append(appender, decide(epoch, an_app()))
        await eventually(lambda: heard == ["", "2"])


async def test_f20_a_listener_in_a_black_hole_notices_by_its_probe_and_listens_elsewhere(database: Database) -> None:
    async with (
        proxied(database.query_dsn) as proxy,
        listening(proxy.url(database.query_dsn), probe_interval_s=0.1, probe_timeout_s=0.2) as (listener, heard),
        appending(database.command_dsn) as (appender, epoch),
    ):
        proxy.to_client.swallow()
        proxy.to_server.swallow()
        await append(appender, decide(epoch, an_app()))
        await eventually(lambda: proxy.accepted > 1)
        proxy.to_client.release()
        proxy.to_server.release()
        proxy.cut()
        await eventually(lambda: "" in heard and listener.connected)
        await append(appender, decide(epoch, an_app()))
        await eventually(lambda: "3" in heard)


async def test_f26_a_listener_leaves_a_server_that_was_replaced_and_finds_its_successor(database: Database) -> None:
    """It lives on, and would answer each probe; nor is it listened to again while its address still leads there."""
    known, lost = Epochs(), list[str]()
    options = {"epochs": known, "probe_interval_s": PATIENCE_S, "on_lost": lambda: lost.append("lost")}
    async with connected(database.owner_dsn) as owner, listening(database.query_dsn, **options) as (listener, heard):
        known.learn(await read_epoch(owner))
        known.learn("later")  # from whoever was connected to the other server first
        await eventually(lambda: len(lost) >= 3)
        assert not listener.connected
        await owner.execute("SELECT pg_notify($1, 'of an epoch that has ended')", LOG_CHANNEL)
        await eventually(lambda: len(lost) >= 6)
        assert heard == []
        await begin_epoch(owner, "later")
        await eventually(lambda: heard == [""])
        await owner.execute("SELECT pg_notify($1, '2')", LOG_CHANNEL)
        await eventually(lambda: heard == ["", "2"])


async def test_f20_a_listener_takes_no_leave_from_a_connection_that_answers_no_more(database: Database) -> None:
    """The server would have to answer it: only others' connections still lead there."""
    async with (
        proxied(database.query_dsn) as proxy,
        listening(proxy.url(database.query_dsn), probe_interval_s=0.1, probe_timeout_s=0.2) as (listener, heard),
        appending(database.command_dsn) as (appender, epoch),
    ):
        proxy.to_server.hold()
        await eventually(lambda: proxy.to_server.held_bytes)
        release = proxy.to_server.strand()
        try:
            await eventually(lambda: "" in heard and listener.connected)
            await append(appender, decide(epoch, an_app()))
            await eventually(lambda: "2" in heard)
        finally:
            release()


async def test_f20_a_listener_outlives_a_server_that_is_away(database: Database) -> None:
    async with proxied(database.query_dsn) as proxy, listening(proxy.url(database.query_dsn)) as (listener, heard):
        proxy.refuses = True
        proxy.cut()
        refused = proxy.accepted + 3
        await eventually(lambda: proxy.accepted >= refused)
        assert not listener.connected
        proxy.refuses = False
        await eventually(lambda: heard == [""])


async def test_f20_a_listener_outlives_a_server_that_lets_it_not_in(database: Database) -> None:
    elsewhere = database.admin_dsn.removesuffix(database.name) + "postgres"
    async with (
        proxied(database.query_dsn) as proxy,
        listening(proxy.url(database.query_dsn)) as (listener, heard),
        connected(elsewhere) as admin,
    ):
        await admin.execute(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS false")
        proxy.cut()
        refused = proxy.accepted + 3
        await eventually(lambda: proxy.accepted >= refused)
        assert not listener.connected
        await admin.execute(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS true")
        await eventually(lambda: heard == [""])


def _tail(**options: float) -> tuple[Tail, Listener]:
    listener = Listener("postgresql://nowhere", LOG_CHANNEL)
    return Tail(listener, **options), listener


async def test_f22_a_storm_of_notifications_is_one_look() -> None:
    tail, listener = _tail(poll_interval_s=PATIENCE_S)
    for position in range(1, 10_000):
        listener._tell(str(position))
    await _at_once(tail.wait_beyond(5))
    with pytest.raises(TimeoutError):
        await _at_once(tail.wait_beyond(9_999))


async def test_a_tail_waits_only_for_what_it_has_not_seen() -> None:
    tail, listener = _tail(poll_interval_s=PATIENCE_S)
    waiting = asyncio.create_task(tail.wait_beyond(7))
    for payload in ("3", "7"):
        listener._tell(payload)
        await asyncio.sleep(0)
        assert not waiting.done()
    listener._tell("8")
    await _at_once(waiting)


@pytest.mark.parametrize("payload", ["", "anything", "-1"])
async def test_a_tail_looks_when_told_to_whatever_the_words(payload: str) -> None:
    tail, listener = _tail(poll_interval_s=PATIENCE_S)
    listener._tell(payload)
    await _at_once(tail.wait_beyond(10**6))


async def test_f19_news_of_what_was_seen_do_not_put_the_poll_off() -> None:
    """After a restore the log stands below what was seen, and every notification says no more than that."""
    tail, listener = _tail(poll_interval_s=0.3)
    waiting = asyncio.create_task(tail.wait_beyond(100))
    async with asyncio.timeout(PATIENCE_S):
        while not waiting.done():
            listener._tell("5")
            await asyncio.wait([waiting], timeout=0.05)


async def _at_once(awaitable: Any) -> None:
    async with asyncio.timeout(0.2):
        await awaitable
