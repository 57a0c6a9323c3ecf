"""F26 in one server: a head that tells of another lineage, as a restore or a promotion leaves it, and who notices."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import msgspec
import pytest

from keelson.events import Envelope
from keelson.log import database as connecting
from keelson.log import epochs as entering
from keelson.log.append import Appender, AppendUnavailableError
from keelson.log.database import UNAVAILABLE, connect_to_log, open_pool
from keelson.log.decision import Done, Moved
from keelson.log.epochs import Epochs, LineageError
from keelson.log.migrate import migrate
from keelson.log.read import read_head
from support.database import Cluster, Database
from support.decisions import an_app, decide
from support.log import (
    append,
    append_group,
    appending,
    assert_sound,
    begin_epoch,
    connected,
    plant,
    read_all,
    read_epoch,
    running,
    waits_for_lock,
)
from support.waiting import eventually

ELSEWHERE = {
    "promoted": "UPDATE log.head SET timeline = '00000007'",
    "restored": "UPDATE log.head SET system_identifier = '7'",
}
_REAL = "SELECT pg_control_system()::text LIKE '%' || system_identifier || '%', timeline FROM log.head"


async def go_elsewhere(database: Database, cause: str = "promoted") -> None:
    """Have the head tell of another lineage than the server's, which has become this one's by what the cause says."""
    async with connected(database.admin_dsn) as admin:
        await admin.execute(ELSEWHERE[cause])


async def epochs_of(database: Database) -> list[tuple[Envelope, dict[str, Any]]]:
    """Give the events that began the log's epochs, with their payloads."""
    async with connected(database.admin_dsn) as admin:
        events = await assert_sound(admin)
    return [(each, msgspec.json.decode(each.payload)) for each in events if each.type == "platform.epoch_began"]


@pytest.mark.parametrize("cause", ELSEWHERE)
@pytest.mark.parametrize("role", ["command_dsn", "projector_dsn", "query_dsn", "owner_dsn"])
async def test_f26_whoever_connects_first_begins_the_epoch_as_an_event(
    database: Database, role: str, cause: str
) -> None:
    async with connected(database.admin_dsn) as admin:
        before = await read_head(admin)
    await go_elsewhere(database, cause)
    known = Epochs()
    connection = await connect_to_log(getattr(database, role), application_name="the-first", epochs=known)
    async with connected(database.admin_dsn) as admin:
        after = await read_head(admin)
        assert [tuple(row) for row in await admin.fetch(_REAL)] == [(True, "00000001")]
    assert connection.epoch == known.name == after.epoch != before.epoch
    connection.terminate()
    [_, (event, payload)] = await epochs_of(database)
    assert event.position == after.position == before.position + 1
    assert payload == {"epoch": after.epoch, "previous": before.epoch, "forked_at": before.position, "cause": cause}
    assert (event.actor_type, event.actor_id) == ("system", "lineage")
    assert event.reason is not None
    assert event.reason.endswith("found by the-first")


async def test_f26_of_many_connections_at_once_one_begins_the_epoch(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty of three roles, all of which have seen the old head before any of them may look again."""
    await go_elsewhere(database)
    roles = [database.command_dsn, database.projector_dsn, database.query_dsn]
    async with connected(database.admin_dsn) as admin, connected(database.owner_dsn) as holder:
        # However long a busy machine takes until the last is there, the first still waits.
        monkeypatch.setattr(connecting, "CONNECT_TIMEOUT_S", 120.0)
        await holder.execute("ALTER FUNCTION log.renew_epoch_v1 SET lock_timeout = '60s'")
        async with holder.transaction():
            await holder.execute("SELECT FROM log.head FOR UPDATE")
            opening = [
                asyncio.create_task(connect_to_log(roles[n % 3], application_name=f"racer-{n}")) for n in range(20)
            ]
            for n in range(20):
                await eventually(lambda n=n: waits_for_lock(admin, f"racer-{n}"))  # type: ignore[misc]
        opened = await asyncio.gather(*opening)
    for each in opened:
        each.terminate()
    [_, (event, payload)] = await epochs_of(database)
    assert {each.epoch for each in opened} == {payload["epoch"]}
    assert event.position == 2


async def test_f26_nothing_begins_where_nothing_has_changed(database: Database) -> None:
    pool = await open_pool(database.query_dsn, max_size=3, application_name="test")
    async with appending(database.command_dsn) as (appender, epoch), pool.acquire(), pool.acquire():
        await append(appender, decide(epoch, an_app()))
        (await connect_to_log(database.projector_dsn, application_name="test")).terminate()
    await pool.close()
    async with connected(database.owner_dsn) as owner:
        assert await migrate(owner) == []
    assert len(await epochs_of(database)) == 1


async def test_f26_a_migration_begins_the_epoch_of_what_was_restored(database: Database) -> None:
    await go_elsewhere(database, "restored")
    async with connected(database.owner_dsn) as owner:
        await migrate(owner)
    [_, (event, payload)] = await epochs_of(database)
    assert payload["cause"] == "restored"
    assert event.reason is not None
    assert event.reason.endswith("found by keelson migrate")


async def test_f26_the_epoch_is_durable_also_through_a_session_that_need_not_be(database: Database) -> None:
    """As the projector's announcer is: its commits wait for no disk, and no standby."""
    seen = "CREATE TABLE log.seen AS SELECT ''::text AS setting LIMIT 0"
    trigger = """
        CREATE FUNCTION log.see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN INSERT INTO log.seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER see AFTER INSERT ON log.events DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION log.see()
    """
    async with connected(database.admin_dsn) as admin:
        await admin.execute(seen)
        await admin.execute(trigger)
        await go_elsewhere(database)
        connection = await connect_to_log(
            database.projector_dsn, application_name="announcer", synchronous_commit="off"
        )
        assert await connection.fetchval("SHOW synchronous_commit") == "off"
        connection.terminate()
        # As of the commit itself: a deferred trigger is the last that runs before it.
        assert await admin.fetchval("SELECT setting FROM log.seen") == "on"


async def test_f26_a_head_that_is_held_makes_the_connection_wait_no_longer_than_others_may(database: Database) -> None:
    await go_elsewhere(database)
    pool = await open_pool(database.query_dsn, application_name="test", acquire_timeout_s=4)
    async with connected(database.owner_dsn) as holder:
        async with holder.transaction():
            await holder.execute("SELECT FROM log.head FOR UPDATE")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await pool.fetchval("SELECT 1")
        assert len(await epochs_of(database)) == 1
        assert await pool.fetchval("SELECT epoch FROM log.head") != await _first_epoch(database)
    await pool.close()


async def _first_epoch(database: Database) -> str:
    return str((await epochs_of(database))[0][1]["epoch"])


async def test_f26_a_pool_lends_nothing_that_was_opened_in_an_epoch_that_has_ended(database: Database) -> None:
    known = Epochs()
    pool = await open_pool(database.query_dsn, max_size=2, application_name="test", epochs=known)
    async with pool.acquire() as one, pool.acquire() as two:
        before = {one.get_server_pid(), two.get_server_pid()}
    async with connected(database.owner_dsn) as owner:
        await begin_epoch(owner, "later")
    assert (await pool.fetchval("SELECT pg_backend_pid()")) in before  # nobody has told it
    known.learn("later")
    async with pool.acquire() as one, pool.acquire() as two:
        assert before.isdisjoint({one.get_server_pid(), two.get_server_pid()})
    await pool.close()


async def test_f26_a_server_that_was_replaced_is_refused(database: Database) -> None:
    """It may live on, and be connected to again: by who has seen its successor it is not."""
    known = Epochs()
    pool = await open_pool(database.command_dsn, application_name="test", epochs=known)
    assert await pool.fetchval("SELECT 1") == 1
    async with appending(database.command_dsn, epochs=known) as (appender, epoch):
        await append(appender, decide(epoch, an_app()))
        known.learn("later")  # from whoever was connected to the other server first
        with pytest.raises(LineageError, match="an epoch that has ended"):
            await pool.fetchval("SELECT 1")
        assert issubclass(LineageError, UNAVAILABLE)
        with pytest.raises(LineageError):
            appender.enter_epoch(epoch)
        assert await append(appender, decide(epoch, an_app())) == [Moved()]
        # Its connection is of before: what it sends there is refused, and then so is the server.
        with pytest.raises(AppendUnavailableError):
            await append(appender, decide("later", an_app()), timeout_s=1.0)
    await pool.close()
    assert len(await epochs_of(database)) == 1
    async with connected(database.admin_dsn) as admin:
        assert (await read_head(admin)).position == 2


@pytest.mark.parametrize("role", ["command_dsn", "projector_dsn", "query_dsn", "owner_dsn"])
async def test_f26_a_server_that_was_replaced_is_refused_also_by_who_never_saw_its_epoch(
    cluster: Cluster, database: Database, role: str
) -> None:
    """A process that began after the failover: the log itself says what has ended, to every role."""
    known = Epochs()
    async with cluster.fresh_database() as replaced:
        for name in ("two", "three"):
            async with connected(database.owner_dsn) as owner:
                await begin_epoch(owner, name)
        assert await _first_epoch(replaced) == await _first_epoch(database)  # as those of a standby and its primary
        (await connect_to_log(getattr(database, role), application_name="test", epochs=known)).terminate()
        for _ in range(2):
            with pytest.raises(LineageError, match="an epoch that has ended"):
                await connect_to_log(getattr(replaced, role), application_name="test", epochs=known)
            (await connect_to_log(getattr(database, role), application_name="test", epochs=known)).terminate()
    assert known.name == "three"


async def test_f26_a_log_that_never_began_a_second_epoch_has_nothing_ended(database: Database) -> None:
    asking = vars(entering)["_READ_ENDED_EPOCHS"]
    async with connected(database.query_dsn) as query, connected(database.owner_dsn) as owner:
        assert await query.fetchval(asking) == []
        for name in ("two", "three"):
            await begin_epoch(owner, name)
        assert await query.fetchval(asking) == [await _first_epoch(database), "two"]


async def test_f26_a_writer_that_reconnects_decides_in_the_new_epoch(database: Database) -> None:
    heard: list[str] = []
    async with appending(database.command_dsn) as (appender, epoch), connected(database.admin_dsn) as admin:
        appender.on_epoch(heard.append)
        await append(appender, decide(epoch, an_app()))
        await go_elsewhere(database)
        await admin.fetchval("SELECT pg_terminate_backend($1)", await _backend_of(admin, "keelson-append"))
        # It was sent on a connection that was lost: whether it is in the history that has ended, nobody can tell.
        with pytest.raises(AppendUnavailableError):
            await append(appender, decide(epoch, an_app()))
        assert appender.epoch != epoch
        assert await append(appender, decide(epoch, an_app())) == [Moved()]
        now = appender.epoch
        assert now is not None
        assert isinstance((await append(appender, decide(now, an_app())))[0], Done)
    assert heard == [now]
    assert [payload["epoch"] for _, payload in await epochs_of(database)] == [epoch, now]


async def _backend_of(admin: "asyncpg.Connection[asyncpg.Record]", name: str) -> int:
    pid: int = await admin.fetchval(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1", name
    )
    return pid


async def test_f26_what_is_no_log_of_this_version_is_not_worked_with(cluster: Cluster, database: Database) -> None:
    """Nor a restored one of an older schema, by services that run: in which epoch it is cannot be told."""
    async with connected(database.owner_dsn) as owner:
        await owner.execute("DROP FUNCTION log.renew_epoch_v1")
    async with cluster.fresh_database(migrated=False) as empty:
        for each in (database, empty):
            pool = await open_pool(each.query_dsn, application_name="test")
            with pytest.raises(LineageError, match="migrations are missing"):
                await pool.fetchval("SELECT 1")
            await pool.close()


async def test_f26_a_log_without_a_head_is_not_worked_with(database: Database) -> None:
    async with connected(database.admin_dsn) as admin:
        await admin.execute("DELETE FROM log.head")
    with pytest.raises(LineageError, match="migrate the database first"):
        await connect_to_log(database.query_dsn, application_name="test")


async def test_f26_who_calls_it_cannot_make_an_epoch_where_none_is_due(database: Database) -> None:
    """Every service may execute the function: nothing comes of it, and no name is theirs to choose."""
    for dsn in (database.command_dsn, database.projector_dsn, database.query_dsn):
        async with connected(dsn) as service:
            epoch, standby = await service.fetchval("SELECT log.renew_epoch_v1('me')")
            assert (epoch, standby) == (await read_epoch(service), False)
    assert len(await epochs_of(database)) == 1


async def test_f26_planted_without_the_second_look_each_begins_an_epoch(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the lock the head is another: whoever does not look again begins an epoch on top of another's."""
    again = """    epoch := h.epoch;
    IF (h.system_identifier, h.timeline) = (system_now, timeline_now) THEN
        RETURN;
    END IF;
    --"""
    await plant(database.admin_dsn, "renew_epoch_v1", (again, "    --"))
    with pytest.raises(ValueError, match="too many values"):
        await test_f26_of_many_connections_at_once_one_begins_the_epoch(database, monkeypatch)


@pytest.mark.parametrize("what", ["pool", "appender"])
async def test_f26_planted_without_the_look_nobody_notices(
    database: Database, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """That every new connection looks is what all of this rests on."""
    text = vars(entering)["_ENTER_LOG"]
    assert "log.renew_epoch_v1(CASE" in text
    monkeypatch.setattr(
        entering, "_ENTER_LOG", "SELECT epoch, false AS standby, $1::text[], $2::text[], $3::text FROM log.head"
    )
    await go_elsewhere(database)
    looking: dict[str, Callable[[], Awaitable[None]]] = {
        "pool": lambda: _use_pool(database),
        "appender": lambda: _use_appender(database),
    }
    await looking[what]()
    with pytest.raises(ValueError, match="not enough values"):
        [_, _] = await epochs_of(database)


async def _use_pool(database: Database) -> None:
    pool = await open_pool(database.query_dsn, application_name="test")
    assert await pool.fetchval("SELECT 1") == 1
    await pool.close()


async def _use_appender(database: Database) -> None:
    async with running(Appender(database.command_dsn)):
        pass


async def test_f26_a_group_of_the_old_epoch_is_refused_as_ever(database: Database) -> None:
    async with connected(database.command_dsn) as connection:
        epoch = await read_epoch(connection)
        await go_elsewhere(database)
        (await connect_to_log(database.query_dsn, application_name="test")).terminate()
        with pytest.raises(asyncpg.PostgresError) as raised:
            await append_group(connection, decide(epoch, an_app()))
        assert raised.value.sqlstate == "KE001"
        assert len(await read_all(connection)) == 2
