"""Every wait on the database has a bound, here and on the server, and what is not durable or has gaps is not worked on.

Each bound is tried by itself, where no other one would come first.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest
from structlog.testing import capture_logs

from keelson.local.postgres import Postgres
from keelson.log.append import Appender, AppendUnavailableError
from keelson.log.database import UNAVAILABLE, Connection, NotDurableError, Pool, check_durable, open_pool
from keelson.log.decision import Done
from keelson.projector.pages import LogGapError, read_batch
from support.database import Database, running_server
from support.decisions import an_app, decide
from support.keys import DIGEST_KEY, SECRET_KEYS
from support.log import PATIENCE_S, append, appending, assert_sound, connected, plant, waits_for_lock
from support.proxy import proxied
from support.story import Story, insert
from support.waiting import eventually, free_port

SHORT_S = 0.3
SOON_S = 8.0
LONG_S = 30.0
# What a session hears that the server ends, as the one message or the other comes first.
ENDED = (asyncpg.TransactionTimeoutError, asyncpg.PostgresConnectionError)


@asynccontextmanager
async def pooled(
    dsn: str, *, max_size: int = 1, acquire_timeout_s: float = LONG_S, statement_timeout_s: float = LONG_S
) -> AsyncIterator[Pool]:
    """Lend a pool as services open it, none of whose bounds is short but what is asked for."""
    pool = await open_pool(
        dsn,
        max_size=max_size,
        acquire_timeout_s=acquire_timeout_s,
        statement_timeout_s=statement_timeout_s,
        application_name="keelson-tests",
    )
    try:
        yield pool
    finally:
        await pool.close(timeout_s=1)


@asynccontextmanager
async def head_locked(database: Database) -> AsyncIterator[None]:
    """Hold the log's head."""
    async with connected(database.owner_dsn) as holder, holder.transaction():
        await holder.execute("SELECT FROM log.head FOR UPDATE")
        yield


async def lock_head(connection: Connection) -> None:
    """Lock the log's head for a moment, which must be possible soon."""
    async with asyncio.timeout(SOON_S):
        await connection.execute("SELECT FROM log.head FOR UPDATE")


async def be_busy(connection: Connection) -> None:
    """Be neither idle nor slow, until the server ends it."""
    async with asyncio.timeout(SOON_S):
        while True:
            await connection.execute("SELECT pg_sleep(0.05)")


# F2, F8: what the log and the server must be.


async def test_f2_a_gap_in_the_log_is_an_alarm_and_nothing_is_read_past_it(database: Database) -> None:
    story = Story(seed=3, first=2)
    before, missing, later = (story.tell(10) for _ in range(3))
    async with connected(database.owner_dsn) as owner:
        await insert(owner, before)
        await insert(owner, later)
        gap, head = before[-1].position, later[-1].position
        for after, limit in ((0, 1000), (gap, 1000), (gap, 1)):
            with pytest.raises(LogGapError, match="positions are missing"):
                await read_batch(owner, after, limit)
        assert (await read_batch(owner, 0, gap)).end == gap
        assert (await read_batch(owner, missing[-1].position, 1000)).end == head


@pytest.mark.parametrize("service", ["command", "projector", "query"])
async def test_f8_a_service_does_not_start_on_what_is_not_durable(database: Database, service: str) -> None:
    async with connected(database.admin_dsn) as admin:
        await admin.execute(f"ALTER DATABASE {database.name} SET synchronous_commit = off")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"keelson.{service}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("KEELSON_")},
            "KEELSON_DATABASE_URL": getattr(database, f"{service}_dsn"),
            "KEELSON_PORT": str(free_port()),
            "KEELSON_OPERATOR_TOKEN": "operator-token-of-a-test",
            "KEELSON_IDEMPOTENCY_SECRET": "idempotency-secret-of-a-test",
            "KEELSON_SECRET_KEYS": SECRET_KEYS,
            "KEELSON_DIGEST_KEY": DIGEST_KEY,
        },
    )
    try:
        async with asyncio.timeout(SOON_S):
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 2
    assert errors.decode() == "keelson: PostgreSQL runs with synchronous_commit off; Keelson needs it on\n"


@pytest.fixture(scope="module")
def careless_server() -> Iterator[Postgres]:
    """Start a server that does not wait for its disk."""
    with running_server({"fsync": "off"}) as server:
        yield server


async def test_f8_a_server_that_does_not_wait_for_its_disk_is_refused(careless_server: Postgres) -> None:
    async with connected(careless_server.url()) as connection:
        with pytest.raises(NotDurableError, match="runs with fsync off"):
            await check_durable(connection)


# F5: the head is held.


async def test_f5_the_server_ends_an_append_that_waits_for_the_head(database: Database) -> None:
    """And so its outcome is known; this side gives up later, and would not know."""
    with capture_logs() as logged:
        async with appending(database.command_dsn, call_timeout_s=3) as (appender, epoch):
            async with head_locked(database):
                waiting = asyncio.create_task(appender.append(decide(epoch, an_app()), PATIENCE_S))
                await eventually(lambda: [each for each in logged if each["event"] == "append_interrupted"])
            assert isinstance(await waiting, Done)
    assert logged[0]["error"] == "QueryCanceledError"


async def test_f5_no_transaction_of_the_writers_holds_the_head_for_long(database: Database) -> None:
    """Whatever it does there: also if half of a message has come, and no statement runs that could be ended."""
    appender = Appender(database.owner_dsn, call_timeout_s=0.6)
    writer = await appender._connect()
    try:
        if writer.get_server_version().major < 17:
            pytest.skip("PostgreSQL bounds whole transactions from 17 on")
        async with connected(database.owner_dsn) as other:
            await writer.execute("BEGIN; SELECT FROM log.head FOR UPDATE")
            with pytest.raises(ENDED, match="transaction timeout"):
                await be_busy(writer)
            await lock_head(other)
    finally:
        writer.terminate()


async def test_f5_a_session_that_stops_within_a_transaction_frees_its_locks(database: Database) -> None:
    freed = False
    async with pooled(database.owner_dsn) as pool, connected(database.owner_dsn) as other:
        with suppress(*UNAVAILABLE):  # it is not this session that is asked whether it still lives
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("SELECT FROM log.head FOR UPDATE")
                await lock_head(other)
                freed = True
    assert freed


# F10: the disk is full. tests/system/test_disk_full.py fills one; this is what the server says then.

LOCK = "SELECT * INTO STRICT h FROM log.head FOR UPDATE;"
FULL = f"{LOCK} RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full';"


async def test_f10_what_a_full_disk_refuses_is_tried_again(database: Database) -> None:
    with capture_logs() as logged:
        async with appending(database.command_dsn) as (appender, epoch), connected(database.admin_dsn) as admin:
            await plant(database.admin_dsn, "append_v2", (LOCK, FULL))
            waiting = asyncio.create_task(appender.append(decide(epoch, an_app()), PATIENCE_S))
            await eventually(lambda: [each for each in logged if each["event"] == "append_interrupted"])
            await plant(database.admin_dsn, "append_v2", (FULL, LOCK))
            assert isinstance(await waiting, Done)
            assert len(await assert_sound(admin)) == 2
    assert {each["error"] for each in logged} == {"DiskFullError"}


# F39: the pool is used up, the server too slow or silent.


async def test_f39_a_connection_of_a_pool_that_is_used_up_is_waited_for_only_so_long(database: Database) -> None:
    async with pooled(database.query_dsn, acquire_timeout_s=SHORT_S) as pool, pool.acquire():
        async with asyncio.timeout(SOON_S) as patience:
            with pytest.raises(TimeoutError):
                await pool.fetchval("SELECT 1")
        assert not patience.expired()


async def test_f39_the_server_ends_a_statement_that_takes_too_long(database: Database) -> None:
    async with pooled(database.query_dsn, statement_timeout_s=SHORT_S) as pool:
        with pytest.raises(asyncpg.QueryCanceledError, match="statement timeout"):
            await pool.fetchval("SELECT pg_sleep(60)")
        assert await pool.fetchval("SELECT 1") == 1


async def test_f39_a_server_that_no_longer_answers_is_given_up(database: Database) -> None:
    async with (
        proxied(database.query_dsn) as proxy,
        pooled(proxy.url(database.query_dsn), statement_timeout_s=SHORT_S) as pool,
    ):
        assert await pool.fetchval("SELECT 1") == 1
        proxy.to_client.swallow()
        reading = asyncio.create_task(pool.fetchval("SELECT 1"))
        given_up, _ = await asyncio.wait([reading], timeout=SOON_S)
        proxy.cut()  # whoever waits on, waits also when cancelled: for the server
        assert given_up
        with pytest.raises(TimeoutError):
            await reading


# F40: whoever asked has left.


async def test_f40_who_leaves_while_the_append_is_in_flight_ends_nothing(database: Database) -> None:
    """The append goes on, and so does the writer; another who waits for the same group gets an answer."""
    async with (
        appending(database.command_dsn, application_name="writer") as (appender, epoch),
        connected(database.admin_dsn) as admin,
    ):
        async with head_locked(database):
            leaving, staying = (
                asyncio.create_task(appender.append(decide(epoch, an_app()), PATIENCE_S)) for _ in range(2)
            )
            await eventually(lambda: waits_for_lock(admin, "writer"))
            leaving.cancel()
            late = asyncio.create_task(appender.append(decide(epoch, an_app()), SHORT_S))
            with pytest.raises(AppendUnavailableError):
                await late
        assert isinstance(await staying, Done)
        assert leaving.cancelled()
        (after,) = await append(appender, decide(epoch, an_app()))
        assert isinstance(after, Done)
        assert len(await assert_sound(admin)) == 4


async def test_f40_a_connection_whose_state_is_unknown_is_lent_to_nobody(database: Database) -> None:
    """As when the server dies between the messages of one statement."""
    async with pooled(database.query_dsn) as pool:
        used = await pool.fetchval("SELECT pg_backend_pid()")
        with suppress(asyncpg.InternalClientError):
            async with pool.acquire():
                raise asyncpg.InternalClientError("unexpected message")
        assert await pool.fetchval("SELECT pg_backend_pid()") != used
        assert pool.idle == pool.size == 1


async def test_f40_who_is_cancelled_is_cancelled_also_when_the_connection_is_lost_by_then(database: Database) -> None:
    async with pooled(database.query_dsn) as pool:
        borrowed = asyncio.Event()

        async def work() -> None:
            async with pool.acquire() as connection, connection.transaction():
                try:
                    borrowed.set()
                    await asyncio.Event().wait()
                finally:
                    connection.terminate()

        working = asyncio.create_task(work())
        await borrowed.wait()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert await pool.fetchval("SELECT 1") == 1
        assert pool.idle == pool.size == 1
