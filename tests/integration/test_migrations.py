"""Migrations: from nothing, again, two at once; what an older schema lacks; and never a long queue at a table (F24)."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import pytest

from keelson.events.ids import Position
from keelson.log import migrate as migrating
from keelson.log.decision import Done
from keelson.log.migrate import MIGRATIONS, migrate, pending_migrations
from keelson.log.read import Filter, read_filtered, read_head, read_page
from support.database import Cluster, Database
from support.decisions import an_app, decide
from support.log import PATIENCE_S, append, append_group, appending, assert_sound, connected, read_all, waits_for_lock
from support.waiting import eventually

NAMES = sorted(path.stem for path in MIGRATIONS.glob("*.sql"))


async def test_an_empty_database_becomes_a_log_whose_first_event_begins_its_epoch(cluster: Cluster) -> None:
    async with cluster.fresh_database(migrated=False) as database, connected(database.owner_dsn) as owner:
        assert await pending_migrations(owner) == NAMES
        assert await migrate(owner) == NAMES
        assert await pending_migrations(owner) == []
        (event,) = await assert_sound(owner)
        head = await read_head(owner)
        assert event.type == "platform.epoch_began"
        assert event.payload == (
            f'{{"epoch" : "{head.epoch}", "previous" : null, "forked_at" : null, "cause" : "created"}}'
        )


async def test_migrating_again_changes_nothing(database: Database) -> None:
    async with connected(database.owner_dsn) as owner:
        head = await read_head(owner)
        assert await migrate(owner) == []
        assert await read_head(owner) == head


async def test_of_two_migrations_at_once_one_does_the_work(cluster: Cluster) -> None:
    async with (
        cluster.fresh_database(migrated=False) as database,
        connected(database.owner_dsn) as one,
        connected(database.owner_dsn) as two,
    ):
        assert sorted(await asyncio.gather(migrate(one), migrate(two))) == [[], NAMES]
        assert len(await read_all(one)) == 1


async def test_a_migration_that_fails_leaves_nothing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster.fresh_database(migrated=False) as database, connected(database.owner_dsn) as owner:
        with monkeypatch.context() as patch:
            patch.setattr(migrating, "_BEGIN_FIRST_EPOCH", "SELECT 1 / 0 + length($1)")
            with pytest.raises(asyncpg.DivisionByZeroError):
                await migrate(owner)
        assert await pending_migrations(owner) == NAMES
        assert await owner.fetchval("SELECT to_regnamespace('log')") is None
        assert await migrate(owner) == NAMES


async def test_every_service_sees_which_migrations_its_schema_lacks(database: Database) -> None:
    async with connected(database.owner_dsn) as owner:
        await owner.execute("DELETE FROM public._pogo_migration WHERE migration_id = $1", NAMES[-1])
        for dsn in (database.command_dsn, database.projector_dsn, database.query_dsn):
            async with connected(dsn) as service:
                assert await pending_migrations(service) == [NAMES[-1]]


async def test_a_schema_newer_than_the_code_lacks_nothing(database: Database) -> None:
    async with connected(database.owner_dsn) as owner:
        await owner.execute(
            "INSERT INTO public._pogo_migration SELECT (m).* FROM ("
            ' SELECT jsonb_populate_record(m, \'{"migration_id": "9999-later", "migration_hash": "later"}\') AS m'
            " FROM public._pogo_migration AS m LIMIT 1) AS later"
        )
        assert await pending_migrations(owner) == []
        assert await migrate(owner) == []


@contextmanager
def _shorter_lock_timeout(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    text = migrating._LOCK_MIGRATIONS
    assert "lock_timeout = '5s'" in text
    with monkeypatch.context() as patch:
        patch.setattr(migrating, "_LOCK_MIGRATIONS", text.replace("5s", "1s"))
        yield


async def test_f24_a_migration_waits_for_a_lock_only_so_long(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever queues behind its lock request waits no longer than that; so does a migration behind another."""
    async with (
        connected(database.owner_dsn) as holder,
        connected(database.owner_dsn, "migrating") as owner,
        connected(database.query_dsn) as reader,
        connected(database.admin_dsn) as admin,
    ):
        async with holder.transaction():
            await holder.execute(migrating._LOCK_MIGRATIONS)
            with _shorter_lock_timeout(monkeypatch), pytest.raises(asyncpg.LockNotAvailableError):
                await migrate(owner)
        async with holder.transaction():
            await holder.fetch("SELECT FROM log.events")

            async def alter() -> None:
                async with owner.transaction():
                    await owner.execute(migrating._LOCK_MIGRATIONS)
                    await owner.execute("ALTER TABLE log.events ADD COLUMN later text")

            with _shorter_lock_timeout(monkeypatch):
                altering = asyncio.create_task(alter())
                await eventually(lambda: waits_for_lock(admin, "migrating"))
                async with asyncio.timeout(PATIENCE_S / 2):
                    assert (await read_head(reader)).position == 1
                    await read_page(reader, (await read_head(reader)).position, 1)
                with pytest.raises(asyncpg.LockNotAvailableError):
                    await altering


async def test_f24_a_schema_that_changes_under_cached_plans_is_no_error(database: Database) -> None:
    """An additive change, and a function replaced: the writer and the readers go on with their connections."""
    async with (
        appending(database.command_dsn) as (appender, epoch),
        connected(database.query_dsn, plan_cache_mode="force_generic_plan") as reader,
        connected(database.owner_dsn) as owner,
    ):

        async def work() -> None:
            assert isinstance((await append(appender, decide(epoch, an_app())))[0], Done)
            position = (await read_head(reader)).position
            assert len((await read_page(reader, position, 10)).envelopes) == 0
            page = await read_filtered(reader, Position(0), 10, Filter(type="app.created"), order="desc")
            assert len(page.envelopes) == position - 1

        for _ in range(2):
            await work()
        await owner.execute("ALTER TABLE log.events ADD COLUMN later text")
        await work()
        await owner.execute("CREATE INDEX later ON log.events (later) WHERE later IS NOT NULL")
        await work()
        for function in ("append_v2", "read_filtered_v1"):
            definition = await owner.fetchval("SELECT pg_get_functiondef($1::regproc)", f"log.{function}")
            await owner.execute(definition)
        await work()
        await owner.execute("ALTER TABLE log.events DROP COLUMN later")
        await work()
        assert len(await assert_sound(owner)) == 7


async def test_a_head_that_is_missing_is_named(database: Database) -> None:
    async with connected(database.admin_dsn) as admin:
        await admin.execute("DELETE FROM log.head")
        first = Position(0)
        for read in (read_head(admin), read_page(admin, first, 1), read_filtered(admin, first, 1, Filter())):
            with pytest.raises(LookupError, match="migrate the database first"):
                await read
        with pytest.raises(asyncpg.NoDataFoundError):
            await append_group(admin, decide("epoch", an_app()))
