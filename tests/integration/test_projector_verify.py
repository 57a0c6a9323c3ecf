"""Verification names what drifts, row by row, at exactly one checkpoint; and nothing else."""

import asyncio

import pytest

from keelson.log.database import Connection, Pool
from keelson.projector import verify as verifying
from keelson.projector.leases import Leases
from keelson.projector.rebuild import Options, rebuild
from keelson.projector.verify import VerifyError, verify
from keelson.views import PROJECTIONS, Projection
from keelson.views.platform import ENV_PROCESSES, ENVS, PLATFORM
from keelson.views.tenancy import TENANCY
from support.database import Database
from support.projecting import caught_up, connected, pooled, replica
from support.story import Story, insert


async def begin(database: Database, owner: Connection, pool: Pool) -> None:
    await insert(owner, Story(seed=51, first=2).tell(500))
    async with replica(database):
        await caught_up(pool)


@pytest.mark.parametrize("name", PROJECTIONS)
async def test_views_as_the_log_says_are_good(database: Database, name: str) -> None:
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        await begin(database, owner, pool)
        verdict = await verify(PROJECTIONS[name], pool)

        assert verdict.is_good
        assert all(table.rows > 0 for table in verdict.tables)
        assert not any(table.drifts for table in verdict.tables)


async def test_drift_is_named_by_row_and_column(database: Database) -> None:
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        await begin(database, owner, pool)
        changed, gone = [row["id"] for row in await pool.fetch("SELECT id FROM views.envs ORDER BY id LIMIT 2")]
        name = await pool.fetchval("SELECT name FROM views.envs WHERE id = $1", changed)
        await pool.fetch("UPDATE views.envs SET name = 'another', release_number = 99 WHERE id = $1", changed)
        await pool.fetch("DELETE FROM views.envs WHERE id = $1", gone)
        columns = ", ".join(column.name for column in ENVS.columns if column.name != "id")
        await pool.fetch(f"INSERT INTO views.envs (id, {columns}) SELECT 'zzz', {columns} FROM views.envs LIMIT 1")  # noqa: S608 - names are declared

        verdict = await verify(PLATFORM, pool)
        assert not verdict.is_good
        [drifted] = [table for table in verdict.tables if not table.is_good]
        assert drifted.table == "envs"
        named = {(drift.key, drift.what) for drift in drifted.drifts}
        assert ((changed,), f"name is 'another', should be {name!r}") in named
        assert ((gone,), "is missing") in named
        assert (("zzz",), "should not be there") in named
        assert len(named) == 4


async def test_text_that_is_not_canonical_is_drift(database: Database) -> None:
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        await begin(database, owner, pool)
        await pool.fetch("UPDATE views.env_processes SET command = '[ \"web\" ]'")

        verdict = await verify(PLATFORM, pool)
        assert [table.table for table in verdict.tables if not table.is_good] == [ENV_PROCESSES.name]


async def test_verification_goes_on_while_events_arrive_and_tables_are_swapped(database: Database) -> None:
    """Each verdict is of one snapshot: never half a page, never a table that a swap has emptied for it."""
    story = Story(seed=52, first=2)
    done = asyncio.Event()

    async def append() -> None:
        async with connected(database.owner_dsn) as owner:
            while not done.is_set():
                await insert(owner, story.tell(5))

    async def swap() -> None:
        async with pooled(database.projector_dsn) as pool:
            while not done.is_set():
                await rebuild(PLATFORM, pool, Leases(pool, "r"), lambda _: None, Options(page_size=500))

    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool, replica(database):
        await insert(owner, story.tell(200))
        await caught_up(pool)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(append())
            tasks.create_task(swap())
            checkpoints = []
            for _ in range(8):
                verdict = await verify(PLATFORM, pool)
                assert verdict.is_good, verdict
                checkpoints.append(verdict.checkpoint)
            done.set()
        assert checkpoints == sorted(checkpoints)


async def test_a_table_swapped_after_the_snapshot_is_told_from_an_empty_one(database: Database) -> None:
    """In that snapshot it looks empty, which must not pass for drift: its move is not in the snapshot either."""
    names = [table.name for table in PLATFORM.tables]
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        await begin(database, owner, pool)
        async with pool.acquire() as late, late.transaction(isolation="repeatable_read", readonly=True):
            assert await late.fetchval(verifying._COUNT_UNMOVED, names) == len(names)
            await asyncio.wait_for(rebuild(PLATFORM, pool, Leases(pool, "r"), lambda _: None), timeout=30)

            assert await late.fetchval("SELECT count(*) FROM views.envs") == 0
            assert await late.fetchval(verifying._COUNT_UNMOVED, names) == 0


async def test_what_needs_a_rebuild_cannot_be_verified(database: Database) -> None:
    newer = Projection("tenancy", version=TENANCY.version + 1, tables=TENANCY.tables)
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        with pytest.raises(VerifyError, match="tenancy has not begun"):
            await verify(TENANCY, pool)
        await begin(database, owner, pool)
        versions = f"stored version {TENANCY.version}, code has {newer.version}"
        with pytest.raises(VerifyError, match=f"needs rebuild: {versions}"):
            await verify(newer, pool)
