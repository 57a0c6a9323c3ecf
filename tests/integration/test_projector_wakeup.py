"""The projector is woken, not polling; and a lost notification costs a poll interval, not an event (F19, F22)."""

import asyncio
import time

import pytest

from keelson.log.listen import Listener
from keelson.log.tail import LOG_CHANNEL
from keelson.projector import pages as reading
from keelson.projector.pages import LONGEST_REST_S, SHORTEST_REST_S, Pages, rest_after
from keelson.projector.runner import Runner
from keelson.service.checkpoints import CHANNEL
from support.database import Database
from support.projecting import assert_views_equal_fold, caught_up, connected, pooled, replica
from support.story import Story, insert
from support.waiting import eventually

NEVER_S = 3600.0


async def test_a_notification_wakes_long_before_the_poll(database: Database) -> None:
    story = Story(seed=21, first=2)
    async with (
        connected(database.owner_dsn) as owner,
        pooled(database.projector_dsn) as pool,
        replica(database, poll_interval_s=NEVER_S),
    ):
        for _ in range(5):
            await insert(owner, story.tell(3))
            await caught_up(pool, timeout_s=5)


async def test_f19_a_lost_notification_costs_at_most_the_poll_interval(database: Database) -> None:
    story = Story(seed=22, first=2)
    async with (
        connected(database.owner_dsn) as owner,
        pooled(database.projector_dsn) as pool,
        replica(database, poll_interval_s=0.5),
    ):
        await caught_up(pool)
        for _ in range(3):
            await insert(owner, story.tell(3), notify=False)
            began_at = time.monotonic()
            await caught_up(pool)
            assert time.monotonic() - began_at < 2


async def test_f19_planted_without_a_poll_a_lost_notification_is_seen_to_be_lost(database: Database) -> None:
    story = Story(seed=23, first=2)
    async with (
        connected(database.owner_dsn) as owner,
        pooled(database.projector_dsn) as pool,
        replica(database, poll_interval_s=NEVER_S),
    ):
        await insert(owner, story.tell(3))
        await caught_up(pool)
        await insert(owner, story.tell(3), notify=False)

        with pytest.raises(AssertionError, match="not within"):
            await caught_up(pool, timeout_s=3)


@pytest.mark.parametrize("poll_interval_s", [0.5, NEVER_S])
async def test_f19_a_killed_listener_is_replaced_and_looks_at_once(database: Database, poll_interval_s: float) -> None:
    """With the poll the lag is bounded meanwhile; without it, by the reconnection, which means: look now."""
    story = Story(seed=24, first=2)
    listener = Listener(database.projector_dsn, LOG_CHANNEL, application_name="the-listener", reconnect_delay_s=0.3)
    async with (
        connected(database.admin_dsn) as admin,
        connected(database.owner_dsn) as owner,
        pooled(database.projector_dsn) as pool,
        replica(database, poll_interval_s=poll_interval_s, listener=listener),
    ):
        await insert(owner, story.tell(3))
        await caught_up(pool)
        for _ in range(3):
            await eventually(lambda: listener.connected)
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'the-listener'"
            )
            await eventually(lambda: not listener.connected)
            await insert(owner, story.tell(3))
            await caught_up(pool, timeout_s=5)


async def test_f22_a_storm_of_notifications_is_one_wake_up(database: Database) -> None:
    story = Story(seed=25, first=2)
    async with (
        connected(database.owner_dsn) as owner,
        pooled(database.projector_dsn) as pool,
        replica(database, poll_interval_s=NEVER_S) as runner,
    ):
        await insert(owner, story.tell(3))
        await caught_up(pool)
        before = runner.pages.reads
        await owner.execute("SELECT pg_notify('keelson_log', 'storm ' || each) FROM generate_series(1, 20000) AS each")
        await insert(owner, story.tell(3))
        await caught_up(pool)

        assert runner.pages.reads - before < 200
        await eventually(lambda: is_quiet(runner))


async def test_the_end_of_the_log_rests_so_that_small_pages_become_larger_ones(database: Database) -> None:
    story = Story(seed=28, first=2)
    async with (
        connected(database.owner_dsn) as owner,
        pooled(database.projector_dsn) as pool,
        replica(database, poll_interval_s=NEVER_S) as runner,
    ):
        await insert(owner, story.tell(1))
        await caught_up(pool)
        before, began_at, events = runner.pages.reads, time.monotonic(), 0
        while time.monotonic() < began_at + 1:
            told = story.tell(1)
            await insert(owner, told)
            events += len(told)
        reads = runner.pages.reads - before
        assert reads <= (time.monotonic() - began_at) / SHORTEST_REST_S + 2
        assert reads < events
        await caught_up(pool)


@pytest.mark.parametrize(("events", "rest_s"), [(0, SHORTEST_REST_S), (20, 0.01), (1000, LONGEST_REST_S)])
def test_the_more_comes_at_once_the_longer_the_rest(events: int, rest_s: float) -> None:
    assert rest_after(events) == pytest.approx(rest_s)


async def test_pages_that_are_kept_for_others_are_bounded_by_bytes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "KEPT_BYTES", 2000)
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        told = Story(seed=29, first=2).tell(300)
        await insert(owner, told)
        pages = Pages(pool, page_size=5, lagging_page_size=5)
        after = 1
        while after < told[-1].position:
            batch = await pages.read(after)
            assert batch.start == after
            after = batch.end
            # What was read last is let in beyond the bound, and makes room at the next reading.
            assert sum(kept.size_bytes for _, kept in list(pages._kept)[1:]) <= 2000


async def is_quiet(runner: Runner) -> bool:
    """Say whether nothing is read for a while, when nothing is there to be read."""
    before = runner.pages.reads
    await asyncio.sleep(0.2)
    return runner.pages.reads == before


async def test_the_log_is_read_once_for_all_projections(database: Database) -> None:
    story = Story(seed=26, first=2)
    async with (
        connected(database.owner_dsn) as owner,
        pooled(database.projector_dsn) as pool,
        replica(database, poll_interval_s=NEVER_S, page_size=100, lagging_page_size=100) as runner,
    ):
        await caught_up(pool)
        before = runner.pages.reads
        told = story.tell(2000)
        await insert(owner, told)
        await caught_up(pool)

        pages = len(told) / 100
        assert runner.pages.reads - before < 1.5 * pages + 10


async def test_checkpoints_are_announced_coalesced_and_never_early(database: Database) -> None:
    story = Story(seed=27, first=2)
    heard: list[tuple[str, int]] = []

    def hear(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        name, position = str(payload).split()
        heard.append((name, int(position)))

    async with (
        connected(database.owner_dsn) as owner,
        connected(database.query_dsn) as listener,
        pooled(database.projector_dsn) as pool,
        replica(database, page_size=10, lagging_page_size=10),
    ):
        await listener.add_listener(CHANNEL, hear)
        told = story.tell(400)
        await insert(owner, told)
        head = await caught_up(pool)
        await eventually(
            lambda: {name for name, position in heard if position == head} == {"tenancy", "platform", "activity"}
        )

        for name in ("tenancy", "platform", "activity"):
            positions = [position for each, position in heard if each == name]
            assert positions == sorted(set(positions))
        await assert_views_equal_fold(pool)
