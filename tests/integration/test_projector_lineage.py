"""F26 of the projector: what it read of the log before a failover is not applied to the views of another history."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from keelson.events import REGISTRY
from keelson.log.database import Pool
from keelson.projector import checkpoints
from keelson.projector import pages as reading
from keelson.projector.applier import Applier, Place
from keelson.projector.batch import Batch
from keelson.projector.checkpoints import CheckpointMovedError
from keelson.projector.folding import Stop
from keelson.projector.pages import Pages, read_batch
from keelson.projector.runner import Runner
from keelson.views import PROJECTIONS
from support.database import Database
from support.log import begin_epoch
from support.projecting import assert_views_equal_fold, caught_up, connected, item_of, pooled, replica
from support.story import Story, insert

TENANCY = PROJECTIONS["tenancy"]


async def _begun(pool: Pool) -> Place:
    async with pool.acquire() as connection:
        await checkpoints.begin(connection, TENANCY)
    return Place(0, frozenset())


async def test_f26_a_page_of_a_lineage_that_has_ended_is_not_applied(database: Database) -> None:
    """Its place fits as well as it did: the checkpoint was restored with the log. Nor does it stop the projection."""
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        await insert(owner, Story(seed=26, first=2).tell(20))
        place = await _begun(pool)
        batch = await read_batch(pool, 0, 1000)
        await begin_epoch(owner, "later")
        applier = Applier(TENANCY, pool)
        with pytest.raises(CheckpointMovedError):
            await applier.apply(place, batch, 0.0)
        with pytest.raises(CheckpointMovedError):
            await applier.stop(batch.first(0), Stop(state="stopped", position=1, event_type="x", message="a test"))
        item = await item_of(pool, "tenancy")
        assert (item.checkpoint, item.state) == (0, "running")
        again = await read_batch(pool, 0, 1000)
        assert again.epoch == "later"
        assert (await applier.apply(place, again, 0.0)).batch.end == again.head


async def test_f26_pages_that_were_kept_are_read_anew(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a projector would try again with what it has kept for as long as it keeps it."""
    async with _running_on_kept_pages(database, monkeypatch) as pool:
        await caught_up(pool, timeout_s=5)
        await assert_views_equal_fold(pool)


async def test_f26_planted_kept_pages_keep_a_projector_from_going_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pages, "forget", lambda _self: None)
    async with _running_on_kept_pages(database, monkeypatch) as pool:
        with pytest.raises(AssertionError, match="not within"):
            await caught_up(pool, timeout_s=5)


@asynccontextmanager
async def _running_on_kept_pages(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    monkeypatch.setattr(reading, "KEPT_S", 3600.0)
    monkeypatch.setattr(Runner, "__init__", _warmed(Runner.__init__, await _old_pages(database)))
    async with pooled(database.projector_dsn) as pool, replica(database, poll_interval_s=0.1):
        yield pool


async def _old_pages(database: Database) -> Batch:
    """Append events, read them, and have another epoch begin."""
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        await insert(owner, Story(seed=27, first=2).tell(20))
        batch = await read_batch(pool, 0, 1000)
        await begin_epoch(owner, "later")
        return batch


def _warmed(original: Callable[..., None], batch: Batch) -> Callable[..., None]:
    """Give what makes a runner that has kept this page already."""

    def make(self: Runner, **options: Any) -> None:
        original(self, **options)
        self.pages._kept.append((float("inf"), batch))
        self.pages._count(batch, 1)

    return make


def test_a_part_of_a_batch_is_of_its_epoch() -> None:
    assert Batch(5, [], 5, REGISTRY, epoch="e").first(0).epoch == "e"
