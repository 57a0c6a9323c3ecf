"""Snapshots of desired state: what a view says of one node, or to all edges, as it is sent."""

import hashlib
from functools import cached_property
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

import msgspec

from keelson.query.confinement import Reach
from keelson.query.feed.frames import write_frame
from keelson.query.reads import RowsReading, View
from keelson.query.rows import RowReader

T = TypeVar("T")

_canonical = msgspec.json.Encoder(order="sorted").encode


class Desired(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What should be: all of it, as of `position`.

    `version` is the position of the last event that may have changed any of the items, 0 if there never was one; it
    never goes back. `digest` is the SHA-256, in hex, of the items' canonical JSON: keys sorted, no spaces.
    """

    version: int
    digest: str
    items: list[T]
    position: int


class Snapshot(msgspec.Struct, frozen=True, dict=True):
    """What should be as of a position; `items` is their canonical JSON, which the digest is of."""

    version: int
    digest: str
    items: bytes
    position: int

    @property
    def body(self) -> dict[str, Any]:
        """What is sent: a `Desired`."""
        return {
            "version": self.version,
            "digest": self.digest,
            "items": msgspec.Raw(self.items),
            "position": self.position,
        }

    @cached_property
    def frame(self) -> bytes:
        """How a stream tells it, but for the id; the same bytes to all who are told."""
        return write_frame("event", self.body)

    def write_bookmark(self, position: int) -> bytes:
        """Give the frame, but for the id, that says that this is still what should be."""
        return write_frame("bookmark", {"version": self.version, "digest": self.digest, "position": position})


class Reading(msgspec.Struct, frozen=True):
    """A look at the view: the position and the epoch that it reflects, and what there was; None if it is not there."""

    position: int
    epoch: str
    snapshot: Snapshot | None


class Board:
    """What is known of one key, in one epoch, by all who are told of it: read once for them all, and said once."""

    def __init__(self, snapshots: "Snapshots", epoch: str, key: str, reach: Reach) -> None:
        self._snapshots = snapshots
        self._epoch = epoch
        self._key = key
        self._reach = reach
        self._reading: Reading | None = None

    async def read(self, at_least: int) -> Reading:
        """Give what there is, as of a position or later; earlier if the view is not there yet. Raises as reading does.

        What was read already, and is new enough, is given again.
        """
        known = self._reading
        if known is not None and known.position >= at_least:
            return known
        rows = await self._snapshots.read_rows(self._key, self._reach)
        if rows.epoch != self._epoch:
            raise ConnectionError("this is another log")  # the follower finds out, and all streams are told
        if self._reading is None or rows.checkpoint > self._reading.position:
            self._reading = _reading_of(rows, self._key)
        return self._reading


class Snapshots:
    """Reads one view of desired state. Those who ask at once share one statement, whatever they ask for."""

    def __init__(self, rows: RowReader, view: View) -> None:
        self._rows = rows
        self._view = view
        self._boards: WeakValueDictionary[tuple[str, str, Reach], Board] = WeakValueDictionary()
        self.projection = view.projection

    async def read(self, key: str, reach: Reach) -> Reading:
        """Give what there is under a key within reach. Raises what reading raises."""
        return _reading_of(await self.read_rows(key, reach), key)

    def board(self, epoch: str, key: str, reach: Reach) -> Board:
        """Give the board of a key, for as long as somebody holds it; each epoch has its own, as it has positions."""
        board = self._boards.get((epoch, key, reach))
        if board is None:
            board = self._boards[epoch, key, reach] = Board(self, epoch, key, reach)
        return board

    async def read_rows(self, key: str, reach: Reach) -> RowsReading:
        """Give the rows that were read for this key, and for whatever else was asked for with it."""
        return await self._rows.read(self._view, key, reach=reach)


def _reading_of(rows: RowsReading, key: str) -> Reading:
    row = rows.rows.get(key)
    if row is None:
        return Reading(rows.checkpoint, rows.epoch, None)
    items: bytes = _canonical(msgspec.json.decode(row["items"]))
    digest = hashlib.sha256(items).hexdigest()
    return Reading(rows.checkpoint, rows.epoch, Snapshot(row["version"], digest, items, rows.checkpoint))
