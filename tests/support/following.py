"""Following the log through cuts: what a client holds that resumes as the contract says, and what the log holds."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from keelson.events.app import AppRenamed
from keelson.events.ids import AggregateId
from support.query_world import World, make_id
from support.sse import Cut, Ended, Frame, Stream, parse_frame, streamed

APPS = [make_id("app", number) for number in range(1, 6)]

# As the log has an event, by the names of its columns.
Row = dict[str, Any]


async def append_some(world: World, random: Random, commands: int, *, most: int = 4) -> None:
    """Append commands of one to some events, each about an app that is drawn."""
    for _ in range(commands):
        apps: list[AggregateId] = [random.choice(APPS) for _ in range(random.randint(1, most))]
        await world.append(*((app, AppRenamed(name=f"name-{random.randrange(1000)}")) for app in apps))


async def read_log(world: World, matches: Callable[[Row], bool] = lambda _: True) -> list[Row]:
    """Give what matches, by the table itself."""
    rows = await world.owner.fetch("SELECT * FROM log.events ORDER BY position")
    return [dict(row) for row in rows if matches(dict(row))]


class Holding:
    """What a client holds: events up to the last id are its own, those after it are not yet, and come again."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.pending: list[Any] = []
        self.cursor: str | None = None

    def take(self, frame: Frame) -> None:
        """Take a frame that came whole."""
        if frame.kind == "event":
            self.pending.append(frame.data)
        if frame.id is not None:
            self.events += self.pending
            self.pending = []
            self.cursor = frame.id

    def cut(self) -> None:
        """Lose the connection."""
        self.pending = []

    @property
    def headers(self) -> dict[str, str]:
        """What to resume with."""
        return {} if self.cursor is None else {"Last-Event-ID": self.cursor}


def take_bytes(body: bytes) -> Holding:
    """Give what a client holds that got so much of a body."""
    holding = Holding()
    *frames, _ = body.split(b"\n\n")
    for text in frames:
        holding.take(parse_frame(text.decode()))
    holding.cut()
    return holding


async def follow(url: str, token: str, until: int, cuts: Iterable[int], **filters: Any) -> Holding:
    """Follow to a position, cut after so many bytes each time, and once without."""
    holding = Holding()
    for most in (*cuts, None):
        async with streamed(url, token, headers=holding.headers, **filters) as stream:
            await _take(stream, holding, until, most)
        holding.cut()
    return holding


async def _take(stream: Stream, holding: Holding, until: int, most: int | None) -> None:
    while most is None or len(stream.body) < most:
        if holding.cursor is not None and position_of(holding.cursor) >= until:
            return
        try:
            frame = await stream.frame()
        except (Cut, Ended):
            return
        if most is None or len(stream.body) <= most:
            holding.take(frame)
        await asyncio.sleep(0)


def position_of(cursor: str) -> int:
    """Give the position of a cursor."""
    return int(cursor.partition("-")[2])


def require_same(told: Sequence[Any], log: Sequence[Row]) -> None:
    """Fail unless what was told is what the log has: all of it, once, in order, and with what it holds."""
    assert [each["position"] for each in told] == [row["position"] for row in log]
    for each, row in zip(told, log, strict=True):
        assert (each["aggregate_id"], each["seq"], each["type"]) == (row["aggregate_id"], row["seq"], row["type"])
        assert (each["command_id"], each["command_end"]) == (row["command_id"], row["command_end"])


def require_atomic(frames: Sequence[Frame], log: Sequence[Row]) -> None:
    """Fail unless exactly the last matching event of each command has an id, its own; `log` is what matches."""
    events = [frame for frame in frames if frame.kind == "event"]
    for frame in events:
        command = [row["position"] for row in log if row["command_id"] == frame.data["command_id"]]
        is_last = frame.position == command[-1]
        assert (frame.id is not None) == is_last, frame
        assert frame.id is None or position_of(frame.id) == frame.position
