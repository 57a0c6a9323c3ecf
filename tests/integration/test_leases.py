"""Leases by the database's clock: one holder at a time, taken over when it lapses or is given back."""

import asyncio
import time
from contextlib import AsyncExitStack

from keelson.log.database import Pool
from keelson.projector.leases import Leases
from keelson.service.standing import read_standing
from support.database import Database
from support.projecting import assert_views_equal_fold, caught_up, connected, pooled, replica
from support.story import Story, insert
from support.waiting import eventually

NAMES = ["activity", "platform", "tenancy"]


async def lapse(database: Database) -> None:
    """Let all leases lapse now."""
    async with connected(database.owner_dsn) as owner:
        await owner.execute("UPDATE ops.leases SET expires_at = clock_timestamp()")


async def test_one_holds_what_another_wants_until_it_lapses(database: Database) -> None:
    async with pooled(database.projector_dsn) as pool:
        first, second = Leases(pool, "first"), Leases(pool, "second")
        await first.take(NAMES)
        await second.take(NAMES)
        assert all(first.holds(name) for name in NAMES)
        assert not any(second.holds(name) for name in NAMES)

        await lapse(database)
        await second.take(["platform"])
        await first.take(NAMES)
        assert second.holds("platform")
        assert [name for name in NAMES if first.holds(name)] == ["activity", "tenancy"]


async def test_what_is_given_back_is_free_at_once(database: Database) -> None:
    async with pooled(database.projector_dsn) as pool:
        first, second = Leases(pool, "first"), Leases(pool, "second")
        await first.take(NAMES)
        await first.release(["tenancy"])
        await second.take(NAMES)

        assert [name for name in NAMES if second.holds(name)] == ["tenancy"]
        assert not first.holds("tenancy")


async def test_giving_back_what_another_has_takes_nothing_from_it(database: Database) -> None:
    async with pooled(database.projector_dsn) as pool:
        first, second = Leases(pool, "first"), Leases(pool, "second")
        await first.take(NAMES)
        await second.release(NAMES)
        await second.take(NAMES)

        assert not any(second.holds(name) for name in NAMES)


async def test_a_holder_stops_believing_before_the_database_does(database: Database) -> None:
    async with pooled(database.projector_dsn) as pool:
        leases = Leases(pool, "first", duration_s=0.2)
        await leases.take(["tenancy"])
        expires_in = await pool.fetchval("SELECT extract(epoch FROM expires_at - clock_timestamp()) FROM ops.leases")
        believes_for = leases._until["tenancy"] - time.monotonic()

        assert believes_for <= float(expires_in)
        await eventually(lambda: not leases.holds("tenancy"), timeout_s=2)


async def test_many_that_want_the_same_get_it_once(database: Database) -> None:
    async with pooled(database.projector_dsn) as pool:
        all_leases = [Leases(pool, f"replica-{number}") for number in range(20)]
        await asyncio.gather(*(leases.take(NAMES) for leases in all_leases))

        for name in NAMES:
            assert sum(leases.holds(name) for leases in all_leases) == 1


async def test_another_replica_takes_over_when_one_stops(database: Database) -> None:
    story = Story(seed=31, first=2)
    async with (
        connected(database.owner_dsn) as owner,
        pooled(database.projector_dsn) as pool,
        AsyncExitStack() as stack,
    ):
        async with replica(database):
            await insert(owner, story.tell(20))
            await caught_up(pool)
            stopping = await holders_of(pool)
            await stack.enter_async_context(replica(database))
        began_at = time.monotonic()
        await insert(owner, story.tell(20))
        await caught_up(pool)

        assert time.monotonic() - began_at < 2.5, "given back, not lapsed"
        assert not await holders_of(pool) & stopping
        await assert_views_equal_fold(pool)


async def test_another_replica_takes_over_when_a_lease_lapses(database: Database) -> None:
    """As after SIGKILL: nothing was given back; the dead one's lease is that of a process that is no more."""
    story = Story(seed=32, first=2)
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        await Leases(pool, "the-dead").take(NAMES)
        async with replica(database):
            await insert(owner, story.tell(20))
            began_at = time.monotonic()
            await caught_up(pool)

            assert 1 < time.monotonic() - began_at < 6
            assert "the-dead" not in await holders_of(pool)


async def test_f11_a_dead_holders_lease_does_not_outlast_a_clock_that_goes_back(database: Database) -> None:
    """By the clock of then it lapses soon; by that of now, in a day."""
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        dead, alive, other = (Leases(pool, name) for name in ("dead", "alive", "other"))
        await dead.take(NAMES)
        await owner.execute("UPDATE ops.leases SET expires_at = expires_at + interval '1 day'")
        await alive.take(NAMES)
        await other.take(NAMES)
        assert all(alive.holds(name) for name in NAMES)
        assert not any(other.holds(name) for name in NAMES)


async def test_f11_a_clock_that_goes_forth_lets_leases_lapse_and_no_more(database: Database) -> None:
    """The old holder hears it when it renews; until then the compare-and-set keeps both in order (F17)."""
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        first, second = Leases(pool, "first"), Leases(pool, "second")
        await first.take(NAMES)
        await owner.execute("UPDATE ops.leases SET expires_at = expires_at - interval '1 day'")
        await second.take(NAMES)
        await first.take(NAMES)
        assert all(second.holds(name) for name in NAMES)
        assert not any(first.holds(name) for name in NAMES)


async def holders_of(pool: Pool) -> set[str]:
    return {item.holder for item in (await read_standing(pool)).items if item.holder is not None}
