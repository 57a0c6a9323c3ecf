"""F26 of the projector: what it read of the log before a failover is not applied to the views of another history."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from keelson.events import REGISTRY, Registry
from keelson.log.database import Connection, Pool
from keelson.log.epochs import Epochs
from keelson.projector import checkpoints
from keelson.projector import pages as reading
from keelson.projector.announcer import Announcer
from keelson.projector.applier import Applier, Place
from keelson.projector.batch import Batch
from keelson.projector.checkpoints import CheckpointMovedError
from keelson.projector.folding import Stop
from keelson.projector.follower import Follower
from keelson.projector.leases import Leases, mint_holder
from keelson.projector.pages import Pages, read_batch
from keelson.projector.runner import Runner
from keelson.service.standing import read_standing
from keelson.views import PROJECTIONS
from support.database import Database
from support.log import begin_epoch
from support.projecting import (
    assert_views_equal_fold,
    caught_up,
    connected,
    item_of,
    pooled,
    replica,
    stopped,
)
from support.story import Story, insert, raw_command
from support.waiting import eventually

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


OLDER = Registry(cls for key, cls in REGISTRY.classes.items() if key != ("org.renamed", 1))


async def test_f26_where_a_projection_stopped_before_a_failover_it_goes_on(database: Database) -> None:
    """The successor lacks the event that this code does not know, and has others at its place."""
    org, other = "org_" + "5" * 26, "org_" + "6" * 26
    known = Epochs()
    async with connected(database.admin_dsn) as admin, pooled(database.projector_dsn) as pool:
        created, renamed = raw_command(2, (org, "org.created", '{"name":"a"}'), (org, "org.renamed", '{"name":"b"}'))
        await insert(admin, [msgspec.structs.replace(created, command_end=True), renamed])
        async with replica(database, registry=OLDER, epochs=known, poll_interval_s=0.1):
            for name in PROJECTIONS:
                assert (await stopped(pool, name, "behind_schema")).checkpoint == 2
            await eventually(lambda: no_holder(pool))
            await _fail_over(admin, kept=2)
            known.learn("later")  # from whichever of its connections was the first
            await insert(admin, raw_command(4, (other, "org.created", '{"name":"c"}')))
            assert await caught_up(pool) == 4
        await assert_views_equal_fold(pool)


async def no_holder(pool: Pool) -> bool:
    return all(item.holder is None for item in (await read_standing(pool)).items)


async def _fail_over(admin: Connection, *, kept: int) -> None:
    """Have the database be as a standby that was promoted without the last events, which no projection had seen."""
    async with admin.transaction():
        await admin.execute("SELECT FROM log.head FOR UPDATE")
        await admin.execute("ALTER TABLE log.events DISABLE TRIGGER append_only")
        await admin.execute("DELETE FROM log.events WHERE position > $1", kept)
        await admin.execute("ALTER TABLE log.events ENABLE TRIGGER append_only")
        await admin.execute("UPDATE log.head SET position = $1", kept)
        await admin.execute(
            "UPDATE ops.checkpoints SET state = 'running',"
            " (error_position, error_type, error_message) = (NULL, NULL, NULL)"
        )
        await begin_epoch(admin, "later")


async def test_what_could_not_be_recorded_of_a_stop_keeps_nothing_from_being_tried_again(database: Database) -> None:
    """It may be of a lineage that has ended meanwhile, or the database was away: nobody would know why it stands."""
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        await insert(owner, raw_command(2, ("org_" + "5" * 26, "org.renamed", '{"name":"b"}')))
        place = await _begun(pool)
        batch = await read_batch(pool, 0, 1000, OLDER)
        await Applier(TENANCY, pool).apply(place, batch.before(2), 0.0)
        await begin_epoch(owner, "later")
        follower = Follower(
            TENANCY,
            pool=pool,
            pages=Pages(pool, page_size=1000, lagging_page_size=1000),
            leases=Leases(pool, mint_holder()),
            announcer=Announcer(pool),
            poll_interval_s=1.0,
        )
        with pytest.raises(CheckpointMovedError):
            await follower._apply(place._replace(position=1), batch.since(1))
        assert follower.is_fit_for(await checkpoints.read_checkpoint(pool, "tenancy"))


def test_a_part_of_a_batch_is_of_its_epoch() -> None:
    assert Batch(5, [], 5, REGISTRY, epoch="e").first(0).epoch == "e"
