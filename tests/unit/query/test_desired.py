"""Desired state that is watched while its view lags: told as the view goes on, and never confirmed beyond it."""

from types import SimpleNamespace
from typing import Any

import msgspec

from keelson.events import Envelope
from keelson.events.ids import Position
from keelson.query.confinement import Reach
from keelson.query.desired.snapshots import Snapshots
from keelson.query.desired.source import DesiredSource
from keelson.query.desired.watching import Subject, Watching
from keelson.query.feed.hub import Hub
from keelson.query.feed.ring import Ring
from keelson.query.places import Place
from keelson.query.reads import RowsReading
from support.sse import Frame, parse_frame
from unit.query.test_feed import envelope

EPOCH, NODE, INSTANCE = "e1", "node_1", "instance_1"


class Lagging:
    """A view that is as far as a test says, and said to be `said`; of each position in `changes` it has a version.

    It stands for the database, and for what the process is told of it.
    """

    def __init__(self, *changes: int) -> None:
        self.changes = changes
        self.position = 0
        self.said = 0

    def move(self, position: int, *, said: int | None = None) -> None:
        """Have it go on."""
        self.position = position
        self.said = position if said is None else said

    async def read(self, view: object, key: str, *, reach: Reach) -> RowsReading:
        """Give the row of any key."""
        assert view is not None
        assert reach is not None
        version = max((each for each in self.changes if each <= self.position), default=0)
        row = {"version": version, "items": msgspec.json.encode([{"instance_id": f"as of {version}"}])}
        return RowsReading(self.position, EPOCH, {key: row})

    async def wait_for(self, projections: tuple[str, ...], position: int, timeout_s: float) -> bool:
        """Say at once whether it is said to be there: nobody waits for a time-out."""
        assert projections == ("platform",)
        assert timeout_s > 0
        return self.said >= position


class Watched:
    """One client's source over such a view, and the hub of the log that it hears of."""

    def __init__(self, view: Lagging, *, known: int | None = None, ring_events: int = 1000) -> None:
        self.hub = Hub(Ring(max_events=ring_events, max_bytes=10**9))
        self.hub.restart(EPOCH, Position(0), "a test has begun")
        self.hub.catch_up()
        snapshots = Snapshots(view, SimpleNamespace(projection="platform"))  # type: ignore[arg-type]
        subject = Subject(snapshots, NODE, Reach(None), frozenset({"instance"}), NODE)
        feed: Any = SimpleNamespace(hub=self.hub, require_begun=self._require_begun)
        watching = Watching(feed, view, subject)  # type: ignore[arg-type]
        self.source = DesiredSource(watching, subject, None if known is None else Place(Position(known), EPOCH))

    async def begin(self) -> int | None:
        """Take the first look; give the version that is told then, if one is."""
        with self.hub.subscribe(self.source.sought) as subscription:
            await self.source.begin(subscription)
        version = version_of(await self.told())
        assert self.source.bookmark() == b"", "that is said already"
        return version

    def hear(self, *positions: int) -> None:
        """Have events of the node arrive, all in one look of the follower's; others in between."""
        last = positions[-1]
        self.hub.publish([of_node(each, is_its=each in positions) for each in range(self.hub.end + 1, last + 1)])

    async def told(self) -> Frame | None:
        """Give the frame that is told next, if one is."""
        return parsed(await self.source.read())

    async def _require_begun(self) -> str:
        return EPOCH


def of_node(position: int, *, is_its: bool) -> Envelope:
    return envelope(position, aggregate_id=INSTANCE, node_id=NODE if is_its else "node_2")


def parsed(data: bytes) -> Frame | None:
    return parse_frame(data.decode().removesuffix("\n\n")) if data else None


def version_of(frame: Frame | None) -> int | None:
    return None if frame is None else int(frame.data["version"])


async def test_f29_a_view_that_lags_is_told_as_it_goes_on_while_more_comes() -> None:
    """Each time that there is something new, the view has reached what was new before, and never the newest."""
    view = Lagging(*range(1, 11))
    watched = Watched(view)
    assert await watched.begin() == 0
    watched.hear(1)
    for position in range(1, 10):
        assert await watched.told() is None
        watched.hear(position + 1)
        view.move(position)
        assert version_of(await watched.told()) == position
    view.move(10)
    assert version_of(await watched.told()) == 10


async def test_what_is_not_remembered_any_more_is_told_as_the_view_goes_on() -> None:
    """It may have been anything: whatever the view has gone on to may be news."""
    view = Lagging(2, 4)
    watched = Watched(view, ring_events=1)
    assert await watched.begin() == 0
    watched.hear(2, 4, 6)
    for position, expected in ((1, None), (2, 2), (3, None), (5, 4), (5, None)):
        view.move(position)
        assert version_of(await watched.told()) == expected
    view.move(6)
    assert await watched.told() is None
    mark = parsed(watched.source.bookmark())
    assert mark is not None
    assert (mark.data["version"], mark.position) == (4, 6)


async def behind() -> tuple[Lagging, Watched]:
    """Give a view that is at 5, and a stream that has shown that and heard of 7 and 9 at once."""
    view = Lagging(5, 7, 9)
    watched = Watched(view)
    watched.hear(5)
    view.move(5)
    assert await watched.begin() == 5
    watched.hear(7, 9)
    return view, watched


async def test_what_a_view_had_before_it_stopped_is_told() -> None:
    """The log brought a change, what the view cannot apply, and another change at once."""
    view, watched = await behind()
    view.move(7)
    assert version_of(await watched.told()) == 7
    assert await watched.told() is None
    mark = parsed(watched.source.bookmark())
    assert mark is not None
    assert (mark.kind, mark.data["version"], mark.position) == ("bookmark", 7, 7)


async def test_what_was_read_and_not_told_is_not_confirmed() -> None:
    """Where the view is not where it was said to be, what stands is what was told, as of when that was read."""
    view, watched = await behind()
    for position, version in ((6, None), (8, 7), (8, None), (9, 9)):
        view.move(position, said=9)
        assert version_of(await watched.told()) == version
        mark = parsed(watched.source.bookmark())
        assert mark is not None
        expected = {6: (5, 5), 8: (7, 8), 9: (9, 9)}[position]
        assert (mark.data["version"], mark.position) == expected


async def test_f29_a_client_that_knows_more_than_the_view_is_told_nothing_older() -> None:
    view = Lagging(5, 7, 10)
    watched = Watched(view, known=10)
    watched.hear(5, 7, 10)
    view.move(5)
    assert await watched.begin() is None
    for position in (5, 7, 9):
        view.move(position, said=10)
        assert await watched.told() is None
    view.move(10)
    mark = await watched.told()
    assert mark is not None
    assert (mark.kind, mark.data["version"], mark.position) == ("bookmark", 10, 10)
