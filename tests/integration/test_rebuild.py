"""Rebuilding beside the live tables: events arrive, readers read, processes die, and nobody sees a gap (F23)."""

import asyncio
from collections.abc import Collection
from typing import Any

import asyncpg
import msgspec
import pytest

from keelson.events.app import AppCreated
from keelson.events.org import OrgCreated, OrgRenamed
from keelson.log.database import Connection, Pool
from keelson.projector import checkpoints
from keelson.projector import rebuild as rebuilding
from keelson.projector.batch import Batch
from keelson.projector.checkpoints import read_checkpoint
from keelson.projector.leases import Leases
from keelson.projector.pages import read_batch, read_through
from keelson.projector.rebuild import Options, RebuildError, lease_of, rebuild
from keelson.projector.status import complaints
from keelson.projector.verify import verify
from keelson.service.standing import read_standing
from keelson.views import PROJECTIONS, DerivedView, Projection, sql
from keelson.views.platform import APPS, PLATFORM
from keelson.views.tenancy import ORGS, PROJECTS, TENANCY, org_created, org_renamed
from support.database import Database
from support.log import begin_epoch, waits_for_lock
from support.projecting import assert_views_equal_fold, caught_up, connected, item_of, pooled, replica
from support.story import Story, insert
from support.waiting import eventually

SMALL = Options(page_size=50, lease_wait_s=5)


class AppCount(msgspec.Struct, frozen=True):
    """How many apps a project has had, and the last event of any of them."""

    project_id: str
    apps: int
    position: int


COUNT_APPS = "SELECT project_id, count(*) AS apps, max(position) AS position FROM apps GROUP BY project_id"
APP_COUNTS = DerivedView(name="app_counts", row=AppCount, key=("project_id",), select=COUNT_APPS)


def deriving(*derived: DerivedView, version: int = PLATFORM.version) -> Projection:
    """Give the projection `platform` with other derived views."""
    projection = Projection("platform", version=version, tables=PLATFORM.tables, derived=derived)
    projection._handlers = PLATFORM._handlers
    return projection


def leases_of(pool: Pool, holder: str = "rebuilder") -> Leases:
    return Leases(pool, holder, duration_s=10)


@pytest.mark.parametrize("name", PROJECTIONS)
async def test_a_rebuild_gives_the_same_views(database: Database, name: str) -> None:
    lines: list[str] = []
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        await insert(owner, Story(seed=2, first=2).tell(400))
        async with replica(database):
            head = await caught_up(pool)
        position = await rebuild(PROJECTIONS[name], pool, leases_of(pool), lines.append, SMALL)

        assert position == head
        assert (await verify(PROJECTIONS[name], pool)).is_good
        await assert_views_equal_fold(pool)
    assert lines[-1] == f"swapped at position {head:,}"


async def test_a_rebuild_of_what_never_began_begins_it(database: Database) -> None:
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        await insert(owner, Story(seed=3, first=2).tell(50))
        await rebuild(TENANCY, pool, leases_of(pool), lambda _: None)

        await assert_views_equal_fold(pool, {"tenancy": TENANCY})


async def test_f23_readers_see_no_gap_while_events_arrive(database: Database) -> None:
    """Positions never go back, lists are never empty, and what is swapped in is complete."""
    story = Story(seed=4, first=2)
    rebuilt = asyncio.Event()

    async def append() -> None:
        async with connected(database.owner_dsn) as owner:
            while not rebuilt.is_set():
                await insert(owner, story.tell(5))

    async def read() -> int:
        page = sql.select_page(APPS, (), deleted=True)
        seen, reads = 0, 0
        async with connected(database.query_dsn) as reader:
            while not rebuilt.is_set():
                rows = await reader.fetch(page, "platform", "", 1000)
                assert rows[0]["found"], "a reader saw an empty table"
                assert rows[0]["checkpoint"] >= seen, "a reader saw the position go back"
                assert all(row["position"] <= row["checkpoint"] for row in rows)
                seen, reads = rows[0]["checkpoint"], reads + 1
        return reads

    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool, replica(database):
        await insert(owner, story.tell(300))
        await caught_up(pool)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(append())
            readers = [tasks.create_task(read()) for _ in range(3)]
            for _ in range(3):
                await rebuild(PLATFORM, pool, leases_of(pool), lambda _: None, SMALL)
            rebuilt.set()
        await caught_up(pool)

        await assert_views_equal_fold(pool)
    assert all(reader.result() > 10 for reader in readers)


async def test_a_second_rebuild_is_refused_while_one_runs(database: Database) -> None:
    async with pooled(database.projector_dsn) as pool:
        await leases_of(pool, "another").take([lease_of(TENANCY)])

        with pytest.raises(RebuildError, match="being rebuilt by another process"):
            await rebuild(TENANCY, pool, leases_of(pool), lambda _: None, Options(lease_wait_s=0.3))


async def test_a_frozen_rebuild_is_fenced_off_when_another_takes_over(database: Database) -> None:
    """The lease is checked in each transaction: whoever wakes up late writes nothing into the other's tables."""
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:

        class Frozen(Leases):
            """Wakes up, after it took its lease, to find that another has it."""

            async def take(self, names: Collection[str]) -> None:
                await super().take(names)
                await owner.execute("UPDATE ops.leases SET holder = 'another'")

        with pytest.raises(RebuildError, match="another rebuild has taken over"):
            await rebuild(TENANCY, pool, Frozen(pool, "frozen", duration_s=10), lambda _: None, SMALL)


async def test_a_poison_event_ends_a_rebuild_and_leaves_the_live_tables(database: Database) -> None:
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        await insert(owner, Story(seed=7, first=2).tell(50))
        async with replica(database):
            head = await caught_up(pool)
        newer = Projection("tenancy", version=TENANCY.version + 1, tables=(ORGS, PROJECTS))

        with pytest.raises(RebuildError, match=r"event 2 \(org.created\) cannot be applied: orgs has no row org_"):
            await rebuild(newer, pool, leases_of(pool), lambda _: None, SMALL)

        checkpoint = await read_checkpoint(pool, "tenancy")
        assert checkpoint is not None
        assert (checkpoint.version, checkpoint.position, checkpoint.state) == (TENANCY.version, head, "running")
        await assert_views_equal_fold(pool)


async def test_a_swap_gives_way_to_a_reader_who_takes_long(database: Database) -> None:
    lines: list[str] = []
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        await insert(owner, Story(seed=8, first=2).tell(50))
        async with replica(database):
            await caught_up(pool)
        async with connected(database.query_dsn) as reader, asyncio.TaskGroup() as tasks:
            transaction = reader.transaction()
            await transaction.start()
            await reader.fetch(sql.select_all(APPS))
            rebuilding = tasks.create_task(rebuild(PLATFORM, pool, leases_of(pool), lines.append, SMALL))
            await eventually(lambda: "the live tables are in use; trying again" in lines)
            await transaction.rollback()
            await rebuilding

        await assert_views_equal_fold(pool)


@pytest.mark.parametrize("before", ["create_tables", "create_indexes"])
async def test_f26_a_rebuild_ends_where_another_epoch_begins(
    database: Database, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """What it has folded may be of events that the log never had; the live tables are not exchanged for that."""
    real = getattr(checkpoints, before)

    async def once_another_has_begun(*arguments: Any) -> None:
        async with connected(database.owner_dsn) as owner:
            await begin_epoch(owner, "later")
        await real(*arguments)

    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        await insert(owner, Story(seed=13, first=2).tell(20))
        async with replica(database):
            head = await caught_up(pool)
        monkeypatch.setattr(checkpoints, before, once_another_has_begun)
        with pytest.raises(RebuildError, match="another epoch has begun"):
            await rebuild(TENANCY, pool, leases_of(pool), lambda _: None, SMALL)
        assert (await item_of(pool, "tenancy")).checkpoint == head
        monkeypatch.undo()
        assert await rebuild(TENANCY, pool, leases_of(pool), lambda _: None, SMALL) == head + 1


async def test_f23_a_swap_holds_the_checkpoint_while_it_reads_the_rest(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a page could be applied to the old tables after the rest was read, and be missing in the new ones."""
    refused = []

    async def read_while_another_moves_it(db: Any, *arguments: Any) -> Batch:
        if not isinstance(db, Pool):
            async with connected(database.projector_dsn) as other:
                await other.execute("SET lock_timeout = '50ms'")
                with pytest.raises(asyncpg.LockNotAvailableError):
                    await other.execute("UPDATE ops.checkpoints SET position = position WHERE projection = 'tenancy'")
            refused.append(db)
        return await read_batch(db, *arguments)

    monkeypatch.setattr(rebuilding, "read_batch", read_while_another_moves_it)
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        await insert(owner, Story(seed=10, first=2).tell(20))
        await rebuild(TENANCY, pool, leases_of(pool), lambda _: None, SMALL)
        assert refused
        await assert_views_equal_fold(pool, {"tenancy": TENANCY})


async def test_f23_what_comes_just_before_the_swap_is_in_the_new_tables(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events arrive each time that the rebuild believes it has caught up: the last ones are the swap's own to apply."""
    story, activity = Story(seed=12, first=2), PROJECTIONS["activity"]  # of which each event makes a row

    async def read_as_more_comes(*arguments: Any) -> int:
        position = await read_through(*arguments)
        async with connected(database.owner_dsn) as owner:
            await insert(owner, story.tell(5))
        return position

    monkeypatch.setattr(rebuilding, "read_through", read_as_more_comes)
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        await insert(owner, story.tell(20))
        position = await rebuild(activity, pool, leases_of(pool), lambda _: None, SMALL)
        assert position == (await read_batch(pool, 0, 1)).head == (await item_of(pool, "activity")).checkpoint
        await assert_views_equal_fold(pool, {"activity": activity})


async def test_f23_a_swap_keeps_readers_waiting_only_so_long(database: Database) -> None:
    """Whoever reads while the swap waits for another reader queues behind it: the swap gives way long before all do."""
    async with (
        connected(database.owner_dsn) as owner,
        connected(database.admin_dsn) as admin,
        connected(database.query_dsn) as slow,
        connected(database.query_dsn) as reader,
        pooled(database.projector_dsn, lock_timeout="60000") as pool,
    ):
        await insert(owner, Story(seed=11, first=2).tell(20))
        async with replica(database):
            await caught_up(pool)
        transaction = slow.transaction()
        await transaction.start()
        await slow.fetch(sql.select_all(APPS))
        rebuilding_it = asyncio.create_task(rebuild(PLATFORM, pool, leases_of(pool), lambda _: None, SMALL))
        await eventually(lambda: waits_for_lock(admin, "keelson-tests"))
        async with asyncio.timeout(10):
            await reader.fetch(sql.select_all(APPS))
        await transaction.rollback()
        await rebuilding_it
        await assert_views_equal_fold(pool)


async def test_a_rebuild_as_another_version_drops_the_tables_of_the_old(database: Database) -> None:
    """Also those that the new version does not have; replicas of the old version do not run it any more."""
    story = Story(seed=9, first=2)
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        await insert(owner, story.tell(50))
        async with replica(database) as old:
            await caught_up(pool)
            newer = Projection("tenancy", version=TENANCY.version + 1, tables=(ORGS,))
            newer.on(OrgCreated)(org_created)
            newer.on(OrgRenamed)(org_renamed)
            head = await rebuild(newer, pool, leases_of(pool), lambda _: None)

            await insert(owner, story.tell(20))
            await caught_up(pool, "platform", "activity")
            assert await pool.fetchval("SELECT to_regclass('views.projects') IS NULL")
            assert (await item_of(pool, "tenancy")).checkpoint == head
            complaint = f"tenancy needs rebuild: stored version {newer.version}, code has {TENANCY.version}"
            assert complaint in complaints(await read_standing(pool), old.projections)


async def test_a_rebuild_as_another_version_brings_the_tables_that_it_adds(database: Database) -> None:
    older = Projection("tenancy", version=TENANCY.version - 1, tables=(ORGS,))
    older.on(OrgCreated)(org_created)
    older.on(OrgRenamed)(org_renamed)
    async with (
        connected(database.owner_dsn) as owner,
        pooled(database.projector_dsn) as pool,
        connected(database.query_dsn) as query,
    ):
        await insert(owner, Story(seed=14, first=2).tell(50))
        await rebuild(older, pool, leases_of(pool), lambda _: None)
        assert await pool.fetchval("SELECT to_regclass('views.projects') IS NULL")
        await rebuild(TENANCY, pool, leases_of(pool), lambda _: None)

        await assert_views_equal_fold(pool, {"tenancy": TENANCY})
        assert await query.fetch(sql.select_all(PROJECTS))


async def test_f23_readers_of_a_derived_view_see_no_gap(database: Database) -> None:
    """It is there all the time, and what it says is exact at the checkpoint that is read with it."""
    story, projection = Story(seed=15, first=2), deriving(APP_COUNTS)
    created: list[int] = []
    rebuilt = asyncio.Event()

    async def append(owner: Connection, commands: int) -> None:
        envelopes = story.tell(commands)
        created.extend(each.position for each in envelopes if each.type == AppCreated.event_type)
        await insert(owner, envelopes)

    async def append_on() -> None:
        async with connected(database.owner_dsn) as owner:
            while not rebuilt.is_set():
                await append(owner, 5)

    async def read() -> int:
        page = sql.select_page(APP_COUNTS, (), deleted=True)
        seen, reads = 0, 0
        async with connected(database.query_dsn) as reader:
            while not rebuilt.is_set():
                rows = await reader.fetch(page, "platform", "", 1000)
                checkpoint = rows[0]["checkpoint"]
                assert checkpoint >= seen, "a reader saw the position go back"
                assert sum(row["apps"] for row in rows) == sum(position <= checkpoint for position in created)
                assert all(row["position"] <= checkpoint for row in rows)
                seen, reads = checkpoint, reads + 1
        return reads

    async with (
        connected(database.owner_dsn) as owner,
        pooled(database.projector_dsn) as pool,
        replica(database, projections={"platform": projection}),
    ):
        await append(owner, 300)
        await caught_up(pool, "platform")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(append_on())
            readers = [tasks.create_task(read()) for _ in range(3)]
            for _ in range(3):
                await rebuild(projection, pool, leases_of(pool), lambda _: None, SMALL)
            rebuilt.set()
    assert all(reader.result() > 10 for reader in readers)


async def test_a_rebuild_exchanges_the_derived_views_of_one_version_for_those_of_another(database: Database) -> None:
    renamed = DerivedView(name="counted_apps", row=AppCount, key=("project_id",), select=COUNT_APPS)
    older, newer = deriving(APP_COUNTS), deriving(renamed, version=PLATFORM.version + 1)
    async with (
        connected(database.owner_dsn) as owner,
        pooled(database.projector_dsn) as pool,
        connected(database.query_dsn) as query,
    ):
        await insert(owner, Story(seed=16, first=2).tell(50))
        await rebuild(older, pool, leases_of(pool), lambda _: None)
        counted = await query.fetch(sql.select_all(APP_COUNTS))
        assert counted
        await rebuild(newer, pool, leases_of(pool), lambda _: None)

        assert await query.fetch(sql.select_all(renamed)) == counted
        assert await pool.fetchval("SELECT to_regclass('views.app_counts') IS NULL")
        await rebuild(PLATFORM, pool, leases_of(pool), lambda _: None)
        assert await pool.fetchval("SELECT to_regclass('views.counted_apps') IS NULL")
        assert (await verify(PLATFORM, pool)).is_good


async def test_a_derived_view_gives_what_it_declares_or_is_not_made(database: Database) -> None:
    wrong = DerivedView(name="wrong", row=AppCount, key=("project_id",), select="SELECT project_id FROM apps")
    async with pooled(database.projector_dsn) as pool:
        with pytest.raises(asyncpg.UndefinedColumnError):
            await rebuild(deriving(wrong), pool, leases_of(pool), lambda _: None)
        assert await pool.fetchval("SELECT to_regclass('views.apps') IS NULL"), "all of it or nothing"
