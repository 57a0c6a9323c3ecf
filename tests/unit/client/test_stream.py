"""Following streams over connections that are cut, stall, repeat themselves and are refused."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

import pytest

from keelson.client import Bookmark, Change, Client, ClientError, ProblemError, Resync, StreamTimes
from keelson.client.following import Pause, follow
from keelson.client.sse import Frame
from keelson.client.stream import FeedItem, FeedReader
from unit.client.streaming import (
    END,
    HEAD,
    QUICK,
    Answer,
    FakeLog,
    Reply,
    StreamServer,
    chunked,
    cut,
    frame,
    item,
    refusing,
    streaming,
)

T = TypeVar("T")

LOG = FakeLog("e1", [[1, 3], [4]])
OTHER = FakeLog("e2", [[1, 2], [5]])

NewReader = Callable[[str | None], FeedReader]


async def take(items: AsyncGenerator[T, None], until: Callable[[T], bool]) -> list[T]:
    """Give items up to the first that is the last one wanted."""
    taken: list[T] = []
    async with asyncio.timeout(10), aclosing(items):
        async for each in items:
            taken.append(each)
            if until(each):
                break
    return taken


def is_bookmark(each: object) -> bool:
    return isinstance(each, Bookmark)


def positions(items: Sequence[object]) -> list[int]:
    return [each.event.position for each in items if isinstance(each, Change)]


def cursors(items: Sequence[object]) -> list[str]:
    return [each.cursor for each in items if isinstance(each, Change | Bookmark) and each.cursor is not None]


async def follow_with(client: Client, new_reader: NewReader, until: Callable[[FeedItem], bool]) -> list[FeedItem]:
    url = f"{client._query_url}/v1/events"
    return await take(follow(client._transport, url, {}, new_reader(None), QUICK), until)


async def test_events_come_in_order_and_the_last_of_a_command_has_its_cursor() -> None:
    server = StreamServer(LOG.answer)
    async with server.client() as client:
        items = await take(client.follow_events(org_id="org_1", node_id=None), is_bookmark)

    assert positions(items) == [1, 3, 4]
    assert [each.cursor for each in items if isinstance(each, Change)] == [None, "e1-3", "e1-4"]
    assert items[-1] == Bookmark("e1-4", 4)
    (asked,) = server.asked
    assert asked.path == "/v1/events?org_id=org_1"
    assert asked.headers["accept"] == "text/event-stream"
    assert asked.headers["authorization"] == "Bearer token-of-a-test"
    assert asked.last_event_id is None


async def is_whole_wherever_it_is_cut(new_reader: NewReader) -> bool:
    """Whether all events come once, in order, when the first connection is cut after any of its bytes (F29)."""
    size = len(HEAD + chunked(LOG.frames(0)))
    server = StreamServer(LOG.answer)
    async with server.client() as client:
        for at in range(size):
            server.answers = [cut(LOG.answer, at), LOG.answer]
            items = await follow_with(client, new_reader, is_bookmark)
            if positions(items) != LOG.positions or cursors(items)[-1] != "e1-4":
                return False
    return True


async def test_f29_nothing_is_missed_or_given_twice_wherever_the_stream_is_cut() -> None:
    assert await is_whole_wherever_it_is_cut(FeedReader)


class GivesHalf(FeedReader):
    """Gives an event before its command is whole."""

    def _read_event(self, frame: Frame) -> Sequence[FeedItem]:
        given = super()._read_event(frame)
        held, self._held = self._held, []
        return given or [Change(None, each) for each in held]


class GoesOnFromHalf(FeedReader):
    """Takes a command for done when its first event has come."""

    def begin(self) -> None:
        """Do it wrongly."""
        if self._held:
            self._place = f"e1-{self._held[-1].position}"
        super().begin()


class GoesOnFromTheBeginning(FeedReader):
    """Forgets how far it was, and that it gave anything."""

    def begin(self) -> None:
        """Do it wrongly."""
        self._begin_at(None)


@pytest.mark.parametrize("planted", [GivesHalf, GoesOnFromHalf, GoesOnFromTheBeginning])
async def test_a_reader_that_is_wrong_is_found(planted: NewReader) -> None:
    assert not await is_whole_wherever_it_is_cut(planted)


async def test_a_stream_goes_on_from_the_last_whole_command() -> None:
    server = StreamServer(streaming(*LOG.frames(0)[:-2], ends=True), LOG.answer)
    async with server.client() as client:
        items = await take(client.follow_events(after=0), is_bookmark)

    assert positions(items) == [1, 3, 4]
    assert [asked.path for asked in server.asked] == ["/v1/events?after=0", "/v1/events"]
    assert server.asked[1].last_event_id == "e1-3"


async def test_a_bookmark_is_gone_on_from_too() -> None:
    marked = streaming(frame("bookmark", {"position": 3}, "e1-3"), ends=True)
    server = StreamServer(marked, LOG.answer)
    async with server.client() as client:
        items = await take(client.follow_events("e1-2"), lambda each: positions([each]) == [4])

    assert items[0] == Bookmark("e1-3", 3)
    assert [asked.last_event_id for asked in server.asked] == ["e1-2", "e1-3"]


async def is_given_once(new_reader: NewReader) -> bool:
    """Whether a feed that repeats itself, within and between commands and connections, is made good."""
    frames = LOG.frames(0)
    first, last = frames[2], frames[3]
    repeating = streaming(first, first, last, first, last, ends=True)
    server = StreamServer(repeating, streaming(first, last, *frames[4:]))
    async with server.client() as client:
        items = await follow_with(client, new_reader, is_bookmark)
    return positions(items) == [1, 3, 4]


async def test_what_is_repeated_is_given_once() -> None:
    assert await is_given_once(FeedReader)


class BelievesRepetitions(FeedReader):
    """Takes whatever comes for new."""

    def _hold(self, event: object) -> None:
        self._held.append(event)  # type: ignore[arg-type]


async def test_a_reader_that_believes_repetitions_is_found() -> None:
    assert not await is_given_once(BelievesRepetitions)


async def test_what_comes_out_of_order_is_asked_for_again() -> None:
    disordered = streaming(frame("event", item(3)), frame("event", item(1), "e1-1"))
    async with StreamServer(disordered, LOG.answer).client() as client:
        assert positions(await take(client.follow_events(), is_bookmark)) == [1, 3, 4]


@pytest.mark.parametrize("silent", [b"", HEAD, HEAD + chunked(LOG.frames(0)[:3])])
async def test_f28_a_stream_that_says_nothing_is_opened_again(silent: bytes) -> None:
    server = StreamServer(lambda _: Reply(silent, stalls=True), LOG.answer)
    async with server.client(StreamTimes(idle_timeout_s=0.5, retry_s=0.001)) as client:
        assert positions(await take(client.follow_events(), is_bookmark)) == [1, 3, 4]
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "away",
    [
        refusing(503, "unavailable", Retry_After="0"),
        refusing(429, "rate_limited"),
        refusing(500, "internal"),
        lambda _: Reply(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi"),
        lambda _: Reply(b"SSH-2.0-OpenSSH_9.6\r\n"),
        lambda _: Reply(HEAD + b"no size\r\n"),
        lambda _: Reply(HEAD + END),
    ],
)
async def test_f32_what_is_refused_for_now_is_asked_for_again(away: Answer) -> None:
    server = StreamServer(away, away, LOG.answer)
    async with server.client() as client:
        assert positions(await take(client.follow_events(), is_bookmark)) == [1, 3, 4]
    assert len(server.asked) == 3


async def test_f32_a_stream_waits_as_long_as_it_is_asked_to() -> None:
    server = StreamServer(refusing(503, "unavailable", Retry_After="1"), LOG.answer)
    async with server.client() as client:
        began = asyncio.get_running_loop().time()
        await take(client.follow_events(), is_bookmark)
        assert 1.0 <= asyncio.get_running_loop().time() - began < 5.0


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "bad_cursor"),
        (401, "unauthenticated"),
        (403, "forbidden"),
        (404, "not_found"),
        (405, "method_not_allowed"),
    ],
)
async def test_f34_a_refusal_that_stands_is_raised(status: int, code: str) -> None:
    server = StreamServer(streaming(*LOG.frames(0), ends=True), refusing(status, code))
    async with server.client() as client:
        with pytest.raises(ProblemError) as refused:
            await take(client.follow_events(), lambda _: False)
    assert (refused.value.status, refused.value.code, len(server.asked)) == (status, code, 2)


@pytest.mark.parametrize("said", ["by a refusal", "by a frame", "by a cursor"])
async def test_f30_another_epoch_is_said_and_followed_from_its_beginning(said: str) -> None:
    half = frame("event", item(9))
    answers: dict[str, list[Answer]] = {
        "by a refusal": [streaming(*LOG.frames(0), half, ends=True), OTHER.answer],
        "by a frame": [
            streaming(*LOG.frames(0), half, frame("resync", {"epoch": "e2", "reason": "restored"}), ends=True),
            OTHER.answer,
        ],
        "by a cursor": [streaming(*LOG.frames(0), half, frame("bookmark", {"position": 9}, "e2-9")), OTHER.answer],
    }
    server = StreamServer(*answers[said])
    async with server.client() as client:
        items = await take(client.follow_events(), lambda each: is_bookmark(each) and cursors([each])[0] == "e2-5")

    at = items.index(Resync("e2"))
    assert positions(items[:at]) == [1, 3, 4]
    assert positions(items[at:]) == [1, 2, 5]
    assert server.asked[-1].last_event_id is None


async def begins_anew(new_reader: NewReader) -> bool:
    """Whether nothing of a log that was put back before its first cursor came is mixed with what came after."""
    half = frame("event", item(1, aggregate_id="app_of_before"))
    async with StreamServer(streaming(half, ends=True), streaming(*OTHER.frames(0))).client() as client:
        items = await follow_with(client, new_reader, is_bookmark)
    return {each.event.aggregate_id for each in items if isinstance(each, Change)} == {"app_1"}


class KeepsHalf(FeedReader):
    """Keeps what came of a command that was cut."""

    def begin(self) -> None:
        """Do nothing."""


async def test_half_a_command_of_another_log_is_dropped_and_a_reader_that_keeps_it_found() -> None:
    assert await begins_anew(FeedReader)
    assert not await begins_anew(KeepsHalf)


async def test_f30_a_stream_may_end_with_its_epoch() -> None:
    async with StreamServer(refusing(410, "cursor_expired", Keelson_Epoch="e2")).client() as client:
        items = await take(client.follow_events("e1-7", stop_on_resync=True), lambda _: False)
    assert items == [Resync("e2")]


async def test_events_of_a_command_whose_cursor_came_with_a_bookmark_are_given_before_it() -> None:
    frames = [frame("event", item(1)), frame("bookmark", {"position": 2}, "e1-2")]
    async with StreamServer(streaming(*frames)).client() as client:
        items = await take(client.follow_events(), is_bookmark)
    assert (positions(items), items[-1]) == ([1], Bookmark("e1-2", 2))


async def test_what_a_later_service_says_besides_is_ignored() -> None:
    frames = [frame("weather", {"sun": True}), frame("event", item(1, mood="fine"), "e1-1"), *LOG.frames(1)]
    async with StreamServer(streaming(*frames)).client() as client:
        assert positions(await take(client.follow_events(), is_bookmark)) == [1, 3, 4]


@pytest.mark.parametrize(
    "unreadable",
    [frame("event", {"position": "one"}, "e1-1"), frame("event", item(1), "garbage"), "event: event\ndata: {\n\n"],
)
async def test_what_this_client_cannot_read_is_raised_and_not_asked_for_for_ever(unreadable: str) -> None:
    async with StreamServer(streaming(unreadable)).client() as client:
        with pytest.raises(ClientError, match=r"cannot read|no cursor"):
            await take(client.follow_events(), lambda _: False)


async def test_streams_take_no_connection_from_requests() -> None:
    plain = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    server = StreamServer(LOG.answer, LOG.answer, lambda _: Reply(plain))
    async with (
        server.client(connections=1) as client,
        aclosing(client.follow_events()) as first,
        aclosing(client.follow_events()) as second,
    ):
        await anext(first)
        await anext(second)
        assert (await client.get("/v1/orgs")).body == {}


def test_f32_pauses_grow_to_a_bound_are_spread_and_begin_anew_after_progress() -> None:
    def spread(times: StreamTimes, failures: int, at_least_s: float | None = None) -> tuple[float, float]:
        waits = []
        for _ in range(200):
            pause = Pause(times)
            for _ in range(failures):
                pause.next_s()
            waits.append(pause.next_s(at_least_s))
        return min(waits), max(waits)

    times = StreamTimes(retry_s=1.0, max_retry_s=10.0)
    for failures, longest in [(0, 1.0), (1, 2.0), (2, 4.0), (4, 10.0), (2000, 10.0)]:
        least, most = spread(times, failures)
        assert longest / 2 <= least < longest * 0.6
        assert longest * 0.9 < most <= longest
    least, most = spread(times, 0, at_least_s=4.0)
    assert 4.0 <= least < 4.4
    assert 5.6 < most <= 6.0

    pause = Pause(times)
    for _ in range(10):
        pause.next_s()
    pause.progressed()
    pause.hear(100)
    pause.hear(None)
    assert 0.05 <= pause.next_s() <= 0.1
