"""Waiting for projections, on a real PostgreSQL's notifications."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from keelson.log.database import Connection, connect, open_pool
from keelson.log.listen import Listener
from keelson.service.checkpoints import CHANNEL, Checkpoints
from support.database import Database
from support.waiting import eventually

PATIENCE_S = 10.0
# Longer than a test may take: whoever gets an answer did not get it from the poll.
NEVER_S = 3600.0


@asynccontextmanager
async def registry(database: Database, *, poll_interval_s: float = NEVER_S) -> AsyncIterator[Checkpoints]:
    """Run a registry as a service does, connected and after its first look."""
    pool = await open_pool(database.query_dsn, application_name="test-checkpoints")
    listener = Listener(database.query_dsn, CHANNEL, application_name="test-listener", reconnect_delay_s=0.05)
    checkpoints = Checkpoints(pool, listener, poll_interval_s=poll_interval_s)
    running = asyncio.create_task(checkpoints.run())
    try:
        await eventually(lambda: listener.connected and checkpoints.epoch.name)
        yield checkpoints
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await pool.close()


@pytest.fixture
async def projector(database: Database) -> AsyncIterator[Connection]:
    """Lend a connection of the projector's role, which writes checkpoints and announces them."""
    connection = await connect(database.projector_dsn, application_name="test-projector")
    yield connection
    await connection.close()


async def move(projector: Connection, projection: str, position: int, state: str = "running") -> None:
    """Move a checkpoint silently."""
    await projector.execute(
        "INSERT INTO ops.checkpoints (projection, version, position, state) VALUES ($1, 1, $2, $3) "
        "ON CONFLICT (projection) DO UPDATE SET position = $2, state = $3",
        projection,
        position,
        state,
    )


async def announce(projector: Connection, projection: str, position: int) -> None:
    await projector.execute("SELECT pg_notify($1, $2)", CHANNEL, f"{projection} {position}")


async def waiting(checkpoints: Checkpoints, *projections: str, position: int) -> asyncio.Task[bool]:
    """Begin to wait; give the task once it waits."""
    task = asyncio.create_task(checkpoints.wait_for(projections, position, PATIENCE_S))
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_a_position_that_is_reached_already_is_not_waited_for(database: Database, projector: Connection) -> None:
    await move(projector, "platform", 7)
    async with registry(database) as checkpoints:
        assert await checkpoints.wait_for(("platform",), 7, 0)
        assert checkpoints.position_of("platform") == 7
        assert checkpoints.state_of("platform") == "running"


async def test_a_notification_ends_the_wait_when_every_projection_is_there(
    database: Database, projector: Connection
) -> None:
    await move(projector, "platform", 1)
    async with registry(database) as checkpoints:
        wait = await waiting(checkpoints, "platform", "activity", position=5)
        await announce(projector, "platform", 6)
        await eventually(lambda: checkpoints.position_of("platform") == 6)
        assert not wait.done()
        await announce(projector, "activity", 5)
        assert await wait


async def test_the_wait_ends_with_false_when_the_time_is_over(database: Database, projector: Connection) -> None:
    await move(projector, "platform", 1)
    async with registry(database) as checkpoints:
        assert not await checkpoints.wait_for(("platform",), 2, 0.05)
        assert not await checkpoints.wait_for(("unheard-of",), 1, 0.05)


async def test_a_stopped_projection_ends_the_wait_at_once(database: Database, projector: Connection) -> None:
    await move(projector, "platform", 3, "stopped")
    async with registry(database) as checkpoints:
        assert await checkpoints.wait_for(("platform",), 3, PATIENCE_S), "what it did reach counts"
        assert not await asyncio.wait_for(checkpoints.wait_for(("activity", "platform"), 4, NEVER_S), PATIENCE_S)
        await announce(projector, "platform", 4)
        await eventually(lambda: checkpoints.state_of("platform") == "running")


async def test_f19_a_lost_notification_costs_a_poll_interval_at_most(database: Database, projector: Connection) -> None:
    await move(projector, "platform", 1)
    async with registry(database, poll_interval_s=0.1) as checkpoints:
        wait = await waiting(checkpoints, "platform", position=2)
        await move(projector, "platform", 2)
        assert await wait


async def test_f19_a_killed_listener_looks_again_when_it_is_back(database: Database, projector: Connection) -> None:
    await move(projector, "platform", 1)
    async with registry(database) as checkpoints:
        wait = await waiting(checkpoints, "platform", position=2)
        await move(projector, "platform", 2)
        await kill_listener(database)
        assert await wait


async def test_a_checkpoint_goes_back_only_with_the_database(database: Database, projector: Connection) -> None:
    await move(projector, "platform", 9)
    async with registry(database, poll_interval_s=0.1) as checkpoints:
        await announce(projector, "platform", 5)
        await announce(projector, "activity", 1)
        await eventually(lambda: checkpoints.position_of("activity") == 1)
        assert checkpoints.position_of("platform") == 9, "an older notification changes nothing"
        await move(projector, "platform", 4)
        await eventually(lambda: checkpoints.position_of("platform") == 4)


async def test_a_thousand_waits_cost_no_query(database: Database, projector: Connection) -> None:
    await move(projector, "platform", 1)
    async with registry(database) as checkpoints, unreadable_checkpoints(database):
        waits = [asyncio.create_task(checkpoints.wait_for(("platform",), 2, PATIENCE_S)) for _ in range(1000)]
        await announce(projector, "platform", 2)
        assert all(await asyncio.gather(*waits))


@asynccontextmanager
async def unreadable_checkpoints(database: Database) -> AsyncIterator[None]:
    """Lock the table meanwhile, so that whoever reads it gets no answer."""
    admin = await connect(database.admin_dsn, application_name="test-admin")
    try:
        async with admin.transaction():
            await admin.execute("LOCK TABLE ops.checkpoints IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await admin.close()


async def kill_listener(database: Database) -> None:
    admin = await connect(database.admin_dsn, application_name="test-admin")
    try:
        killed = await admin.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'test-listener' AND datname = current_database()"
        )
        assert killed
    finally:
        await admin.close()


async def test_f26_waits_end_when_another_epoch_begins(database: Database, projector: Connection) -> None:
    """What was waited for may never come, and what comes under that number may be something else."""
    await move(projector, "platform", 7)
    async with registry(database) as checkpoints:
        wait = await waiting(checkpoints, "platform", position=9)
        await announce(projector, "tenancy", 20)
        await eventually(lambda: checkpoints.position_of("tenancy") == 20)
        checkpoints.epoch.learn("later")
        assert checkpoints.position_of("tenancy") is None, "which may not be there any more"
        async with asyncio.timeout(PATIENCE_S / 2):  # it waits for longer
            assert not await wait
