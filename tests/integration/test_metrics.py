"""What metrics say is what happened: each is held against a situation that must move it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import REGISTRY

from keelson.command.metrics import SAMPLED_EACH_S
from keelson.log.database import open_pool
from keelson.log.epochs import Epochs
from keelson.log.tail import LOG_CHANNEL
from keelson.service import loop_delay
from keelson.service.checkpoints import CHANNEL, Checkpoints
from keelson.service.lifecycle import background
from keelson.service.listening import service_listener
from keelson.service.metrics import watch_pool
from keelson.service.settings import Settings
from support.command_world import open_world
from support.database import Database
from support.log import connected, waits_for_lock
from support.projecting import caught_up, pooled, replica
from support.waiting import eventually

WRITER = "keelson-command-append"
# Of its statements, as it sets it from what a call may take (5 s).
WRITER_TIMEOUT_S = 4.0
KILL = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1"


def value(name: str, **labels: str) -> float:
    """Give a sample's value in this process; 0 if there is none yet."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def grows(name: str, by: float = 1, /, **labels: str) -> AsyncIterator[None]:
    """Hold a sample to have grown by so much at the end of the body."""
    before = value(name, **labels)
    yield
    assert value(name, **labels) - before == by, (name, labels)


@asynccontextmanager
async def head_held(database: Database) -> AsyncIterator[None]:
    """Hold the log's head."""
    async with connected(database.owner_dsn) as holder, holder.transaction():
        await holder.execute("SELECT FROM log.head FOR UPDATE")
        yield


def settings_of(database: Database) -> Settings:
    return Settings(database_url=database.query_dsn, port=0, operator_token="of nobody, in a test")


async def test_appends_are_counted_by_their_events_and_outcomes(database: Database) -> None:
    async with open_world(database) as world:
        org_id = await world.create_org()
        async with (
            grows("keelson_append_events_total", 3),
            grows("keelson_append_decisions_total", 2, outcome="done"),
            grows("keelson_append_decisions_total", outcome="replayed"),
            grows("keelson_append_decisions_total", outcome="taken"),
            grows("keelson_append_group_decisions_sum", 4),
            grows("keelson_append_group_seconds_count", 4),
            grows("keelson_http_problems_total", service="command", code="name_taken"),
            grows("keelson_http_problems_total", service="command", code="unauthenticated"),
        ):
            for _ in range(2):
                renamed = await world.replica.command(
                    "org.rename", headers={"Idempotency-Key": "1"}, org_id=org_id, name="a"
                )
                assert renamed.status == 200
            created = [{"name": "org.create", "data": {"name": name}} for name in ("b", "c")]
            assert (await world.replica.bundle(*created)).status == 200
            assert (await world.replica.command("org.create", name="a")).code == "name_taken"
            assert (await world.replica.command("org.create", token="nobody", name="d")).code == "unauthenticated"


async def test_conflicts_and_what_is_decided_again_are_counted(database: Database) -> None:
    async with open_world(database, replicas=2) as world:
        first, second = world.replicas
        org_id = await world.create_org()
        assert (await second.command("org.rename", org_id=org_id, name="warm")).status == 200
        async with (
            grows("keelson_append_decisions_total", outcome="moved"),
            grows("keelson_command_reruns_total", cause="elsewhere"),
        ):
            assert (await first.command("org.rename", org_id=org_id, name="hot")).status == 200
        here = value("keelson_command_reruns_total", cause="here")
        names = [first.command("org.rename", org_id=org_id, name=f"name-{number}") for number in range(8)]
        assert {answer.status for answer in await asyncio.gather(*names)} == {200}
        assert value("keelson_command_reruns_total", cause="here") > here


async def test_waiting_for_the_head_and_losing_the_writer_are_counted(database: Database) -> None:
    waited = "keelson_append_lock_wait_seconds_total"
    async with open_world(database) as world, connected(database.admin_dsn) as admin:
        async with grows(waited, 0):
            await world.create_org()
        before, failed = value(waited), value("keelson_append_failures_total", kind="interrupted")
        held_since = time.monotonic()
        async with head_held(database):
            sent = asyncio.create_task(world.replica.command("org.create", name="waits"))
            await eventually(lambda: value(waited) >= before + 2 * SAMPLED_EACH_S)
            assert await admin.fetchval(KILL, WRITER) == 1
            await eventually(lambda: waits_for_lock(admin, WRITER))
        assert (await sent).status == 200
        # Once for the writer that was killed, and once for each time-out of its own that a slow machine let pass.
        timeouts = (time.monotonic() - held_since) // WRITER_TIMEOUT_S
        assert 1 <= value("keelson_append_failures_total", kind="interrupted") - failed <= 1 + timeouts


async def test_a_lost_listener_is_counted_and_one_that_listens_is_shown(database: Database) -> None:
    listener = service_listener("test", settings_of(database), Epochs(), LOG_CHANNEL)
    assert value("keelson_listener_connected", service="test") == 0
    async with background(listener.run()), connected(database.admin_dsn) as admin:
        await eventually(lambda: value("keelson_listener_connected", service="test") == 1)
        async with grows("keelson_listener_lost_total", service="test"):
            assert await admin.fetchval(KILL, "keelson-test-listener") == 1
            await eventually(lambda: value("keelson_listener_connected", service="test") == 0)
            await eventually(lambda: value("keelson_listener_connected", service="test") == 1)


async def test_a_pool_shows_what_it_lends_and_who_waits(database: Database) -> None:
    pool = await open_pool(database.query_dsn, max_size=2, application_name="test")
    watch_pool("test", pool)

    def shown() -> list[float]:
        states = [value("keelson_pool_connections", service="test", state=state) for state in ("open", "idle")]
        others = [value(f"keelson_pool_{name}", service="test") for name in ("max_connections", "waiting")]
        return [*states, *others]

    assert shown() == [0, 0, 2, 0]
    async with pool.acquire():
        assert shown() == [1, 0, 2, 0]
        async with pool.acquire():
            waiting = asyncio.create_task(pool.fetchval("SELECT 1"))
            await eventually(lambda: shown() == [2, 0, 2, 1])
        assert await waiting == 1
        assert shown() == [2, 1, 2, 0]
    waiting = asyncio.create_task(pool.fetchval("SELECT 1"))
    waiting.cancel()
    await asyncio.wait([waiting])
    assert shown() == [2, 2, 2, 0]
    await pool.close()


async def test_waits_for_positions_are_counted_where_somebody_waited(database: Database) -> None:
    pool = await open_pool(database.query_dsn, application_name="test")
    listener = service_listener("test", settings_of(database), Epochs(), CHANNEL)
    checkpoints = Checkpoints(pool, listener, poll_interval_s=0.05)
    async with background(checkpoints.run()), connected(database.projector_dsn) as projector:
        await projector.execute(
            "INSERT INTO ops.checkpoints (projection, version, position, state) VALUES ('a', 1, 5, 'running')"
        )
        async with grows("keelson_position_wait_seconds_count", reached="true"):
            assert await checkpoints.wait_for(("a",), 5, 10)
            assert await checkpoints.wait_for(("a",), 5, 10), "which waits for nothing"
        async with grows("keelson_position_wait_seconds_count", reached="false"):
            assert not await checkpoints.wait_for(("a",), 6, 0.01)
    await pool.close()


async def test_a_projection_is_shown_as_held_by_who_holds_it_and_as_read_when_it_was(database: Database) -> None:
    labels = {"projection": "tenancy"}
    async with replica(database), pooled(database.projector_dsn) as pool:
        head = await caught_up(pool)
        assert value("keelson_projection_held", **labels) == 1
        read_at = value("keelson_projection_read_timestamp_seconds")
        await eventually(lambda: value("keelson_projection_read_timestamp_seconds") > read_at)
        await eventually(lambda: value("keelson_projection_checkpoint", **labels) == head)
        assert value("keelson_log_head") == head
        assert value("keelson_projection_running", **labels) == 1
        assert value("keelson_projection_lag_events", **labels) == 0
    assert value("keelson_projection_held", **labels) == 0


async def test_a_loop_that_is_kept_busy_is_shown_as_late() -> None:
    name = "keelson_event_loop_delay_seconds"
    async with background(loop_delay.keep_measuring()):
        late = value(f"{name}_count") - value(f"{name}_bucket", le="0.1")
        await asyncio.sleep(0)  # it begins to measure
        time.sleep(loop_delay.SAMPLED_EACH_S + 0.2)  # noqa: ASYNC251 - to block the loop is the point
        await eventually(lambda: value(f"{name}_count") - value(f"{name}_bucket", le="0.1") == late + 1)
