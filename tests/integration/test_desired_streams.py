"""Desired state as a stream and by long polls: nothing is missed, and only the node concerned costs anything."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from random import Random
from time import monotonic
from typing import Any

import msgspec
import pytest

from integration.test_query_desired import DRAIN, OTHER_NODE, READY, ROUTE, STOPPED, enrolled, place, released
from keelson.client import Client, Desired, ProblemError, StreamTimes
from keelson.client.stream import DesiredItem
from keelson.events.app import AppRenamed
from keelson.events.ids import AggregateId
from keelson.events.node import NodeEnrollmentCreated, NodeRemoved
from keelson.events.route import RouteCreated
from keelson.query.desired.snapshots import Snapshots
from keelson.query.desired.watching import Watching
from keelson.query.feed.follower import Follower
from keelson.query.reads import View
from support.cast import enroll
from support.command_world import open_world as open_commands
from support.database import Database
from support.independent_desired import digest_of, expected_at
from support.log import begin_epoch
from support.proxy import Direction, Fate, proxied
from support.query_world import APP, ENV, INSTANCE_IDS, NODE, TOKEN, Reader, World, make_id, open_world, served
from support.sse import Frame, Stream, streamed
from support.waiting import eventually

PATH = f"/v1/nodes/{NODE}/desired"
OTHER_PATH = f"/v1/nodes/{OTHER_NODE}/desired"
QUICK = StreamTimes(retry_s=0.01, max_retry_s=0.05)


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database) as world:
        await world.append_base()
        for node in (NODE, OTHER_NODE):
            await add_node(world, node)
        await world.append((ENV, released(web=2)))
        await world.project()
        yield world


@pytest.fixture
async def reader(database: Database, world: World) -> AsyncIterator[Reader]:
    assert world.head
    async with served(database) as reader:
        yield reader


@pytest.fixture
async def talkative(database: Database, world: World) -> AsyncIterator[Reader]:
    """Serve streams that say often that nothing changed, which some wait for."""
    assert world.head
    async with served(database, feed_bookmark_interval_s=0.2) as reader:
        yield reader


async def add_node(world: World, node: AggregateId) -> None:
    created = NodeEnrollmentCreated(world.time_of(world.head), make_id("credential", 1))
    await world.append((node, created))
    await world.append((node, enrolled(node[-9:])))


async def drain(world: World, instance: AggregateId, node: AggregateId = NODE) -> None:
    await world.append((instance, DRAIN), ids=msgspec.structs.replace(INSTANCE_IDS, node_id=node))


async def told(stream: Stream) -> Frame:
    """Give the next snapshot; its digest must be right, and its id its version."""
    frame = await stream.next("event", "bookmark")
    assert frame.kind == "event", frame
    assert frame.data["digest"] == digest_of(frame.data["items"])
    assert frame.id is not None
    assert frame.id.partition("-")[2] == str(frame.data["version"])
    return frame


async def confirmed(stream: Stream) -> Frame:
    """Give the next bookmark; nothing else may come before it."""
    frame = await stream.next("event", "bookmark")
    assert frame.kind == "bookmark", frame
    assert frame.id is not None
    assert frame.id.partition("-")[2] == str(frame.data["version"])
    return frame


def ids_of(frame: Frame) -> list[str]:
    return [each["instance_id"] for each in frame.data["items"]]


@asynccontextmanager
async def client_of(url: str, token: str = TOKEN) -> AsyncIterator[Client]:
    async with Client(url, url, token, stream_times=QUICK) as client:
        yield client


async def test_what_should_be_is_told_first_and_whenever_it_changes(world: World, reader: Reader) -> None:
    async with streamed(reader.url, TOKEN, PATH) as stream:
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")
        assert (await stream.frame()).kind == "retry"
        empty = await told(stream)
        assert empty.data == {"version": 0, "digest": digest_of([]), "items": [], "position": world.head}
        assert empty.id == f"{world.epoch}-0"

        instance = await place(world, 1)
        allocated = world.head
        await world.project()
        first = await told(stream)
        plain = (await reader.get(PATH)).body
        assert first.data == plain
        assert (first.id, ids_of(first)) == (f"{world.epoch}-{allocated}", [instance])

        await world.append((instance, READY))
        await drain(world, instance)
        draining = world.head
        await world.project()
        second = await told(stream)
        assert (second.data["version"], second.data["items"][0]["desired_state"]) == (draining, "draining")
        await world.append((instance, STOPPED))
        await world.project()
        last = await told(stream)
        assert (last.data["version"], last.data["items"]) == (world.head, [])


async def test_what_the_client_knows_is_confirmed_and_not_told_again(world: World, reader: Reader) -> None:
    await place(world, 1)
    version = world.head
    await world.append((APP, AppRenamed(name="store")))
    await world.project()
    known = f"{world.epoch}-{version}"
    for asked in ({"headers": {"Last-Event-ID": known}}, {"after": known}, {"after": version}, {"after": world.head}):
        async with streamed(reader.url, TOKEN, PATH, **asked) as stream:
            mark = await confirmed(stream)
            assert (mark.id, mark.data["version"], mark.data["position"]) == (known, version, world.head)
    async with streamed(reader.url, TOKEN, PATH, headers={"Last-Event-ID": known}) as stream:
        await confirmed(stream)
        await place(world, 2)
        await world.project()
        assert len(ids_of(await told(stream))) == 2
    async with streamed(reader.url, TOKEN, PATH, after=version - 1) as stream:
        assert (await told(stream)).id == f"{world.epoch}-{version + 2}"


async def test_f31_in_silence_a_node_is_told_that_it_is_current_and_as_of_when(
    world: World, database: Database
) -> None:
    async with served(database, feed_bookmark_interval_s=0.05) as reader:
        instance = await place(world, 1)
        version = world.head
        await world.project()
        async with streamed(reader.url, TOKEN, PATH) as stream:
            snapshot = await told(stream)
            await world.append((APP, AppRenamed(name="store")))
            await place(world, 2, node=OTHER_NODE)
            await world.append((instance, READY))
            await world.project()
            mark = await confirmed(stream)
            while mark.data["position"] < world.head:
                mark = await confirmed(stream)
            assert mark.id == f"{world.epoch}-{version}"
            assert mark.data == {"version": version, "digest": snapshot.data["digest"], "position": world.head}


async def test_the_view_is_waited_for_before_a_change_is_told(world: World, reader: Reader) -> None:
    """The log tells of a change before the view shows it: what is told is the change, and not what was before it."""
    async with streamed(reader.url, TOKEN, PATH) as stream:
        await told(stream)
        first = await place(world, 1)
        await eventually(lambda: reader.app.state.feed.hub.end == world.head)
        second = await place(world, 2)
        await world.project()
        assert ids_of(await told(stream)) == [first, second]


async def catches_up(world: World, database: Database) -> bool:
    """Whether a change is told that the log had and the view had not when the stream began.

    One that is missed is told of too: a bookmark says that there is none up to a position that is beyond it.
    """
    async with served(database, feed_bookmark_interval_s=0.05) as reader:
        instance = await place(world, 1)
        await eventually(lambda: reader.app.state.feed.hub.end == world.head)
        async with asyncio.timeout(30), streamed(reader.url, TOKEN, PATH) as stream:
            snapshot = await told(stream)
            assert snapshot.data["items"] == []
            await world.project()
            while True:
                frame = await stream.next("event", "bookmark")
                if frame.kind == "event":
                    return ids_of(frame) == [instance]
                if frame.position >= world.head:
                    return False


async def test_a_change_between_the_first_look_and_the_first_event_is_told(world: World, database: Database) -> None:
    assert await catches_up(world, database)


async def test_planted_a_stream_that_takes_its_first_look_for_the_head_misses_a_change(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Watching.begin

    async def begin_at_the_head(self: Watching, *args: Any) -> None:
        await begin(self, *args)
        self._heard = self._hub.end

    monkeypatch.setattr(Watching, "begin", begin_at_the_head)
    assert not await catches_up(world, database)


async def follow(items: AsyncGenerator[DesiredItem, None], last: int) -> list[DesiredItem]:
    """Follow up to a version."""
    taken = []
    async with asyncio.timeout(30), aclosing(items):
        async for each in items:
            taken.append(each)
            if each.version >= last:
                return taken
    raise AssertionError("it follows for ever")


async def is_followed_through_cuts(world: World, reader: Reader, seed: int) -> bool:
    """Whether a client that is cut off at any byte is given versions that were, in order, and the last one (F29)."""
    random = Random(seed)
    host, port = reader.url.removeprefix("http://").split(":")
    async with proxied(reader.url) as proxy, client_of(proxy.url(reader.url)) as client:
        proxy.fate = lambda: Fate(
            (host, int(port)), Direction(cut_after_bytes=random.randrange(1, 40_000), resets=random.random() < 0.5)
        )
        last = asyncio.get_running_loop().create_future()
        following = asyncio.create_task(collect(client.follow_desired(NODE), last))
        instances: list[AggregateId] = []
        for number in range(1, 40):
            await change_something(world, random, instances, number)
            if random.random() < 0.5:
                await world.project()
            await asyncio.sleep(random.random() * 0.01)
        end = await place(world, 99)
        await world.project()
        last.set_result(world.head)
        given = await asyncio.wait_for(following, 30)
    events = [dict(row) for row in await world.owner.fetch("SELECT * FROM log.events ORDER BY position")]
    ever = {}
    for position in range(world.head + 1):
        expected = expected_at(events, NODE, position)
        ever[expected.version] = expected.digest
    snapshots = [each for each in given if isinstance(each, Desired)]
    versions = [each.version for each in snapshots]
    assert end in [each.instance_id for each in snapshots[-1].items]
    return versions == sorted(set(versions)) and all(ever.get(each.version) == each.digest for each in given)


async def collect(items: AsyncGenerator[DesiredItem, None], last: "asyncio.Future[int]") -> list[DesiredItem]:
    taken = []
    async with aclosing(items):
        async for each in items:
            taken.append(each)
            if last.done() and each.version == last.result():
                break
    return taken


async def change_something(world: World, random: Random, instances: list[AggregateId], number: int) -> None:
    choice = random.random()
    if choice < 0.4 or not instances:
        instances.append(await place(world, number))
    elif choice < 0.6:
        await drain(world, random.choice(instances))
    elif choice < 0.75:
        await world.append((instances.pop(random.randrange(len(instances))), STOPPED))
    elif choice < 0.9:
        await place(world, number, node=OTHER_NODE)
    else:
        await world.append((random.choice(instances), READY))


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_f29_no_change_is_missed_wherever_the_connection_is_cut(
    world: World, talkative: Reader, seed: int
) -> None:
    assert await is_followed_through_cuts(world, talkative, seed)


async def test_versions_only_grow_in_what_a_stream_tells(world: World, reader: Reader) -> None:
    async with client_of(reader.url) as client:
        following = asyncio.create_task(follow(client.follow_desired(NODE), world.head + 20))
        for number in range(1, 21):
            await place(world, number)
            await world.project()
        given = await following
    versions = [each.version for each in given if isinstance(each, Desired)]
    assert versions == sorted(set(versions))


# ---- what it costs ----


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Give the keys of each statement that reads desired state."""
    made: list[set[str]] = []
    read_rows = View.read_rows

    async def counting(self: View, db: Any, keys: Any, **options: Any) -> Any:
        if self.name in ("node_desired", "edge_desired"):
            made.append(set(keys))
        return await read_rows(self, db, keys, **options)

    monkeypatch.setattr(View, "read_rows", counting)
    return made


async def test_a_nodes_change_costs_the_others_nothing(
    world: World, reader: Reader, statements: list[set[str]]
) -> None:
    async with streamed(reader.url, TOKEN, PATH) as stream, streamed(reader.url, TOKEN, OTHER_PATH) as other:
        await told(stream)
        await told(other)
        statements.clear()
        for number in range(1, 11):
            await place(world, number)
            await world.append((APP, AppRenamed(name=f"store-{number}")))
            await world.project()
            await told(stream)
        assert 10 <= len(statements) <= 20
        assert set.union(*statements) == {NODE}


async def test_many_nodes_that_change_at_once_share_a_statement(
    world: World, reader: Reader, statements: list[set[str]]
) -> None:
    nodes = [make_id("node", number) for number in range(10, 60)]
    for node in nodes:
        await add_node(world, node)
    await world.project()
    streams = [streamed(reader.url, TOKEN, f"/v1/nodes/{node}/desired") for node in nodes]
    opened = [await stream.__aenter__() for stream in streams]
    try:
        await asyncio.gather(*(told(stream) for stream in opened))
        statements.clear()
        async with world.owner.transaction():
            for number, node in enumerate(nodes, start=100):
                await place(world, number, node=node)
        await eventually(lambda: reader.app.state.feed.hub.end == world.head)
        await world.project()
        told_all = await asyncio.gather(*(told(stream) for stream in opened))
    finally:
        for stream in streams:
            await stream.__aexit__(None, None, None)
    assert all(len(ids_of(each)) == 1 for each in told_all)
    assert set.union(*statements) == set(nodes)
    assert len(statements) <= 10, [len(each) for each in statements]


async def test_all_who_watch_a_node_are_told_the_same_bytes_that_were_made_once(
    world: World, reader: Reader, statements: list[set[str]]
) -> None:
    async with streamed(reader.url, TOKEN, PATH) as first, streamed(reader.url, TOKEN, PATH) as second:
        await told(first)
        await told(second)
        statements.clear()
        await place(world, 1)
        await world.project()
        assert await told(first) == await told(second)
        assert len(statements) == 1
        snapshots: Snapshots = reader.app.state.node_desired
        [reading] = [board._reading for board in snapshots._boards.values()]
        assert reading is not None
        assert "frame" in vars(reading.snapshot)
    await eventually(lambda: not snapshots._boards)


async def test_waiting_and_streaming_hold_no_connection(world: World, database: Database) -> None:
    async with served(database, pool_size=1) as reader, streamed(reader.url, TOKEN, PATH) as stream:
        await told(stream)
        polls = [asyncio.create_task(reader.get(PATH, wait=20, after=world.head)) for _ in range(20)]
        assert (await reader.get(f"/v1/apps/{APP}")).status == 200
        await place(world, 1)
        await world.project()
        assert {answer.body["version"] for answer in await asyncio.gather(*polls)} == {world.head}
        assert (await told(stream)).data["version"] == world.head


# ---- long polls ----


async def test_a_long_poll_answers_at_once_if_there_is_another_version(world: World, reader: Reader) -> None:
    await place(world, 1)
    await world.project()
    for asked in ({"wait": 20}, {"wait": 20, "after": world.head - 1}, {"after": 1}, {"after": f"{world.epoch}-1"}):
        answer = await asyncio.wait_for(reader.get(PATH, **asked), 5)
        assert (answer.status, answer.body) == (200, (await reader.get(PATH)).body)


async def test_a_long_poll_is_held_until_the_version_is_another(
    world: World, reader: Reader, statements: list[set[str]]
) -> None:
    await place(world, 1)
    version = world.head
    await world.project()
    statements.clear()
    waiting = asyncio.create_task(reader.get(PATH, wait=20, after=version))
    await eventually(lambda: len(statements) == 1)
    for number in range(2, 6):
        await place(world, number, node=OTHER_NODE)
        await world.append((APP, AppRenamed(name=f"store-{number}")))
    await world.project()
    await place(world, 6)
    await world.project()
    answer = await waiting
    assert (answer.status, answer.body["version"], len(answer.body["items"])) == (200, world.head, 2)
    assert answer.headers["Keelson-Position"] == str(answer.body["position"])
    assert len(statements) == 2


async def test_a_long_poll_ends_with_what_there_is(world: World, reader: Reader) -> None:
    await place(world, 1)
    await world.project()
    began = monotonic()
    answer = await reader.get(PATH, wait=1, after=world.head)
    assert (answer.status, answer.body["version"]) == (200, world.head)
    assert 0.9 < monotonic() - began < 5


async def deafen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the log arrive in the replica no more."""
    is_deaf, never = asyncio.Event(), asyncio.Event()

    async def look(_: Follower) -> None:
        is_deaf.set()
        await never.wait()

    monkeypatch.setattr(Follower, "look", look)
    await asyncio.wait_for(is_deaf.wait(), 10)


async def test_a_held_read_reflects_its_min_position_where_the_log_has_not_arrived_yet(
    world: World, reader: Reader, monkeypatch: pytest.MonkeyPatch, statements: list[set[str]]
) -> None:
    """The view may be ahead of what the replica heard of, and what others were told behind the view."""
    await place(world, 1)
    version = world.head
    await world.project()
    async with streamed(reader.url, TOKEN, PATH) as stream:  # so that what was read is kept
        await told(stream)
        await deafen(monkeypatch)
        await place(world, 2, node=OTHER_NODE)
        await world.project()
        held: tuple[dict[str, Any], ...] = ({"wait": 20}, {"after": version}, {"wait": 1, "after": version})
        for asked in held:
            statements.clear()
            answer = await reader.get(PATH, min_position=world.head, **asked)
            assert (answer.status, answer.body["version"], answer.body["position"]) == (200, version, world.head)
            assert len(statements) <= 1
            await world.append((APP, AppRenamed(name=f"store-{world.head}")))
            await world.project()


async def test_a_held_read_waits_on_for_the_view_that_its_min_position_was_not_in(
    world: World, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place(world, 1)
    version = world.head
    await world.project()
    await deafen(monkeypatch)
    await place(world, 2)
    waiting = asyncio.create_task(
        reader.get(PATH, wait=20, after=version, min_position=world.head, headers={"Prefer": "wait=0"})
    )
    await eventually(lambda: reader.app.state.feed.streams == 1)
    await world.project()
    answer = await asyncio.wait_for(waiting, 15)
    assert (answer.status, answer.body["version"], answer.body["position"]) == (200, world.head, world.head)


async def test_a_held_read_of_a_node_that_the_view_has_not_yet_says_so(world: World, reader: Reader) -> None:
    node = make_id("node", 10)
    await add_node(world, node)
    path, at_once = f"/v1/nodes/{node}/desired", {"Prefer": "wait=0"}
    plain = await reader.get(path, min_position=world.head, headers=at_once)
    held = await reader.get(path, min_position=world.head, headers=at_once, wait=1)
    for answer in (plain, held):
        assert (answer.status, answer.code) == (504, "not_yet")


# ---- places ----


async def test_f30_places_that_mean_nothing_are_refused(world: World, reader: Reader) -> None:
    beyond = world.head + 1
    for asked, expected in (
        ({"after": "other-1"}, (410, "cursor_expired")),
        ({"after": beyond}, (410, "cursor_expired")),
        ({"after": f"{world.epoch}-{beyond}"}, (410, "cursor_expired")),
        ({"after": "garbage"}, (400, "bad_cursor")),
        ({"after": "-1"}, (400, "bad_cursor")),
    ):
        answer = await reader.get(PATH, wait=5, **asked)
        assert (answer.status, answer.code) == expected
        answer = await reader.get(PATH, headers={"Accept": "text/event-stream"}, **asked)
        assert (answer.status, answer.code) == expected
    for given, expected in (("other-1", (410, "cursor_expired")), ("7", (400, "bad_cursor"))):
        answer = await reader.get(PATH, headers={"Accept": "text/event-stream", "Last-Event-ID": given})
        assert (answer.status, answer.code) == expected


async def test_what_a_stream_has_not_is_refused(reader: Reader) -> None:
    for asked in ({"wait": "1"}, {"min_position": "1"}):
        answer = await reader.get(PATH, headers={"Accept": "text/event-stream"}, **asked)
        assert (answer.status, answer.code) == (400, "not_supported")
    answer = await reader.get(PATH, headers={"Last-Event-ID": "e-1"})
    assert (answer.status, answer.code) == (400, "not_supported")
    for wait in ("0", "31", "soon"):
        assert (await reader.get(PATH, wait=wait)).code == "invalid"


async def test_a_node_that_is_not_there_has_no_stream(world: World, reader: Reader) -> None:
    await world.append((OTHER_NODE, NodeRemoved()))
    await world.project()
    for unknown in (OTHER_NODE, make_id("node", 9), APP, "x"):
        for asked in ({"headers": {"Accept": "text/event-stream"}}, {"wait": 20, "after": 1}):
            answer = await asyncio.wait_for(reader.get(f"/v1/nodes/{unknown}/desired", **asked), 5)
            assert (answer.status, answer.code) == (404, "not_found")


async def test_f26_a_stream_of_before_ends_where_another_epoch_begins(world: World, reader: Reader) -> None:
    await place(world, 1)
    await world.project()
    async with streamed(reader.url, TOKEN, PATH) as stream:
        await told(stream)
        await begin_epoch(world.owner, "later")
        await world.project()
        *_, last = await stream.rest()
        assert (last.kind, last.id, last.data["epoch"]) == ("resync", None, "later")
    async with streamed(reader.url, TOKEN, PATH) as stream:
        again = await told(stream)
        assert str(again.id).startswith("later-")


# ---- ends ----


async def test_f33_a_stream_ends_with_its_place_when_the_service_stops(world: World, database: Database) -> None:
    await place(world, 1)
    version = world.head
    await world.project()
    async with served(database) as reader, streamed(reader.url, TOKEN, PATH) as stream:
        await told(stream)
        waiting = asyncio.create_task(reader.get(PATH, wait=30, after=version))
        await eventually(lambda: reader.app.state.feed.streams == 2)
        reader.app.state.feed.hub.stop()
        *_, last = await stream.rest(timeout_s=2)
        assert (last.kind, last.id) == ("bookmark", f"{world.epoch}-{version}")
        answer = await asyncio.wait_for(waiting, 2)
        assert (answer.status, answer.body["version"]) == (200, version)


async def test_a_stream_outlives_a_view_that_is_away(world: World, reader: Reader) -> None:
    async with streamed(reader.url, TOKEN, PATH) as stream:
        await told(stream)
        await world.projector.execute("ALTER VIEW views.node_desired RENAME TO put_aside")
        instance = await place(world, 1)
        await world.project()
        await eventually(lambda: _is_away(reader))
        await world.projector.execute("ALTER VIEW views.put_aside RENAME TO node_desired")
        assert ids_of(await told(stream)) == [instance]


async def _is_away(reader: Reader) -> bool:
    return (await reader.get(PATH)).status == 503


async def test_a_stream_ends_when_its_node_is_removed(world: World, reader: Reader) -> None:
    async with streamed(reader.url, TOKEN, PATH) as stream:
        await told(stream)
        waiting = asyncio.create_task(reader.get(PATH, wait=30, after=world.head))
        await eventually(lambda: reader.app.state.feed.streams == 2)
        await world.append((NODE, NodeRemoved()))
        await world.project()
        assert [each.kind for each in await stream.rest(timeout_s=2)] == []
        assert (await waiting).code == "not_found"
    async with client_of(reader.url) as client:
        with pytest.raises(ProblemError, match="404 not_found"):
            await follow(client.follow_desired(NODE), 10**9)


async def test_f34_a_nodes_stream_ends_within_a_second_of_its_removal(database: Database) -> None:
    """By its own credential, which nobody else's node accepts, and which ends with the node."""
    async with open_commands(database) as commands, open_world(database) as views, served(database) as reader:
        node_id, token = await enroll(commands, "one")
        other_id, _ = await enroll(commands, "two")
        await views.project()
        path = f"/v1/nodes/{node_id}/desired"
        async with streamed(reader.url, token, path) as stream:
            assert (await told(stream)).data["version"] == 0
            assert (await reader.get(f"/v1/nodes/{other_id}/desired", token=token)).status == 404
            assert (await reader.get("/v1/edge/desired", token=token)).status == 403
            removed = await commands.replica.command("node.remove", node_id=node_id)
            assert removed.status == 200, removed.body
            began = monotonic()
            assert await stream.rest(timeout_s=2) == []
            assert monotonic() - began < 1
        await eventually(lambda: _is_refused(reader, path, token))


async def _is_refused(reader: Reader, path: str, token: str) -> bool:
    return (await reader.get(path, token=token)).status == 401


# ---- edges ----


async def test_edges_are_told_where_hostnames_lead_and_nothing_that_does_not_change_it(
    world: World, database: Database
) -> None:
    async with served(database, feed_bookmark_interval_s=0.05) as reader:
        await world.append((ROUTE, RouteCreated(hostname="shop.example", process="web", port="http")))
        await world.project()
        async with streamed(reader.url, TOKEN, "/v1/edge/desired") as stream:
            first = await told(stream)
            assert [each["backends"] for each in first.data["items"]] == [[]]
            await place(world, 1)
            await world.project()
            mark = await confirmed(stream)
            while mark.data["version"] < world.head:
                mark = await confirmed(stream)
            assert mark.data["digest"] == first.data["digest"], "a version that comes to the same is not told again"
            await world.append((make_id("instance", 1), READY))
            await world.project()
            second = await stream.next("event")
            assert second.data["version"] == world.head
            assert [len(each["backends"]) for each in second.data["items"]] == [1]
        answer = await reader.get("/v1/edge/desired", wait=5, after=1)
        assert (answer.status, answer.body["version"]) == (200, world.head)
