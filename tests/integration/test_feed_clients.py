"""Clients of the change feed that read slowly, vanish, come all at once; and a service that stops (F28, F32, F33)."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from keelson.events.app import AppRenamed
from keelson.events.env import EnvConfigSet
from keelson.query.feed import chunks, feed, metrics
from keelson.service import server, streaming
from support.database import Database
from support.following import read_log, require_same
from support.log import connected
from support.proxy import running_proxy
from support.query_world import APP, ENV, NODE, TOKEN, Reader, World, open_world, served
from support.sse import Stream, connect, streamed
from support.stalling import buffered, never_reading
from support.waiting import eventually

# A little more than a chunk, and a transport's buffer.
MOST_BUFFERED = chunks.MAX_CHUNK_BYTES + 200_000


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database) as world:
        await world.append_base()
        yield world


async def append_large(world: World, events: int, bytes_each: int = 20_000) -> None:
    """Append events that fill buffers."""
    for number in range(events):
        await world.append((ENV, EnvConfigSet(variables={"A": str(number) * (bytes_each // len(str(number)))})))


def open_streams(reader: Reader) -> int:
    streams: int = reader.app.state.feed.streams
    return streams


def dropped() -> float:
    return float(metrics.SLOW._value.get())


async def test_f28_a_client_that_never_reads_is_cut_off_and_nobody_else_notices(
    database: Database, world: World
) -> None:
    before = dropped()
    begun = world.head
    async with (
        served(database, feed_send_timeout_s=1) as reader,
        streamed(reader.url, TOKEN, after=begun) as other,
        never_reading(reader, after=world.head),
    ):
        await eventually(lambda: open_streams(reader) == 2)
        most = 0
        writing = asyncio.create_task(append_large(world, 400))
        reading = asyncio.create_task(other.events_to(begun + 400))
        while open_streams(reader) == 2:
            most = max(most, buffered(reader))
            await asyncio.sleep(0.01)
        await writing
        assert 0 < most < MOST_BUFFERED
        assert dropped() == before + 1
        require_same([each.data for each in await reading], (await read_log(world))[begun:])
        async with streamed(reader.url, TOKEN, after=f"{world.epoch}-{begun}") as resumed:
            again = await resumed.events_to(world.head)
        require_same([each.data for each in again], (await read_log(world))[begun:])


async def test_planted_without_a_time_out_who_never_reads_stays(
    database: Database, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drain_for_ever(self: Any) -> None:
        await self._answer.drain()

    monkeypatch.setattr(streaming.StreamedBody, "_drain", drain_for_ever)
    async with served(database, feed_send_timeout_s=0.1) as reader:
        async with never_reading(reader, after=world.head):
            await append_large(world, 300)
            await eventually(lambda: buffered(reader) > 0)
            with pytest.raises(AssertionError):
                await eventually(lambda: open_streams(reader) == 0, timeout_s=1)
        await eventually(lambda: open_streams(reader) == 0)


async def test_f28_a_client_that_vanished_without_a_word_is_found(database: Database, world: World) -> None:
    """Nothing passes between it and the service any more, and no end of the connection either."""
    async with (
        served(database, feed_send_timeout_s=0.5) as reader,
        running_proxy("127.0.0.1", int(reader.url.rpartition(":")[2])) as proxy,
        streamed(f"http://127.0.0.1:{proxy.port}", TOKEN) as vanished,
    ):
        await vanished.events_to(world.head)
        before = dropped()
        proxy.to_client.hold()
        proxy.to_server.hold()
        await append_large(world, 400, 50_000)
        await eventually(lambda: open_streams(reader) == 0)
        assert dropped() == before + 1


def socket_of(reader: Reader, stream: Stream) -> Any:
    """Give the service's end of a stream's connection."""
    [connection] = [
        each
        for each in reader.server.server_state.connections
        if each.transport.get_extra_info("peername") == stream.writer.get_extra_info("sockname")
    ]
    return connection.transport.get_extra_info("socket")


async def test_f28_machines_that_do_not_answer_are_given_up_by_the_kernel(database: Database, world: World) -> None:
    async with served(database) as reader, streamed(reader.url, TOKEN) as stream:
        await stream.events_to(world.head)
        own = socket_of(reader, stream)
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == streaming.VANISHED_AFTER_S * 1000


async def test_f28_the_kernel_keeps_little_of_what_a_client_does_not_take(database: Database, world: World) -> None:
    """Linux doubles what it is told, for what it needs itself."""
    async with served(database) as reader, streamed(reader.url, TOKEN) as stream:
        await stream.events_to(world.head)
        kept = socket_of(reader, stream).getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        assert kept <= 2 * streaming.MAX_UNSENT_BYTES


async def test_f28_a_client_that_leaves_is_noticed_at_once(database: Database, world: World) -> None:
    async with served(database) as reader:
        stream = await connect(reader.url, "/v1/events", TOKEN)
        await stream.events_to(world.head)
        assert open_streams(reader) == 1
        stream.writer.close()
        await eventually(lambda: open_streams(reader) == 0)


async def test_f28_no_connection_to_the_database_is_held_while_anybody_waits(database: Database, world: World) -> None:
    """With a pool of two: a hundred streams and twenty reads that wait, and everybody else is answered as ever."""
    async with served(database, pool_size=2, feed_bookmark_interval_s=600) as reader, AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(streamed(reader.url, TOKEN)) for _ in range(100)]
        for stream in streams:
            await stream.events_to(world.head)
        waiting = [asyncio.create_task(reader.get("/v1/events", after=world.head, wait=30)) for _ in range(20)]
        await eventually(lambda: open_streams(reader) == 120)
        pool = reader.app.state.pool
        await eventually(lambda: pool.size - pool.idle == 0)
        async with connected(database.admin_dsn) as admin:
            used = await admin.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'keelson-query' "
                "AND (state <> 'idle' OR backend_xmin IS NOT NULL)",
                database.name,
            )
        assert used == 0
        assert (await reader.get("/v1/events", limit=1)).status == 200
        await world.append((APP, AppRenamed(name="for everybody")))
        for stream in streams:
            assert [each.position for each in await stream.events_to(world.head)] == [world.head]
        for answer in await asyncio.gather(*waiting):
            assert [each["position"] for each in answer.body["items"]] == [world.head]


# F32


async def test_f32_clients_are_told_to_come_back_at_different_times(database: Database, world: World) -> None:
    assert world.head
    async with served(database) as reader:
        hints = set()
        for _ in range(20):
            async with streamed(reader.url, TOKEN) as stream:
                hints.add((await stream.frame()).data)
    assert len(hints) > 10
    assert all(500 <= each <= 3000 for each in hints)


async def test_f32_no_more_streams_than_are_allowed(database: Database, world: World) -> None:
    async with served(database, feed_max_streams=2) as reader, streamed(reader.url, TOKEN) as first:
        await first.events_to(world.head)
        waiting = asyncio.create_task(reader.get("/v1/events", after=world.head, wait=30))
        await eventually(lambda: open_streams(reader) == 2)
        hints = set()
        for _ in range(20):
            refused = await connect(reader.url, "/v1/events", TOKEN)
            assert (refused.status, (await refused.read_problem())["code"]) == (503, "unavailable")
            hints.add(int(refused.headers["retry-after"]))
            refused.writer.close()
        assert len(hints) > 2
        assert all(1 <= each <= 10 for each in hints)
        answer = await reader.get("/v1/events", after=world.head, wait=30)
        assert (answer.status, answer.code) == (503, "unavailable")
        first.writer.close()
        await eventually(lambda: open_streams(reader) == 1)
        async with streamed(reader.url, TOKEN) as admitted:
            assert admitted.status == 200
        await world.append((APP, AppRenamed(name="store")))
        assert (await waiting).status == 200


async def test_f32_those_who_missed_the_same_are_told_by_one_piece(
    database: Database, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty streams, at the same place, in one interest: what they are told is put together once, not fifty times."""
    tell, told = chunks.tell, []

    def counting(*args: Any) -> Any:
        told.append(args)
        return tell(*args)

    async with served(database) as reader, AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(streamed(reader.url, TOKEN)) for _ in range(50)]
        for stream in streams:
            await stream.events_to(world.head)
        monkeypatch.setattr(chunks, "tell", counting)
        for number in range(10):
            await world.append((APP, AppRenamed(name=f"name-{number}")))
            for stream in streams:
                await stream.events_to(world.head)
    assert len(told) <= 10


async def test_f32_who_comes_back_to_a_replica_that_was_restarted_is_told_from_memory(
    database: Database, world: World
) -> None:
    """It begins with the end of the log, so that a thousand cursors that are a little behind cost no statement each."""
    place = f"{world.epoch}-{world.head}"
    await world.append((APP, AppRenamed(name="meanwhile")))
    before = metrics.CATCH_UPS._value.get()
    async with served(database) as reader, streamed(reader.url, TOKEN, headers={"Last-Event-ID": place}) as stream:
        assert [each.position for each in await stream.events_to(world.head)] == [world.head]
    assert metrics.CATCH_UPS._value.get() == before


# F33


async def test_f33_streams_end_with_their_place_when_the_service_stops(database: Database, world: World) -> None:
    """Idle ones, quiet ones, and one that is told something just then: each ends whole, and can be resumed."""
    async with served(database) as reader, AsyncExitStack() as stack:
        busy = await stack.enter_async_context(streamed(reader.url, TOKEN))
        quiet = await stack.enter_async_context(streamed(reader.url, TOKEN, node_id=NODE))
        assert (await quiet.next("bookmark")).position == world.head
        waiting = asyncio.create_task(reader.get("/v1/events", after=world.head, wait=30, node_id=NODE))
        await eventually(lambda: open_streams(reader) == 3)
        await world.append((APP, AppRenamed(name="store")))
        await busy.events_to(world.head)
        reader.server.stop()
        assert [each.kind for each in await busy.rest()] == []
        [last] = await quiet.rest()
        cursor = f"{world.epoch}-{world.head}"
        assert (last.kind, last.id) == ("bookmark", cursor)
        answer = await waiting
        assert (answer.status, answer.body["items"], answer.body["next"]) == (200, [], cursor)
    async with served(database) as reader, streamed(reader.url, TOKEN, headers={"Last-Event-ID": cursor}) as resumed:
        assert (await resumed.next("bookmark")).position == world.head


async def test_f33_who_does_not_read_does_not_hold_a_service_that_stops(
    database: Database, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its stream alone; that its server would cut it off as well is another test's."""
    monkeypatch.setattr(feed, "LAST_SEND_TIMEOUT_S", 0.2)
    monkeypatch.setattr(server, "STALLED_S", 60)
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        async with served(database, feed_send_timeout_s=60, shutdown_grace_s=30) as reader:
            await stack.enter_async_context(never_reading(reader, after=world.head))
            await append_large(world, 300)
            await eventually(lambda: buffered(reader) > 0)
            began = loop.time()
        # Long before the kernel finds by itself that it takes nothing, and before it would be cut off in any case.
        assert loop.time() - began < 5 < streaming.VANISHED_AFTER_S


async def test_f33_a_service_that_stops_takes_no_more_streams(database: Database, world: World) -> None:
    async with served(database) as reader:
        reader.app.state.feed.hub.stop()
        for params in ({}, {"after": world.head, "wait": 5}):
            refused = await connect(reader.url, "/v1/events", TOKEN, _accepting(params), **params)
            assert (refused.status, (await refused.read_problem())["code"]) == (503, "unavailable")
            refused.writer.close()


def _accepting(params: dict[str, Any]) -> dict[str, str]:
    return {"Accept": "application/json"} if params else {}


async def test_streams_are_counted_and_their_length_is_no_latency(database: Database, world: World) -> None:
    async with served(database) as reader:
        stream = await connect(reader.url, "/v1/events", TOKEN)
        await stream.events_to(world.head)
        text = (await reader.get("/metrics", token=None)).body.decode()
        assert "keelson_feed_streams 1.0" in text
        assert f"keelson_feed_ring_events {float(world.head)}" in text
        stream.writer.close()
        await eventually(lambda: open_streams(reader) == 0)
        await asyncio.sleep(0)
        text = (await reader.get("/metrics", token=None)).body.decode()
        assert 'keelson_http_requests_total{method="GET",route="/v1/events",service="query",status="200"}' in text


async def test_a_head_request_is_answered_by_a_head(database: Database, world: World) -> None:
    assert world.head
    async with served(database) as reader:
        loop = asyncio.get_running_loop()
        client, writer = await asyncio.open_connection("127.0.0.1", int(reader.url.rpartition(":")[2]))
        began = loop.time()
        writer.write(
            f"HEAD /v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        async with asyncio.timeout(5):
            head = await client.read()
        assert head.startswith(b"HTTP/1.1 200")
        assert head.endswith(b"\r\n\r\n")
        assert loop.time() - began < 5
        writer.close()
