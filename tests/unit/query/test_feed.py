"""The parts of the change feed by themselves: the ring, who is woken by what, chunks, and sleeping."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from keelson.events import Envelope
from keelson.events.ids import AggregateId, Position, Seq
from keelson.log.read import Filter
from keelson.query.feed import chunks
from keelson.query.feed.chunks import read_ring, tell
from keelson.query.feed.events import PAGE_EVENTS, EventSource, following_page
from keelson.query.feed.frames import write_frame
from keelson.query.feed.hub import Hub, Subscription
from keelson.query.feed.interests import Interest, Interests, key_of
from keelson.query.feed.ring import ENTRY_BYTES, Entry, Ring
from keelson.query.places import Place

ORGS, APPS = ("org_1", "org_2"), ("app_1", "app_2", "app_3")


def envelope(
    position: int, *, command: int | None = None, end: bool = True, payload: str = "{}", **ids: Any
) -> Envelope:
    """Make an event of a command, by default one of its own."""
    app_id = ids.pop("app_id", APPS[0])
    return Envelope(
        position=Position(position),
        aggregate_id=AggregateId(ids.pop("aggregate_id", app_id)),
        seq=Seq(1),
        type=ids.pop("type", "app.renamed"),
        version=1,
        actor_type="system",
        actor_id="operator",
        request_id="r",
        command_id=f"command_{position if command is None else command}",
        command_end=end,
        recorded_at=datetime(2026, 1, 1, tzinfo=UTC),
        payload=payload,
        org_id=ids.pop("org_id", ORGS[0]),
        app_id=app_id,
        **ids,
    )


def ring_of(*envelopes: Envelope, max_events: int = 1000, max_bytes: int = 10**9) -> Ring:
    ring = Ring(max_events=max_events, max_bytes=max_bytes)
    ring.extend(envelopes)
    return ring


# The ring.


def test_a_ring_keeps_the_last_events_in_number() -> None:
    ring = ring_of(*(envelope(position) for position in range(1, 11)), max_events=4)
    assert (ring.start, ring.end, len(ring)) == (6, 10, 4)
    assert [each.envelope.position for each in ring.after(Position(7), 10)] == [8, 9, 10]
    assert [each.envelope.position for each in ring.after(Position(6), 2)] == [7, 8]
    assert list(ring.after(Position(10), 10)) == []


def test_a_ring_keeps_the_last_events_in_bytes() -> None:
    ring = ring_of(max_bytes=5 * ENTRY_BYTES)
    for position in range(1, 8):
        ring.extend([envelope(position)])
    assert len(ring) == 4, "each takes a little more than what an event takes beside its payload"
    ring.extend([envelope(8, payload='"' + "x" * 3 * ENTRY_BYTES + '"')])
    assert (ring.start, ring.end, ring.bytes) == (8, 8, 0), "what is larger than all that may be kept is not kept"
    ring.extend([envelope(9)])
    assert (ring.start, len(ring), ring.bytes) == (8, 1, Entry(envelope(9)).size_bytes)


@pytest.mark.parametrize("position", [1, 3, 4, 6, 100])
def test_a_ring_takes_no_event_twice_and_leaves_none_out(position: int) -> None:
    ring = ring_of(*(envelope(each) for each in range(1, 5)))
    with pytest.raises(ValueError, match="does not follow"):
        ring.extend([envelope(position)])


def test_a_ring_begins_anew() -> None:
    ring = ring_of(*(envelope(each) for each in range(1, 5)))
    ring.restart(Position(100))
    ring.extend([envelope(101)])
    assert (ring.start, ring.end, ring.bytes) == (100, 101, Entry(envelope(101)).size_bytes)


def test_an_event_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []

    def write(event: Envelope) -> bytes:
        encoded.append(event)
        return b"x"

    monkeypatch.setattr("keelson.query.feed.ring.write_event", write)
    entry = Entry(envelope(1))
    assert (entry.frame, entry.frame, len(encoded)) == (b"x", b"x", 1)


# Who is concerned.


def random_filter(random: Random) -> Filter:
    """Give a filter of any of some fields."""
    given = {
        "org_id": random.choice(ORGS),
        "app_id": random.choice(APPS),
        "aggregate_type": random.choice(["app", "env"]),
        "type": random.choice(["app.renamed", "app.created"]),
    }
    return Filter(**{name: value for name, value in given.items() if random.random() < 0.4})


def random_envelope(random: Random, position: int) -> Envelope:
    return envelope(
        position,
        app_id=random.choice(APPS),
        org_id=random.choice(ORGS),
        type=random.choice(["app.renamed", "app.created"]),
        aggregate_id=random.choice([*APPS, "env_1"]),
    )


def matches(sought: Filter, event: Envelope) -> bool:
    """Say it apart from the code."""
    found = {**msgspec.structs.asdict(event), "aggregate_type": event.aggregate_id.split("_")[0]}
    return all(value in (None, found[name]) for name, value in msgspec.structs.asdict(sought).items())


@pytest.mark.parametrize("seed", range(5))
def test_those_are_concerned_whose_filters_match_and_no_others(seed: int) -> None:
    random = Random(seed)
    interests = Interests()
    joined = [interests.join(random_filter(random)) for _ in range(60)]
    for interest in joined:
        interest.sleepers.add(interest)  # type: ignore[arg-type]  # anybody who sleeps
    for interest in joined[:20]:
        interests.leave(interest)
    live = {each.filter for each in joined[20:]}
    assert len(interests) == len(live)
    for position in range(1, 200):
        event = random_envelope(random, position)
        assert {each.filter for each in interests.concerned_by(event)} == {
            each for each in live if matches(each, event)
        }
    for interest in joined[20:]:
        interests.leave(interest)
    assert len(interests) == 0
    assert not list(interests.concerned_by(envelope(1)))


def test_an_event_asks_only_those_whom_it_may_concern(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand filters for other apps cost nothing."""
    asked = []
    original = Interest.matches

    def counting(self: Interest, event: Envelope) -> bool:
        asked.append(self)
        return original(self, event)

    monkeypatch.setattr(Interest, "matches", counting)
    interests = Interests()
    for number in range(1000):
        interest = interests.join(Filter(org_id=ORGS[0], app_id=f"app_{number}"))
        interest.sleepers.add(interest)  # type: ignore[arg-type]
    assert len(list(interests.concerned_by(envelope(1)))) == 1
    assert len(asked) == 1


def test_a_filter_is_found_by_its_narrowest_field() -> None:
    assert key_of(Filter()) is None
    assert key_of(Filter(org_id="o", app_id="a", type="t")) == ("app_id", "a")
    assert key_of(Filter(type="t", aggregate_type="x")) == ("type", "t")


# Chunks.


def ids_in(data: bytes) -> list[str]:
    return [line.removeprefix(b"id: ").decode() for line in data.split(b"\n") if line.startswith(b"id: ")]


def test_ids_stand_on_the_last_event_of_each_command_that_matches() -> None:
    events = [
        envelope(1, command=1, end=False),
        envelope(2, command=1, end=False, app_id=APPS[1]),
        envelope(3, command=1, end=False),
        envelope(4, command=1, app_id=APPS[1]),
        envelope(5),
    ]
    ring = ring_of(*events)
    assert ids_in(read_ring(ring, Interest(Filter()), Position(0), "e").data) == ["e-4", "e-5"]
    chunk = read_ring(ring, Interest(Filter(app_id=APPS[0])), Position(0), "e")
    assert (ids_in(chunk.data), chunk.examined, chunk.told, chunk.events) == (["e-3", "e-5"], 5, 5, 3)
    quiet = read_ring(ring, Interest(Filter(app_id=APPS[2])), Position(0), "e")
    assert (quiet.data, quiet.examined, quiet.told) == (b"", 5, 0)


def test_a_chunk_is_bounded_and_ends_with_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "MAX_CHUNK_BYTES", 1000)
    commands = [envelope(each, command=(each - 1) // 3, end=each % 3 == 0) for each in range(1, 31)]
    ring, interest = ring_of(*commands), Interest(Filter())
    after, told = Position(0), b""
    while after < ring.end:
        chunk = read_ring(ring, interest, after, "e")
        assert chunk.examined % 3 == 0
        assert len(chunk.data) < 1000 + 3 * 600
        after, told = chunk.examined, told + chunk.data
    monkeypatch.undo()
    assert told == tell([Entry(each) for each in commands], ring.end, "e").data


def test_what_is_looked_at_at_once_is_bounded_and_ends_with_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "MAX_SCANNED", 4)
    ring = ring_of(*(envelope(each, command=(each - 1) // 3, end=each % 3 == 0) for each in range(1, 13)))
    assert read_ring(ring, Interest(Filter(app_id=APPS[2])), Position(0), "e").examined == 6


def test_a_chunk_is_put_together_once_for_all_who_are_at_one_place() -> None:
    ring, interest = ring_of(envelope(1), envelope(2)), Interest(Filter())
    interest.subscribers = 2
    first = read_ring(ring, interest, Position(0), "e")
    assert read_ring(ring, interest, Position(0), "e") is first
    ring.extend([envelope(3)])
    assert ids_in(read_ring(ring, interest, Position(0), "e").data) == ["e-1", "e-2", "e-3"]
    for after in range(3):
        read_ring(ring, interest, Position(after), "e")
    assert len(interest.chunks) <= chunks.MAX_KEPT


def test_a_frame_is_of_one_line_each() -> None:
    assert write_frame("event", msgspec.Raw(b'{"a":\n1,\r\n"b":2}')) == b'event: event\ndata: {"a": 1,  "b":2}\n\n'


# Sleeping.


@pytest.fixture
def hub() -> Hub:
    hub = Hub(ring_of())
    hub.restart("e", Position(0), "")
    return hub


@pytest.fixture
def sleeper(hub: Hub) -> Iterator[Subscription]:
    with hub.subscribe(Filter(app_id=APPS[1])) as subscription:
        yield subscription


async def asleep(subscription: Subscription, examined: int, timeout_s: float = 10) -> "asyncio.Task[Position]":
    """Let it sleep in a task."""
    task = asyncio.create_task(subscription.wait(Position(examined), timeout_s))
    await asyncio.sleep(0)
    return task


async def test_who_sleeps_is_woken_by_what_matches_and_told_how_far_all_was_quiet(
    hub: Hub, sleeper: Subscription
) -> None:
    task = await asleep(sleeper, 0)
    hub.publish([envelope(1), envelope(2)])
    hub.publish([envelope(3)])
    await asyncio.sleep(0)
    assert not task.done()
    hub.publish([envelope(4), envelope(5, app_id=APPS[1])])
    hub.publish([envelope(6, app_id=APPS[1])])
    assert await task == 3, "nothing concerned it before the events that came together with the one that did"


async def test_whom_nothing_concerned_learns_it_when_the_time_is_over(hub: Hub, sleeper: Subscription) -> None:
    task = await asleep(sleeper, 0, 0.01)
    hub.publish([envelope(1), envelope(2)])
    assert await task == 2


async def test_what_arrives_after_the_time_is_over_is_not_taken_for_quiet(hub: Hub, sleeper: Subscription) -> None:
    """The timer has ended the sleep, and before the sleeper is on its feet something that concerns it arrives."""
    task = await asleep(sleeper, 0)
    hub.publish([envelope(1)])
    sleeper.interrupt()
    hub.publish([envelope(2, app_id=APPS[1])])
    assert await task == 1


async def test_nobody_sleeps_over_what_is_there_already(hub: Hub, sleeper: Subscription) -> None:
    hub.publish([envelope(1)])
    assert await sleeper.wait(Position(0), 10) == 0


async def test_who_does_at_once_what_there_is_to_do_sleeps_on(hub: Hub, sleeper: Subscription) -> None:
    done: list[int] = []
    sleeper.at_once = lambda quiet_to: not done.append(quiet_to)  # type: ignore[func-returns-value]
    task = await asleep(sleeper, 0)
    for position in range(1, 4):
        hub.publish([envelope(position, app_id=APPS[1])])
    await asyncio.sleep(0)
    assert (done, task.done()) == ([0, 1, 2], False)
    sleeper.at_once = lambda _: False
    hub.publish([envelope(4, app_id=APPS[1])])
    assert await task == 3


async def test_who_fails_at_once_is_woken_and_nobody_else_is_hurt(hub: Hub, sleeper: Subscription) -> None:
    def fail(_: Position) -> bool:
        raise RuntimeError

    sleeper.at_once = fail
    task = await asleep(sleeper, 0)
    with hub.subscribe(Filter()) as other:
        waiting = await asleep(other, 0)
        hub.publish([envelope(1, app_id=APPS[1])])
        assert (await task, await waiting) == (0, 0)


async def test_a_pause_is_not_ended_by_what_arrives(hub: Hub, sleeper: Subscription) -> None:
    """Who pauses has not examined all that there is: nothing may be taken for quiet."""
    task = asyncio.create_task(sleeper.pause(10))
    await asyncio.sleep(0)
    hub.publish([envelope(1, app_id=APPS[1])])
    await asyncio.sleep(0)
    assert not task.done()
    hub.stop()
    await task


async def test_every_event_is_looked_at_closely_before_anybody_is_woken() -> None:
    order: list[object] = []
    hub = Hub(ring_of(), look_closely=lambda each: order.append(each.position))
    hub.restart("e", Position(0), "")
    with hub.subscribe(Filter()) as subscription:
        subscription.at_once = lambda _: not order.append("told")  # type: ignore[func-returns-value]
        task = await asleep(subscription, 0)
        hub.publish([envelope(1), envelope(2), envelope(3)])
        hub.stop()
        await task
    assert order == [1, 2, 3, "told"]


async def test_another_log_interrupts_all_and_is_said_why(hub: Hub, sleeper: Subscription) -> None:
    task = await asleep(sleeper, 0)
    hub.restart("f", Position(7), "another epoch has begun")
    await task
    assert sleeper.is_interrupted
    assert sleeper.resync is not None
    assert (sleeper.resync.epoch, hub.end, hub.epoch) == ("f", 7, "f")
    with hub.subscribe(Filter()) as later:
        assert not later.is_interrupted


async def test_what_was_told_at_once_is_not_told_again() -> None:
    """A source that was told things while it slept goes on after them, whatever wakes it and whenever."""
    hub = Hub(ring_of())
    hub.restart("e", Position(0), "")
    hub.catch_up()
    feed: Any = SimpleNamespace(hub=hub, require_begun=_at_epoch)
    source = EventSource(feed, Filter(), Place(Position(0)))
    with hub.subscribe(source.sought) as subscription:
        await source.begin(subscription)
        told: list[bytes] = []

        def tell_at_once(quiet_to: Position) -> bool:
            told.append(source.read_at_once(quiet_to) or b"")
            return len(told) < 3

        subscription.at_once = tell_at_once
        sleeping = asyncio.create_task(source.wait(10))
        await asyncio.sleep(0)
        for position in range(1, 4):
            hub.publish([envelope(position)])
        hub.publish([envelope(4)])
        await sleeping
        told.append(await source.read())
    assert [ids_in(each) for each in told] == [["e-1"], ["e-2"], ["e-3"], ["e-4"]]


async def _at_epoch() -> str:
    return "e"


def test_catching_up_takes_as_many_as_are_told_at_once_and_few_where_they_are_large() -> None:
    kibibyte = 1024

    assert following_page(10, 10 * 300) == 40, "small ones: more, and not all at once"
    assert following_page(40, 40 * 300) == PAGE_EVENTS
    assert following_page(50, 50 * 100 * kibibyte) == 2
    assert following_page(10, 10 * 1024 * kibibyte) == 1
    assert following_page(1, 1024 * kibibyte) == 1
    assert following_page(1, 0) == 4, "nothing matched"
