"""Crashes, races and slow neighbours: what is applied is applied once, with its checkpoint, whoever is in the way.

F16: a crash between rows and checkpoint. F17: two runners, a frozen one. F24: a schema change under cached plans.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from keelson.log.database import Connection, Pool
from keelson.log.epochs import Epochs
from keelson.log.listen import Listener
from keelson.log.tail import LOG_CHANNEL
from keelson.projector import applier as applying
from keelson.projector import checkpoints, follower
from keelson.projector.applier import Applier, Place
from keelson.projector.checkpoints import CheckpointMovedError
from keelson.projector.folding import Folded
from keelson.projector.leases import Leases, mint_holder
from keelson.projector.pages import read_batch
from keelson.projector.runner import Runner
from keelson.projector.writer import write_rows
from keelson.views.platform import PLATFORM
from keelson.views.tenancy import TENANCY
from support.database import Database
from support.log import waits_for_lock
from support.projecting import assert_views_equal_fold, caught_up, connected, pooled, replica
from support.proxy import proxied
from support.story import Story, insert
from support.waiting import eventually

NOTHING_SKIPPED: frozenset[int] = frozenset()


def crash_every_third(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lose the connection before the rows of each third page are written."""
    crashes: list[int] = []
    calls = 0

    async def write_or_crash(connection: Connection, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            crashes.append(calls)
            connection.terminate()
            raise ConnectionResetError("crashed between the checkpoint and the rows")
        await write_rows(connection, *arguments)

    monkeypatch.setattr(applying, "write_rows", write_or_crash)
    return crashes


async def follow_through_crashes(database: Database, timeout_s: float = 10) -> None:
    story = Story(seed=41, first=2)
    async with (
        connected(database.owner_dsn) as owner,
        pooled(database.projector_dsn) as pool,
        replica(database, page_size=20, lagging_page_size=20, poll_interval_s=0.1),
    ):
        await insert(owner, story.tell(300))
        await caught_up(pool, timeout_s=timeout_s)
        await assert_views_equal_fold(pool)


async def test_f16_a_crash_between_rows_and_checkpoint_loses_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashes = crash_every_third(monkeypatch)

    await follow_through_crashes(database)
    assert len(crashes) > 5


class CheckpointApart(Applier):
    """Planted: moves the checkpoint in a transaction of its own."""

    async def _write(self, folded: Folded, rate: float) -> None:
        batch = folded.batch
        if batch.envelopes:
            async with self._pool.acquire() as connection, connection.transaction():
                await checkpoints.move(connection, self._projection, batch, rate)
            async with self._pool.acquire() as connection, connection.transaction():
                await vars(applying)["write_rows"](connection, folded.fold)


async def test_f16_planted_a_checkpoint_outside_the_transaction_is_caught(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_every_third(monkeypatch)
    monkeypatch.setattr(follower, "Applier", CheckpointApart)

    with pytest.raises(BaseExceptionGroup) as caught:
        await follow_through_crashes(database, timeout_s=4)
    assert caught.group_contains(AssertionError)


async def test_f17_a_frozen_runner_that_wakes_up_writes_nothing(database: Database) -> None:
    """It has folded its page, and believes that it holds the lease; the compare-and-set refuses it."""
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        await insert(owner, Story(seed=42, first=2).tell(100))
        async with pool.acquire() as connection:
            await checkpoints.begin(connection, PLATFORM)
        frozen, other = Applier(PLATFORM, pool), Applier(PLATFORM, pool)
        place = Place(0, NOTHING_SKIPPED)
        its_page = await read_batch(pool, 0, 30)
        await other.apply(place, await read_batch(pool, 0, 50), 0)

        with pytest.raises(CheckpointMovedError):
            await frozen.apply(place, its_page, 0)

        checkpoint = await checkpoints.read_checkpoint(pool, "platform")
        assert checkpoint is not None
        await assert_views_equal_fold(pool, {"platform": PLATFORM}, until=checkpoint.position)


class Believer(Leases):
    """Believes that it holds every lease, as one does whose process was frozen."""

    def holds(self, name: str) -> bool:
        """Say yes."""
        return bool(name)


async def test_f17_replicas_that_all_believe_to_hold_the_lease_apply_everything_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.projecting.Leases", Believer)
    story = Story(seed=43, first=2)
    options = {"page_size": 10, "lagging_page_size": 10, "poll_interval_s": 0.2}
    async with (
        connected(database.owner_dsn) as owner,
        pooled(database.projector_dsn) as pool,
        replica(database, **options),
        replica(database, **options),
        replica(database, **options),
    ):
        for _ in range(20):
            await insert(owner, story.tell(20))
        await caught_up(pool, timeout_s=60)
        await assert_views_equal_fold(pool)


async def test_replicas_that_start_at_once_on_an_empty_database_begin_each_projection_once(database: Database) -> None:
    async with (
        connected(database.owner_dsn) as owner,
        pooled(database.projector_dsn) as pool,
        replica(database),
        replica(database),
        replica(database),
    ):
        await insert(owner, Story(seed=44, first=2).tell(30))
        await caught_up(pool)
        await assert_views_equal_fold(pool)


@asynccontextmanager
async def locked(connection: Connection, statement: str) -> AsyncIterator[None]:
    """Hold what a statement locks for as long as the body runs."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(statement)
        yield
    finally:
        await transaction.rollback()


async def test_a_projection_that_waits_holds_no_other_back(database: Database) -> None:
    story = Story(seed=45, first=2)
    async with (
        connected(database.owner_dsn) as owner,
        connected(database.projector_dsn) as neighbour,
        pooled(database.projector_dsn) as pool,
        replica(database),
    ):
        await insert(owner, story.tell(30))
        await caught_up(pool)
        async with locked(neighbour, "SELECT FROM ops.checkpoints WHERE projection = 'platform' FOR UPDATE"):
            for _ in range(10):
                await insert(owner, story.tell(10))
                await caught_up(pool, "tenancy", "activity", timeout_s=1.5)
        await caught_up(pool)
        await assert_views_equal_fold(pool)


async def test_a_runner_frozen_within_its_transaction_frees_the_checkpoint(database: Database) -> None:
    """Its session is ended by the server: idle_in_transaction_session_timeout."""
    async with (
        connected(database.owner_dsn) as owner,
        pooled(database.projector_dsn) as frozen_pool,
        pooled(database.projector_dsn) as pool,
        replica(database),
    ):
        await caught_up(pool)
        with pytest.raises(ConnectionError):
            await hold_checkpoints(frozen_pool, while_doing=follow_on(owner, pool))


async def follow_on(owner: Connection, pool: Pool) -> None:
    await insert(owner, Story(seed=46, first=2).tell(10))
    await caught_up(pool, timeout_s=8)


async def hold_checkpoints(pool: Pool, *, while_doing: Awaitable[None]) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM ops.checkpoints FOR UPDATE")
        await while_doing


async def test_f24_the_schema_changes_under_cached_plans(database: Database) -> None:
    """Additive migrations of the log, of ops and of a view, while pages are applied on the same connections."""
    story = Story(seed=47, first=2)
    async with (
        connected(database.owner_dsn) as owner,
        connected(database.projector_dsn) as projector,
        pooled(database.projector_dsn) as pool,
        replica(database, page_size=20, lagging_page_size=20),
    ):
        await insert(owner, story.tell(100))
        await caught_up(pool)
        await owner.execute("ALTER TABLE log.events ADD COLUMN added text")
        await owner.execute("ALTER TABLE ops.checkpoints ADD COLUMN added text")
        await projector.execute("ALTER TABLE views.envs ADD COLUMN added text")
        await insert(owner, story.tell(100))
        await caught_up(pool)
        await projector.execute("ALTER TABLE views.envs DROP COLUMN added")
        await assert_views_equal_fold(pool)


async def apply_across_a_change(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply pages on one connection, whose transactions read whole rows of a table that gets columns in between."""

    async def read_and_write(connection: Connection, *arguments: Any) -> None:
        await connection.fetch("SELECT * FROM views.envs LIMIT 1")
        await write_rows(connection, *arguments)

    monkeypatch.setattr(applying, "write_rows", read_and_write)
    async with (
        connected(database.owner_dsn) as owner,
        connected(database.projector_dsn) as projector,
        pooled(database.projector_dsn, max_size=1) as pool,
    ):
        await insert(owner, Story(seed=48, first=2).tell(400))
        await checkpoints.begin(projector, PLATFORM)
        applier, place = Applier(PLATFORM, pool), Place(0, NOTHING_SKIPPED)
        for number in range(3):
            batch = await read_batch(pool, place.position, 100)
            applied = await applier.apply(place, batch, 0)
            assert applied.stop is None
            place = place._replace(position=batch.end)
            await projector.execute(f"ALTER TABLE views.envs ADD COLUMN added_{number} text")
        assert place.position >= 300


async def test_f24_a_transaction_whose_plans_are_outdated_is_retried(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await apply_across_a_change(database, monkeypatch)


async def test_f24_planted_without_the_retry_it_is_caught(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying, "_ATTEMPTS", 1)

    with pytest.raises(AssertionError):
        await apply_across_a_change(database, monkeypatch)


async def test_a_lost_answer_to_commit_is_found_out(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page was applied after all: the place is read again, and nothing is applied twice."""
    original: Callable[..., Any] = Applier._write
    lost = 0

    async def write_and_lose(self: Applier, folded: Folded, rate: float) -> None:
        nonlocal lost
        await original(self, folded, rate)
        lost += 1
        if lost % 2:
            raise ConnectionResetError("the answer to COMMIT is lost")

    monkeypatch.setattr(Applier, "_write", write_and_lose)
    await follow_through_crashes(database)
    assert lost > 10


async def test_the_rate_is_told_with_the_checkpoint(database: Database) -> None:
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool, replica(database):
        await insert(owner, Story(seed=49, first=2).tell(300))
        await caught_up(pool)

        assert await rate_of(pool) > 0


async def rate_of(pool: Pool) -> float:
    rate: float = await pool.fetchval("SELECT rate FROM ops.checkpoints WHERE projection = $1", TENANCY.name)
    return rate


async def test_a_replica_outlives_the_loss_of_all_its_connections(database: Database) -> None:
    story = Story(seed=50, first=2)
    async with (
        connected(database.admin_dsn) as admin,
        connected(database.owner_dsn) as owner,
        pooled(database.query_dsn) as observer,
        replica(database, poll_interval_s=0.2),
    ):
        for _ in range(5):
            await insert(owner, story.tell(50))
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'keelson_projector'"
            )
        await insert(owner, story.tell(1))
        await caught_up(observer)
        await assert_views_equal_fold(observer)


async def test_a_replica_that_is_stopped_stops_though_the_database_answers_no_more(database: Database) -> None:
    """Rolling back the page in flight times out; that must not take the place of the cancellation."""
    async with (
        connected(database.owner_dsn) as owner,
        connected(database.projector_dsn) as neighbour,
        proxied(database.projector_dsn) as proxy,
        pooled(proxy.url(database.projector_dsn), statement_timeout_s=1.0) as pool,
    ):
        listener = Listener(database.projector_dsn, LOG_CHANNEL)
        leases = Leases(pool, mint_holder())
        runner = Runner(pool=pool, announce_db=pool, listener=listener, leases=leases, epochs=Epochs())
        running = asyncio.create_task(runner.run())
        await caught_up(pool)
        async with locked(neighbour, "SELECT FROM ops.checkpoints FOR UPDATE"):
            await insert(owner, Story(seed=51, first=2).tell(5))
            await eventually(lambda: waits_for_lock(neighbour, "keelson-tests"))
            proxy.to_server.swallow()
            proxy.to_client.swallow()
            running.cancel()
            ended, _ = await asyncio.wait([running], timeout=20)
        proxy.cut()
        assert ended


async def test_f8_a_replica_outlives_a_database_that_is_away(database: Database) -> None:
    """It tries in vain for a while, and then goes on from where it was."""
    story = Story(seed=51, first=2)
    async with proxied(database.projector_dsn) as proxy:
        behind = replace(database, projector_dsn=proxy.url(database.projector_dsn))
        async with (
            connected(database.owner_dsn) as owner,
            pooled(database.query_dsn) as observer,
            replica(behind, poll_interval_s=0.1),
        ):
            await insert(owner, story.tell(20))
            await caught_up(observer)
            proxy.refuses = True
            proxy.cut()
            await insert(owner, story.tell(20))
            tried = proxy.accepted + 10
            await eventually(lambda: proxy.accepted >= tried)
            proxy.refuses = False
            await caught_up(observer)
            await assert_views_equal_fold(observer)
