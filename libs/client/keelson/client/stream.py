"""What streams give: the events of the log, and the desired state of a node.

Both are made of frames by readers that do no I/O, and hold whatever a network or a service does to the stream: nothing
is given twice, nothing is left out, and of a command that has not come whole nothing is given at all.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, NoReturn, Self, TypeAlias, TypedDict, TypeVar

import msgspec

from keelson.client.errors import ClientError
from keelson.client.following import BrokenStreamError
from keelson.client.reads.events import EventItem
from keelson.client.reads.nodes import DesiredInstance
from keelson.client.sse import Frame

T = TypeVar("T")

_canonical = msgspec.json.Encoder(order="sorted").encode


class Cursor(NamedTuple):
    """A position of one lineage, written `<epoch>-<position>`."""

    epoch: str
    position: int

    @classmethod
    def read(cls, text: str | None) -> Self:
        """Read a cursor. Raises ClientError for what is none."""
        epoch, _, position = (text or "").partition("-")
        if not epoch or not position.isdecimal():
            raise ClientError(f"{text!r} is no cursor")
        return cls(epoch, int(position))

    def __str__(self) -> str:
        return f"{self.epoch}-{self.position}"


class Change(msgspec.Struct, frozen=True):
    """An event. The last one of a command that matched has the cursor from which to go on after it; others have None.

    Whoever keeps the cursor together with what it made of the events up to there has acted on each of them once.
    """

    cursor: str | None
    event: EventItem


class Bookmark(msgspec.Struct, frozen=True):
    """Nothing that was not given matches up to this position; the cursor goes on from there."""

    cursor: str
    position: int


class Resync(msgspec.Struct, frozen=True):
    """The log is not the one that was followed: whatever was made of it must go. What follows is from the beginning.

    `epoch` is the log's by now, where the service said so.
    """

    epoch: str | None


class Desired(msgspec.Struct, frozen=True):
    """All that a node should be doing, its digest verified; `cursor` is what to say when the stream is opened again."""

    cursor: str
    version: int
    digest: str
    items: tuple[DesiredInstance, ...]
    position: int


class Confirmed(msgspec.Struct, frozen=True):
    """What was given last is what the node should be doing as of `position`.

    `version` may be a later one, which came to the same in the end.
    """

    version: int
    digest: str
    position: int


class FeedFilters(TypedDict, total=False):
    """What an event must have to be given; of what is None or left out, anything."""

    org_id: str | None
    project_id: str | None
    app_id: str | None
    env_id: str | None
    node_id: str | None
    aggregate_type: str | None
    aggregate_id: str | None
    type: str | None
    actor_id: str | None
    request_id: str | None
    correlation_id: str | None


FeedItem: TypeAlias = Change | Bookmark | Resync
DesiredItem: TypeAlias = Desired | Confirmed


class FeedReader:
    """Makes changes of the frames of the feed: a command's together, when the last one has come, in order, and once."""

    def __init__(self, after: str | None) -> None:
        """Go on after a cursor or a position; None is the beginning."""
        self._begin_at(after)

    @property
    def place(self) -> str | None:
        """The cursor of the last command or bookmark that was given; at first, where to begin."""
        return self._place

    @property
    def is_over(self) -> bool:
        """Whether the log turned out to be another."""
        return self._over

    def begin(self) -> None:
        """Drop what has come of a command that was cut; it comes again, whole."""
        self._over = False
        self._held.clear()

    def read(self, frame: Frame) -> Sequence[FeedItem]:
        """Give what a frame completes; what was given already is not given again."""
        match frame.event:
            case "event":
                return self._read_event(frame)
            case "bookmark":
                return self._read_bookmark(frame)
            case "resync":
                return self.expire(_decode(frame.data, Resync).epoch)
        return ()

    def expire(self, epoch: str | None) -> Sequence[FeedItem]:
        """Begin anew."""
        self._begin_at(None)
        self._over = True
        return (Resync(epoch),)

    def _begin_at(self, place: str | None) -> None:
        self._place = place
        self._over = False
        self._held: list[EventItem] = []
        self._epoch: str | None = None
        self._position = 0
        if place is not None and "-" in place:
            self._epoch, self._position = Cursor.read(place)
        elif place is not None:
            self._position = int(place)

    def _read_event(self, frame: Frame) -> Sequence[FeedItem]:
        self._hold(_decode(frame.data, EventItem))
        if frame.id is None:
            return ()
        cursor, held = Cursor.read(frame.id), self._held
        if self._is_foreign(cursor):
            return self.expire(cursor.epoch)
        if not held:
            return ()
        self._advance(cursor)
        return (*(Change(None, event) for event in held[:-1]), Change(self._place, held[-1]))

    def _read_bookmark(self, frame: Frame) -> Sequence[FeedItem]:
        cursor, held = Cursor.read(frame.id), self._held
        if self._is_foreign(cursor):
            return self.expire(cursor.epoch)
        if cursor.position < self._position:
            return ()
        self._advance(cursor)
        return (*(Change(None, event) for event in held), Bookmark(str(cursor), cursor.position))

    def _hold(self, event: EventItem) -> None:
        """Keep an event until its command is whole, unless it has come before."""
        if event.position <= self._position or any(event.position == each.position for each in self._held):
            return
        if self._held and event.position < self._held[-1].position:
            raise BrokenStreamError(f"event {event.position} came after event {self._held[-1].position}")
        self._held.append(event)

    def _advance(self, cursor: Cursor) -> None:
        self._epoch, self._position = cursor
        self._place, self._held = str(cursor), []

    def _is_foreign(self, cursor: Cursor) -> bool:
        return self._epoch not in (None, cursor.epoch)


class DesiredReader:
    """Makes of frames what a node should be doing: each version once, its digest verified, never an older one."""

    def __init__(self, known: str | None, digest: str | None = None) -> None:
        """Go on from the cursor of what the node knows, and its digest if that is known; None if it knows nothing.

        Without the digest it is believed that what the node knows is what its version says.
        """
        self._place = known
        self._last = None if known is None else Cursor.read(known)
        self._digest = digest
        self._over = False

    @property
    def place(self) -> str | None:
        """The cursor of what was given last; None after what could not be believed, to be given all of it."""
        return self._place

    @property
    def is_over(self) -> bool:
        """Whether the log turned out to be another."""
        return self._over

    def begin(self) -> None:
        """Keep what was given; nothing is ever unfinished, as a frame is all there is."""
        self._over = False

    def read(self, frame: Frame) -> Sequence[DesiredItem]:
        """Give what a frame says that is new. Raises BrokenStreamError for what cannot be believed."""
        match frame.event:
            case "event":
                return self._read_snapshot(frame)
            case "bookmark":
                return self._read_bookmark(frame)
            case "resync":
                return self.expire(None)
        return ()

    def expire(self, epoch: str | None) -> Sequence[DesiredItem]:  # noqa: ARG002 - the next snapshot names it
        """Begin anew: the next snapshot is given whatever its version."""
        self._place = self._last = self._digest = None
        self._over = True
        return ()

    def _read_snapshot(self, frame: Frame) -> Sequence[DesiredItem]:
        snapshot, cursor = _decode(frame.data, _Snapshot), Cursor.read(frame.id)
        if hashlib.sha256(_canonical(msgspec.json.decode(snapshot.items))).hexdigest() != snapshot.digest:
            self._distrust(f"version {snapshot.version} has not the digest that it claims")
        if not self._is_new(cursor, snapshot.digest):
            return ()
        items = _decode(snapshot.items, tuple[DesiredInstance, ...])
        self._place, self._last, self._digest = str(cursor), cursor, snapshot.digest
        return (Desired(str(cursor), snapshot.version, snapshot.digest, items, snapshot.position),)

    def _is_new(self, cursor: Cursor, digest: str) -> bool:
        last = self._last
        if last is None or cursor.epoch != last.epoch or cursor.position > last.position:
            return True
        return cursor == last and digest != self._digest

    def _read_bookmark(self, frame: Frame) -> Sequence[DesiredItem]:
        said, last = _decode(frame.data, Confirmed), self._last
        if last is not None and frame.id is not None and Cursor.read(frame.id).epoch != last.epoch:
            return self.expire(None)
        if last is not None and said.version < last.position:
            return ()
        if last is None or not self._stands(last, said):
            self._distrust(f"version {said.version} has not come")
        self._last, self._digest = Cursor(last.epoch, said.version), said.digest
        self._place = str(self._last)
        return (said,)

    def _stands(self, last: Cursor, said: Confirmed) -> bool:
        """Whether what was given last is what should be; a version may pass that came to the same in the end."""
        return said.version == last.position if self._digest is None else said.digest == self._digest

    def _distrust(self, why: str) -> NoReturn:
        """Ask for all of it again."""
        self._place = None
        raise BrokenStreamError(why)


class _Snapshot(msgspec.Struct, frozen=True):
    version: int
    digest: str
    items: msgspec.Raw
    position: int


def _decode(data: bytes | msgspec.Raw, type_: type[T]) -> T:
    """Read what a frame says. Raises ClientError for what this client does not understand: asking again is no help."""
    try:
        return msgspec.json.decode(data, type=type_)
    except msgspec.MsgspecError as error:
        raise ClientError(f"the stream says what this client cannot read: {error}") from error
