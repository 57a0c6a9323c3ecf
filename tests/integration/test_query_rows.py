"""Single rows that are asked for at once are read at once; each who asks gets its own, and never an older one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from keelson.events.app import AppCreated, AppRenamed
from keelson.log.database import Pool, open_pool
from keelson.query.confinement import EVERYTHING
from keelson.query.reads import View
from keelson.query.rows import RowReader
from keelson.views import table_named
from support.database import Database
from support.query_world import APP, World, make_id, open_world
from support.waiting import eventually

APPS, ENVS = View(*table_named("apps")), View(*table_named("envs"))


class Gate:
    """A pool whose statements wait at a gate; `asked` counts them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.open = asyncio.Event()
        self.asked = 0
        self.failure: Exception | None = None

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        """Run a statement once the gate is open; or fail as the test says."""
        self.asked += 1
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        return await self._pool.fetch(query, *args)

    fetchrow = fetchval = fetch


@asynccontextmanager
async def reading(database: Database) -> AsyncIterator[tuple[Gate, RowReader]]:
    pool = await open_pool(database.query_dsn, max_size=2, application_name="test-rows")
    gate = Gate(pool)
    rows = RowReader(gate)
    running = asyncio.create_task(rows.run())
    try:
        yield gate, rows
        assert not running.done()
    finally:
        running.cancel()
        await pool.close()


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database) as world:
        await world.append_base()
        for number in range(2, 40):
            await world.append((make_id("app", number), AppCreated(name=f"app-{number}")))
        await world.project()
        yield world


async def name_of(rows: RowReader, app_id: str) -> str | None:
    row = (await rows.read(APPS, app_id, reach=EVERYTHING)).rows.get(app_id)
    return None if row is None else row["name"]


@pytest.mark.usefixtures("world")
async def test_many_who_ask_at_once_share_a_statement_and_get_their_own_rows(database: Database) -> None:
    async with reading(database) as (gate, rows):
        first = asyncio.create_task(name_of(rows, APP))
        await eventually(lambda: gate.asked == 1)
        numbers = [*range(2, 60), *range(2, 10)]
        others = [asyncio.create_task(name_of(rows, make_id("app", number))) for number in numbers]
        gate.open.set()
        assert await first == "shop"
        assert await asyncio.gather(*others) == [f"app-{n}" if n < 40 else None for n in numbers]
        assert gate.asked == 2


async def test_no_answer_is_older_than_its_question(world: World, database: Database) -> None:
    """What is asked while a statement is under way is not answered by that statement."""
    async with reading(database) as (gate, rows):
        gate.open.set()
        for number in range(30):
            await world.append((APP, AppRenamed(name=f"name-{number}")))
            early = asyncio.create_task(name_of(rows, APP))
            await asyncio.sleep(0)
            await world.project("platform")
            late = [await name_of(rows, APP) for _ in range(2)]
            assert late == [f"name-{number}"] * 2
            assert await early in (f"name-{number}", f"name-{number - 1}" if number else "shop")


@pytest.mark.usefixtures("world")
async def test_views_do_not_wait_for_each_other(database: Database) -> None:
    async with reading(database) as (gate, rows):
        app = asyncio.create_task(name_of(rows, APP))
        env = asyncio.create_task(rows.read(ENVS, make_id("env", 1), reach=EVERYTHING))
        await eventually(lambda: gate.asked == 2)
        gate.open.set()
        assert await app == "shop"
        assert (await env).rows[make_id("env", 1)]["name"] == "production"


@pytest.mark.usefixtures("world")
async def test_a_failure_reaches_all_who_asked_and_nobody_later(database: Database) -> None:
    async with reading(database) as (gate, rows):
        gate.failure = ConnectionResetError("cut")
        asked = [asyncio.create_task(name_of(rows, APP)) for _ in range(5)]
        await eventually(lambda: gate.asked == 1)
        gate.open.set()
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(result) for result in results] == [ConnectionResetError] * 5
        gate.failure = None
        assert await name_of(rows, APP) == "shop"


@pytest.mark.usefixtures("world")
async def test_who_gives_up_disturbs_nobody(database: Database) -> None:
    async with reading(database) as (gate, rows):
        asked = [asyncio.create_task(name_of(rows, APP)) for _ in range(6)]
        await eventually(lambda: gate.asked == 1)
        for task in asked[::2]:
            task.cancel()
        gate.open.set()
        assert await asyncio.gather(*asked[1::2]) == ["shop"] * 3
