"""Streams end in time whatever they wait for: a client that takes nothing, or the database (F28, F33, F34).

The kernel's buffers are small, so that one event fills the service's own, or a part of them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from keelson.events.env import EnvConfigSet
from keelson.events.ids import AggregateId
from keelson.query.feed import events, feed, metrics
from keelson.service import server, streaming
from support.database import Database
from support.feed_world import ENVS, ORGS, Credential, FeedWorld, open_feed_world
from support.log import connected
from support.query_world import TOKEN, Reader, served
from support.sse import streamed
from support.stalling import SMALL_BUFFER_BYTES, buffered, never_reading, sleeping
from support.waiting import eventually

# More than a transport holds before it says that it is full, and much less.
MUCH, LITTLE = 400_000, 30_000
FULL_AT = 64 * 1024
# What has a client end, or has it be given up, at the very last: the kernel's own bound.
AT_LAST_S = streaming.VANISHED_AFTER_S
RIGHTS_BOUND_S = 1.0


@pytest.fixture(autouse=True)
def _little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the kernel take little of what streams are sent."""
    monkeypatch.setattr(streaming, "MAX_UNSENT_BYTES", SMALL_BUFFER_BYTES)


@pytest.fixture
async def world(database: Database) -> AsyncIterator[FeedWorld]:
    async with open_feed_world(database) as world:
        yield world


@pytest.fixture
async def credential(world: FeedWorld) -> Credential:
    return await world.issue(ORGS[0])


async def tell(world: FeedWorld, size_bytes: int) -> None:
    """Have one event happen, of about this size."""
    env = ENVS[0]
    assert env.env_id is not None
    await world.append([(AggregateId(env.env_id), env, EnvConfigSet(variables={"TEXT": "x" * size_bytes}))])


@asynccontextmanager
async def stalled(reader: Reader, world: FeedWorld, credential: Credential, size_bytes: int) -> AsyncIterator[None]:
    """Let a client take nothing of an event that it is told while its stream's task sleeps; nothing more happens."""
    async with never_reading(reader, after=world.head, token=credential.token):
        await eventually(lambda: sleeping(reader) == 1)
        await tell(world, size_bytes)
        await eventually(lambda: buffered(reader) > 0)
        assert (buffered(reader) > FULL_AT) == (size_bytes > FULL_AT)
        yield


async def ends(reader: Reader, timeout_s: float) -> None:
    """See that no stream is open any more after so long."""
    await eventually(lambda: reader.app.state.feed.streams == 0, timeout_s)


async def test_f28_who_is_told_much_in_its_sleep_is_waited_for_no_longer(
    database: Database, world: FeedWorld, credential: Credential
) -> None:
    before = metrics.SLOW._value.get()
    async with served(database, feed_send_timeout_s=0.5) as reader, stalled(reader, world, credential, MUCH):
        await ends(reader, AT_LAST_S / 3)
        assert metrics.SLOW._value.get() == before + 1


@pytest.mark.parametrize("size_bytes", [MUCH, LITTLE])
async def test_f33_who_takes_nothing_does_not_hold_a_service_that_stops(
    database: Database, world: FeedWorld, credential: Credential, monkeypatch: pytest.MonkeyPatch, size_bytes: int
) -> None:
    """Whether its stream waits for it, or has ended and left what is unsent to the connection."""
    monkeypatch.setattr(feed, "LAST_SEND_TIMEOUT_S", 0.2)
    monkeypatch.setattr(server, "STALLED_S", 0.2)
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        async with served(database, feed_send_timeout_s=60, shutdown_grace_s=60) as reader:
            await stack.enter_async_context(stalled(reader, world, credential, size_bytes))
            began = loop.time()
        assert loop.time() - began < AT_LAST_S / 3


async def test_f34_who_takes_nothing_does_not_outlive_its_rights(
    database: Database, world: FeedWorld, credential: Credential
) -> None:
    async with served(database, feed_send_timeout_s=60) as reader, stalled(reader, world, credential, MUCH):
        await world.revoke(credential)
        await ends(reader, RIGHTS_BOUND_S)


@asynccontextmanager
async def catching_up(reader: Reader, token: str, count: int) -> AsyncIterator[list[asyncio.Task[list[Any]]]]:
    """Open streams from the beginning of the log, behind a ring that holds one event; lend what they will be told."""
    async with AsyncExitStack() as stack:
        rests = []
        for _ in range(count):
            stream = await stack.enter_async_context(streamed(reader.url, token))
            rests.append(asyncio.create_task(stream.rest()))
        yield rests


def nothing_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Have statements of catching up give nothing, ever; give what counts those under way."""
    under_way = 0

    async def wait_for_ever(*_: object) -> None:
        nonlocal under_way
        under_way += 1
        try:
            await asyncio.Event().wait()
        finally:
            under_way -= 1

    monkeypatch.setattr(events, "read_filtered", wait_for_ever)
    return lambda: under_way


async def stop(reader: Reader, _world: FeedWorld, _credential: Credential) -> None:
    reader.server.stop()


async def revoke(_reader: Reader, world: FeedWorld, credential: Credential) -> None:
    await world.revoke(credential)


End = Callable[[Reader, FeedWorld, Credential], Coroutine[Any, Any, None]]


@pytest.mark.parametrize("end", [stop, revoke])
async def test_f34_streams_that_catch_up_end_at_once_whether_it_is_their_turn_or_not(
    database: Database, world: FeedWorld, credential: Credential, monkeypatch: pytest.MonkeyPatch, end: End
) -> None:
    under_way = nothing_read(monkeypatch)
    async with (
        served(database, feed_ring_events=1) as reader,
        catching_up(reader, credential.token, 2 * feed.CATCH_UP_READS) as rests,
    ):
        await eventually(lambda: under_way() == feed.CATCH_UP_READS)
        await end(reader, world, credential)
        await ends(reader, RIGHTS_BOUND_S)
        for rest in rests:
            assert "event" not in [each.kind for each in await rest]
    assert under_way() == 0


async def test_f33_a_statement_that_is_under_way_does_not_hold_a_stream_that_ends(
    database: Database, world: FeedWorld
) -> None:
    """Somebody has locked the log: each statement would wait for as long as statements may."""
    async with (
        connected(database.admin_dsn) as admin,
        served(database, feed_ring_events=1) as reader,
    ):
        await eventually(lambda: reader.app.state.feed.hub.end == world.head)
        async with admin.transaction():
            await admin.execute("LOCK TABLE log.events IN ACCESS EXCLUSIVE MODE")
            async with catching_up(reader, TOKEN, 1) as [rest]:
                await eventually(lambda: reader.app.state.feed.catching_up._value < feed.CATCH_UP_READS)
                reader.server.stop()
                assert [each.kind for each in await asyncio.wait_for(rest, RIGHTS_BOUND_S)] == ["retry", "bookmark"]
