"""The source of a stream that tells each version of what should be, and in silence that it still is."""

from keelson.events.ids import Position
from keelson.query.desired.snapshots import Snapshot
from keelson.query.desired.watching import Subject, Watching
from keelson.query.feed.frames import write_id
from keelson.query.feed.hub import Subscription
from keelson.query.feed.source import SourceEndedError
from keelson.query.places import Place


class DesiredSource:
    """Tells one client what should be, whenever it is something else than what the client was told last.

    `known` is the version that the client has: if it is what should be, that is confirmed, and not told again.
    """

    def __init__(self, watching: Watching, subject: Subject, known: Place | None) -> None:
        self._watching = watching
        self._known = known
        self._told: Snapshot | None = None
        self._has_begun = True
        self.sought = subject.sought

    @property
    def is_caught_up(self) -> bool:
        """Whether all was told: there is never more to tell than what should be now."""
        return True

    async def begin(self, subscription: Subscription) -> None:
        """Take a first look. Raises Problem for a place that means nothing, and for what is not there."""
        await self._watching.begin(subscription, self._known)

    async def read(self) -> bytes:
        """Give what should be, if that is something else now. Raises SourceEndedError once it is not there any more."""
        watching, told = self._watching, self._told
        is_first = told is None and watching.is_current  # unless the client knows more than the view did
        if not is_first and not await watching.look():
            return b""
        snapshot = self._told = watching.reading.snapshot
        if snapshot is None:
            raise SourceEndedError
        if told is not None and told.digest == snapshot.digest:
            return b""
        self._has_begun = self._has_begun and told is not None
        return self._confirm(snapshot) if told is None and self._is_known(snapshot) else self._tell(snapshot)

    def read_at_once(self, quiet_to: Position) -> bytes | None:
        """Hear of what has arrived: the stream sleeps on if that changes nothing, and reads the view if it may."""
        self._watching.hear(quiet_to)
        return b"" if self._watching.is_current else None

    async def wait(self, timeout_s: float) -> None:
        """Sleep until it may have changed."""
        await self._watching.wait(timeout_s)

    def bookmark(self) -> bytes:
        """Say that what was told last is what should be; that is said once at the beginning."""
        has_begun, self._has_begun = self._has_begun, True
        return self._confirm(self._told) if self._told is not None and has_begun else b""

    def _is_known(self, snapshot: Snapshot) -> bool:
        return self._known is not None and snapshot.version <= self._known.position

    def _tell(self, snapshot: Snapshot) -> bytes:
        return write_id(self._watching.epoch, snapshot.version) + snapshot.frame

    def _confirm(self, snapshot: Snapshot) -> bytes:
        bookmark = snapshot.write_bookmark(self._watching.confirmed)
        return write_id(self._watching.epoch, snapshot.version) + bookmark
