"""The change feed over real sockets: what is told, in which frames, and how a client goes on (F29, F30, F31)."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from keelson.events.app import AppRenamed
from keelson.events.env import EnvConfigSet
from keelson.log import read
from keelson.query.feed import chunks, events, metrics
from keelson.query.feed.events import EventSource
from keelson.query.feed.follower import Follower
from keelson.query.feed.hub import Subscription
from keelson.service import streaming
from support.database import Database
from support.following import APPS, append_some, follow, read_log, require_atomic, require_same, take_bytes
from support.query_world import APP, ENV, NODE, ORG, PROJECT, TOKEN, Reader, World, make_id, open_world, served
from support.sse import connect, streamed
from support.stalling import buffered
from support.waiting import eventually


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database) as world:
        await world.append_base()
        yield world


@pytest.fixture
async def reader(database: Database, world: World) -> AsyncIterator[Reader]:
    assert world.head
    async with served(database) as reader:
        yield reader


async def test_a_stream_begins_at_the_beginning_and_goes_on(world: World, reader: Reader) -> None:
    async with streamed(reader.url, TOKEN) as stream:
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")
        assert (stream.headers["cache-control"], stream.headers["x-accel-buffering"]) == ("no-store", "no")
        assert stream.headers["keelson-epoch"] == world.epoch
        retry = await stream.frame()
        assert (retry.kind, 500 <= retry.data <= 3000) == ("retry", True)
        told = await stream.events_to(world.head)
        page = await reader.get("/v1/events")
        assert [each.data for each in told] == page.body["items"]
        await world.append((APP, AppRenamed(name="store")))
        [live] = await stream.events_to(world.head)
        assert (live.data["type"], live.id) == ("app.renamed", f"{world.epoch}-{world.head}")


async def test_a_stream_at_the_head_says_where_it_is(world: World, reader: Reader) -> None:
    for place in (str(world.head), f"{world.epoch}-{world.head}"):
        async with streamed(reader.url, TOKEN, after=place) as stream:
            assert (await stream.frame()).kind == "retry"
            bookmark = await stream.frame()
            assert (bookmark.kind, bookmark.position) == ("bookmark", world.head)
            assert bookmark.id == f"{world.epoch}-{world.head}"


async def test_last_event_id_comes_before_after(world: World, reader: Reader) -> None:
    headers = {"Last-Event-ID": f"{world.epoch}-{world.head - 1}"}
    async with streamed(reader.url, TOKEN, headers=headers, after=1) as stream:
        assert [each.position for each in await stream.events_to(world.head)] == [world.head]


# Filters, and what they let through by the table's columns.
FILTERS: list[dict[str, Any]] = [
    {},
    {"org_id": ORG},
    {"project_id": PROJECT},
    {"app_id": APPS[1]},
    {"env_id": ENV},
    {"node_id": NODE},
    {"aggregate_id": APPS[2]},
    {"type": "app.renamed"},
    {"actor_id": "operator"},
    {"actor_id": "nobody"},
    {"request_id": "r", "app_id": APPS[3]},
    {"correlation_id": "c-1"},
    {"app_id": APPS[1], "type": "app.created"},
]


def lets_through(filters: dict[str, Any], row: dict[str, Any]) -> bool:
    return all(row[name] == value for name, value in filters.items())


@pytest.mark.parametrize("filters", FILTERS, ids=lambda each: "-".join(each) or "everything")
async def test_a_stream_tells_what_its_filter_lets_through(
    world: World, reader: Reader, filters: dict[str, Any]
) -> None:
    """What happened before it began, and what happens while it lasts; ids stand where commands end."""
    random = Random(1)
    await append_some(world, random, 20)
    await has_arrived(world, reader)
    async with streamed(reader.url, TOKEN, **filters) as stream:
        begun = world.head
        before = await stream.events_to(begun)
        await append_some(world, random, 20)
        await world.append((APP, AppRenamed(name="x")), correlation_id="c-1")
        log = await read_log(world, partial(lets_through, filters))
        is_told = bool(log) and log[-1]["position"] > begun
        after = await stream.events_to(log[-1]["position"]) if is_told else []
    require_same([each.data for each in before + after], log)
    require_atomic(before + after, log)


async def has_arrived(world: World, reader: Reader) -> None:
    """Wait until the replica has all of the log."""
    await eventually(lambda: reader.app.state.feed.hub.end == world.head)


async def test_the_aggregates_type_is_a_filter(world: World, reader: Reader) -> None:
    await has_arrived(world, reader)
    async with streamed(reader.url, TOKEN, aggregate_type="project") as stream:
        [project] = await stream.events_to(world.head)
        assert project.data["aggregate_id"] == PROJECT


async def test_a_long_log_comes_from_the_database_and_then_from_the_ring(database: Database, world: World) -> None:
    """The ring holds a few events only: what is older is read from the database, and nothing is lost in between."""
    random = Random(2)
    async with served(database, feed_ring_events=10) as reader:
        await append_some(world, random, 60)
        for filters in FILTERS[0], FILTERS[3], FILTERS[6]:
            log = await read_log(world, partial(lets_through, filters))
            async with streamed(reader.url, TOKEN, **filters) as stream:
                frames = await stream.events_to(log[-1]["position"])
            require_same([each.data for each in frames], log)
            require_atomic(frames, log)


async def test_who_falls_behind_the_ring_catches_up(
    database: Database, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a client reads nothing, the ring forgets what it has not been told yet."""
    monkeypatch.setattr(streaming, "MAX_UNSENT_BYTES", 64 * 1024)
    async with served(database, feed_ring_events=5, feed_send_timeout_s=30) as reader:
        begun = world.head
        async with streamed(reader.url, TOKEN, after=begun) as stream, streamed(reader.url, TOKEN) as other:
            stream.take_little(64 * 1024)
            assert (await stream.next("bookmark")).position == begun
            await other.events_to(begun)
            before = metrics.CATCH_UPS._value.get()
            for number in range(50):
                await world.append((ENV, EnvConfigSet(variables={"A": f"{number:03d}" * 10_000})))
            await other.events_to(world.head)
            assert buffered(reader) > 0
            told = await stream.events_to(world.head)
        assert metrics.CATCH_UPS._value.get() > before
        require_same([each.data for each in told], (await read_log(world))[begun:])
        assert len(reader.app.state.feed.hub.ring) <= 5


@pytest.mark.parametrize("kept_events", [100, 1])
async def test_a_bookmark_comes_once_all_was_looked_at_and_not_before(
    database: Database, world: World, monkeypatch: pytest.MonkeyPatch, kept_events: int
) -> None:
    """Nothing matches, and it takes several looks to know, be it at the ring or at the database."""
    monkeypatch.setattr(chunks, "MAX_SCANNED", 4)
    monkeypatch.setattr(read, "WINDOW", 4)
    await append_some(world, Random(6), 30)
    async with served(database, feed_ring_events=kept_events) as reader:
        await has_arrived(world, reader)
        async with streamed(reader.url, TOKEN, node_id=make_id("node", 99)) as stream:
            assert (await stream.next("bookmark")).position == world.head


async def test_others_have_their_turn_between_looks_at_the_ring(
    database: Database, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "MAX_SCANNED", 4)
    turn, turns = 0, []

    async def take_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def counting(*args: Any) -> chunks.Chunk:
        turns.append(turn)
        return chunks.read_ring(*args)

    monkeypatch.setattr(events, "read_ring", counting)
    await append_some(world, Random(6), 30)
    async with served(database) as reader:
        await has_arrived(world, reader)
        taking = asyncio.create_task(take_turns())
        for filters in FILTERS[0], FILTERS[5]:
            async with streamed(reader.url, TOKEN, **filters) as stream:
                await stream.events_to(world.head)
        taking.cancel()
    assert len(turns) > 10
    assert len(turns) == len(set(turns))


# F29


async def test_f29_cut_at_any_byte_a_client_that_resumes_holds_the_log(world: World, reader: Reader) -> None:
    """A body is cut after each of its bytes; from each place that a client then stands at, the rest is asked for."""
    await append_some(world, Random(4), 12)
    log = await read_log(world)
    async with streamed(reader.url, TOKEN) as stream:
        await stream.events_to(world.head)
        body = stream.body
    rests: dict[str | None, list[Any]] = {}
    for cut in range(len(body) + 1):
        holding = take_bytes(body[:cut])
        if holding.cursor not in rests:
            resumed = await follow_on(reader, holding.headers, world.head)
            rests[holding.cursor] = resumed
        require_same(holding.events + rests[holding.cursor], log)
    assert len(rests) == len({row["command_id"] for row in log}) + 1


async def follow_on(reader: Reader, headers: dict[str, str], head: int) -> list[Any]:
    async with streamed(reader.url, TOKEN, headers=headers) as stream:
        return [each.data for each in await stream.events_to(head)]


async def follow_through(world: World, reader: Reader, seed: int) -> None:
    """Follow while the log grows, cut after random bytes again and again; compare with the table."""
    random = Random(seed)
    filters = random.choice([FILTERS[0], FILTERS[3], FILTERS[7]])
    writing = asyncio.create_task(append_some(world, random, 60))
    cuts = [random.randrange(4000) for _ in range(12)]
    holding = await follow(reader.url, TOKEN, 30, cuts, **filters)
    await writing
    await world.append((APPS[1], AppRenamed(name="last")))
    async with streamed(reader.url, TOKEN, headers=holding.headers, **filters) as stream:
        for frame in await stream.events_to(world.head):
            holding.take(frame)
    require_same(holding.events, await read_log(world, partial(lets_through, filters)))


@pytest.mark.parametrize("seed", range(4))
async def test_f29_cut_again_and_again_while_the_log_grows(world: World, reader: Reader, seed: int) -> None:
    await follow_through(world, reader, seed)


async def test_f29_a_lost_notification_costs_a_moment_and_no_event(world: World, reader: Reader) -> None:
    async with streamed(reader.url, TOKEN, after=world.head) as stream:
        await stream.next("bookmark")
        await world.append((APP, AppRenamed(name="unheard")), announced=False)
        [told] = await stream.events_to(world.head, timeout_s=3)
        assert told.position == world.head


async def test_f29_events_of_one_command_come_with_one_id_however_they_are_interleaved(
    world: World, reader: Reader
) -> None:
    """Only some of a command's events match, and its last does not: the id stands on the last that does."""
    await world.append(*((app, AppRenamed(name="x")) for app in (APPS[1], APPS[0], APPS[1], APPS[2])))
    log = await read_log(world, lambda row: row["app_id"] == APPS[1])
    async with streamed(reader.url, TOKEN, app_id=APPS[1]) as stream:
        frames = await stream.events_to(log[-1]["position"])
        assert [frame.id for frame in frames][-2:] == [None, f"{world.epoch}-{log[-1]['position']}"]
        assert not frames[-1].data["command_end"]


async def test_planted_an_id_on_every_event_splits_a_command(
    world: World, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "pairwise", lambda entries: [(each, None) for each, _ in pairwise(entries)])
    await world.append(*((app, AppRenamed(name="x")) for app in APPS[:3]))
    log = await read_log(world)
    async with streamed(reader.url, TOKEN) as stream:
        frames = await stream.events_to(world.head)
    with pytest.raises(AssertionError):
        require_atomic(frames, log)


async def test_planted_who_is_woken_believes_that_all_was_quiet(
    world: World, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The position up to which nothing concerned a sleeper, taken after the batch that woke it: its events are lost."""
    rouse = Subscription.rouse
    monkeypatch.setattr(Subscription, "rouse", lambda self, _: rouse(self, self._hub.end))
    async with streamed(reader.url, TOKEN, after=world.head) as stream:
        await stream.next("bookmark")
        await world.append((APP, AppRenamed(name="lost")))
        await eventually(lambda: reader.app.state.feed.hub.end == world.head)
        await world.append((APP, AppRenamed(name="told, perhaps")))
        with pytest.raises((TimeoutError, AssertionError)):
            require_same([(await stream.next("event", timeout_s=1)).data], (await read_log(world))[-2:-1])


async def test_planted_a_seam_between_database_and_ring_loses_or_repeats(
    database: Database, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the database beyond what the ring ends with is told of it once more."""
    tell = chunks.tell
    monkeypatch.setattr(events, "tell", lambda found, examined, epoch: tell(found, examined - 1, epoch))
    async with served(database, feed_ring_events=10) as reader:
        await append_some(world, Random(5), 60)
        log = await read_log(world)
        async with streamed(reader.url, TOKEN) as stream:
            told = await stream.events_to(world.head)
        with pytest.raises(AssertionError):
            require_same([each.data for each in told], log)


async def test_f29_what_could_not_be_read_is_told_once_the_database_is_back(
    database: Database, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a stream that is behind the ring cannot read, events that concern it arrive; none of before is skipped."""
    is_away, tried = True, asyncio.Event()

    async def read_or_fail(*args: Any) -> Any:
        if is_away:
            tried.set()
            raise ConnectionError("away")
        return await read.read_filtered(*args)

    monkeypatch.setattr(events, "read_filtered", read_or_fail)
    async with served(database, feed_ring_events=10) as reader:
        await append_some(world, Random(7), 30)
        await has_arrived(world, reader)
        async with streamed(reader.url, TOKEN) as stream:
            await tried.wait()
            await append_some(world, Random(8), 5)
            await has_arrived(world, reader)
            is_away = False
            await append_some(world, Random(9), 5)
            told = await stream.events_to(world.head)
    require_same([each.data for each in told], await read_log(world))


# F30


async def test_f30_a_cursor_of_another_epoch_or_beyond_the_head_is_gone(world: World, reader: Reader) -> None:
    for place in ("another-1", f"another-{world.head}", f"{world.epoch}-{world.head + 1}"):
        by_header = await connect(reader.url, "/v1/events", TOKEN, {"Last-Event-ID": place})
        by_parameter = await connect(reader.url, "/v1/events", TOKEN, after=place)
        for refused in (by_header, by_parameter):
            assert refused.status == 410
            assert (await refused.read_problem())["code"] == "cursor_expired"
            refused.writer.close()
    beyond = await connect(reader.url, "/v1/events", TOKEN, after=world.head + 1)
    assert beyond.status == 410
    beyond.writer.close()


async def test_f30_what_is_beyond_this_replica_is_looked_for_before_it_is_called_gone(
    world: World, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another replica has told a client of an event that has not arrived here, since this one does not look."""

    async def look_away(_: Follower) -> None:
        pass

    await has_arrived(world, reader)
    with monkeypatch.context() as patched:
        patched.setattr(Follower, "look", look_away)
        await world.append((APP, AppRenamed(name="elsewhere")))
        stream = await connect(reader.url, "/v1/events", TOKEN, {"Last-Event-ID": f"{world.epoch}-{world.head}"})
        assert (stream.status, reader.app.state.feed.hub.end) == (200, world.head - 1)
    await world.append((APP, AppRenamed(name="here")))
    assert [each.position for each in await stream.events_to(world.head)] == [world.head]
    stream.writer.transport.abort()


@pytest.mark.parametrize(
    "garbage", ["", "x", "1", "-1", "a-", "a--1", "a-01", "A-1", "a-1 ", "a-1\t2", "é-1", "a" * 5000]
)
async def test_f30_garbage_is_refused(world: World, reader: Reader, garbage: str) -> None:
    assert world.head
    refused = await connect(reader.url, "/v1/events", TOKEN, {"Last-Event-ID": garbage})
    assert (refused.status, (await refused.read_problem())["code"]) == (400, "bad_cursor")
    refused.writer.close()


async def test_what_a_stream_cannot_be_asked(world: World, reader: Reader) -> None:
    asked: list[tuple[dict[str, Any], str]] = [
        ({"limit": 5}, "not_supported"),
        ({"order": "asc"}, "not_supported"),
        ({"since": "2026-01-01T00:00:00Z"}, "not_supported"),
        ({"until": "2026-01-01T00:00:00Z"}, "not_supported"),
        ({"wait": 5}, "not_supported"),
        ({"min_position": world.head}, "not_supported"),
        ({"as_of": 1}, "not_supported"),
        ({"color": "red"}, "invalid"),
        ({"after": "x"}, "bad_cursor"),
    ]
    for params, code in asked:
        refused = await connect(reader.url, "/v1/events", TOKEN, **params)
        assert (refused.status, (await refused.read_problem())["code"]) == (400, code), params
        refused.writer.close()


async def test_f26_when_the_epoch_changes_streams_say_so_and_end(world: World, reader: Reader) -> None:
    async with streamed(reader.url, TOKEN) as stream, streamed(reader.url, TOKEN, node_id=NODE) as quiet:
        await stream.events_to(world.head)
        await quiet.next("bookmark")
        await world.owner.execute("UPDATE log.head SET epoch = 'another'")
        await world.append((APP, AppRenamed(name="in another epoch")))
        for each in (stream, quiet):
            [last] = [frame for frame in await each.rest() if frame.kind != "comment"]
            assert (last.kind, last.data["epoch"], last.id) == ("resync", "another", None)
    again = await connect(reader.url, "/v1/events", TOKEN, after=f"{world.epoch}-{world.head}")
    assert again.status == 410
    again.writer.close()
    async with streamed(reader.url, TOKEN) as anew:
        told = await anew.events_to(world.head)
        assert {each.id.partition("-")[0] for each in told if each.id} == {"another"}


async def test_f26_no_stream_begins_on_what_was_read_in_an_epoch_that_has_ended(world: World, reader: Reader) -> None:
    """The process knows of another from its first connection to it; the feed has read nothing of that yet."""
    async with streamed(reader.url, TOKEN) as stream:
        await stream.events_to(world.head)
        reader.app.state.epoch.learn("another")
        refused = await connect(reader.url, "/v1/events", TOKEN, after=f"{world.epoch}-{world.head}")
        assert refused.status == 503
        refused.writer.close()


async def test_f26_who_begins_a_stream_while_an_epoch_begins_has_nothing_to_throw_away(
    world: World, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come from that epoch already: to be told of another one would have it resync for nothing."""
    async with streamed(reader.url, TOKEN) as before:
        await before.events_to(world.head)
    begin = EventSource.begin

    async def begin_late(source: EventSource, subscription: Subscription) -> None:
        await world.owner.execute("UPDATE log.head SET epoch = 'another'")
        await world.append((APP, AppRenamed(name="in another epoch")))
        await eventually(lambda: subscription.resync is not None)
        await begin(source, subscription)

    with monkeypatch.context() as patch:
        patch.setattr(EventSource, "begin", begin_late)
        refused = await connect(reader.url, "/v1/events", TOKEN)
    assert (refused.status, (await refused.read_problem())["code"]) == (503, "unavailable")
    refused.writer.close()
    async with streamed(reader.url, TOKEN, after=f"another-{world.head}") as stream:
        assert (await stream.next("bookmark", "resync")).id == f"another-{world.head}"


async def test_f26_when_the_log_ends_before_what_was_read_streams_say_so(world: World, reader: Reader) -> None:
    """A copy of before was put back, and its epoch is the same: what was told of the lost events is no more true."""
    async with streamed(reader.url, TOKEN) as stream:
        await stream.events_to(world.head)
        lost = world.head
        await world.owner.execute("ALTER TABLE log.events DISABLE TRIGGER USER")
        await world.owner.execute("DELETE FROM log.events WHERE position = $1", lost)
        await world.owner.execute("UPDATE log.head SET position = $1", lost - 1)
        last = await stream.next("resync")
        assert (last.data["epoch"], last.id) == (world.epoch, None)


# F31


async def test_f31_a_quiet_stream_is_told_how_far_it_is(database: Database, world: World) -> None:
    """Nothing matches, while the log grows: bookmarks go on, and comments where nothing moves."""
    async with (
        served(database, feed_bookmark_interval_s=0.3) as reader,
        streamed(reader.url, TOKEN, app_id=APPS[4]) as stream,
    ):
        assert (await stream.next("bookmark")).position == world.head
        for _ in range(3):
            await append_some_of_others(world)
            bookmark = await stream.next("bookmark")
            assert (bookmark.position, bookmark.id) == (world.head, f"{world.epoch}-{world.head}")
        assert (await stream.frame()).kind == "comment"
        async with streamed(reader.url, TOKEN, headers={"Last-Event-ID": bookmark.id or ""}) as resumed:
            assert (await resumed.next("bookmark")).position == world.head


async def append_some_of_others(world: World) -> None:
    """Append a command that is not about the last of the apps."""
    await world.append((APPS[0], AppRenamed(name="x")), (APPS[1], AppRenamed(name="y")))


async def test_f31_bookmarks_and_events_are_in_one_order(database: Database, world: World) -> None:
    """Whatever the intervals, a position is never told twice, nor after one that is beyond it."""
    random = Random(6)
    async with (
        served(database, feed_bookmark_interval_s=0.02) as reader,
        streamed(reader.url, TOKEN, app_id=APPS[1]) as stream,
    ):
        frames = []
        for _ in range(40):
            await append_some(world, random, 2)
            frames.append(await stream.next("event", "bookmark"))
        await world.append((APPS[1], AppRenamed(name="last")))
        while frames[-1].position < world.head:
            frames.append(await stream.next("event", "bookmark"))
    positions = [frame.position for frame in frames]
    assert positions == sorted(set(positions))
    log = await read_log(world, lambda row: row["app_id"] == APPS[1])
    require_same([frame.data for frame in frames if frame.kind == "event"], log)


# By long poll.


async def test_a_page_is_waited_for(world: World, reader: Reader) -> None:
    waiting = asyncio.create_task(reader.get("/v1/events", after=world.head, wait=30))
    await eventually(lambda: reader.app.state.feed.streams == 1)
    await world.append((APP, AppRenamed(name="store")))
    answer = await waiting
    assert [each["position"] for each in answer.body["items"]] == [world.head]
    assert answer.body["next"] == answer.body["position"] == f"{world.epoch}-{world.head}"
    assert (await reader.get("/v1/events", after=0, wait=30)).body["items"], "what is there is given at once"


async def test_a_page_is_waited_for_no_longer_than_was_asked(world: World, reader: Reader) -> None:
    """Nothing that happened meanwhile matched; the cursor has moved all the same."""
    waiting = asyncio.create_task(reader.get("/v1/events", after=world.head, wait=1, node_id=NODE))
    await eventually(lambda: reader.app.state.feed.streams == 1)
    await world.append((APP, AppRenamed(name="store")))
    answer = await waiting
    assert (answer.status, answer.body["items"], answer.body["next"]) == (200, [], f"{world.epoch}-{world.head}")


async def test_f30_waiting_for_what_is_after_a_place_that_is_gone(world: World, reader: Reader) -> None:
    for place in ("another-1", f"{world.epoch}-{world.head + 1}"):
        answer = await reader.get("/v1/events", after=place, wait=30)
        assert (answer.status, answer.code) == (410, "cursor_expired")


async def test_f26_a_page_that_is_waited_for_is_of_one_epoch(world: World, reader: Reader) -> None:
    waiting = asyncio.create_task(reader.get("/v1/events", after=world.head, wait=30))
    await eventually(lambda: reader.app.state.feed.streams == 1)
    await world.owner.execute("UPDATE log.head SET epoch = 'another'")
    await world.append((APP, AppRenamed(name="in another epoch")))
    answer = await waiting
    assert (answer.status, answer.code) == (410, "cursor_expired")


async def test_list_then_watch(world: World, reader: Reader) -> None:
    """The position of a page of rows is where the feed goes on from: nothing is between them."""
    await world.project()
    page = await reader.get("/v1/apps")
    assert page.body["position"] == world.head
    await world.append((APP, AppRenamed(name="store")))
    async with streamed(reader.url, TOKEN, after=page.body["position"], aggregate_type="app") as stream:
        assert [each.position for each in await stream.events_to(world.head)] == [world.head]
