"""The ring: the end of the log as one replica remembers it, each event once, bounded in number and in bytes."""

from collections.abc import Iterable, Sequence

from keelson.events import Envelope
from keelson.events.ids import Position
from keelson.query.feed.frames import write_event

# What an event is reckoned at beside its payload: the envelope, and the other members of its encoding.
ENTRY_BYTES = 2048


class Entry:
    """An event of the log, encoded at most once, when it is first told to anybody."""

    __slots__ = ("_frame", "envelope")

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self._frame: bytes | None = None

    @property
    def frame(self) -> bytes:
        """The event as a stream tells it, without an id."""
        if self._frame is None:
            self._frame = write_event(self.envelope)
        return self._frame

    @property
    def size_bytes(self) -> int:
        """What it takes at most, about: the payload is kept twice, as it was read and as it is told."""
        return ENTRY_BYTES + 2 * len(self.envelope.payload)


class Ring:
    """The last events of the log, without gaps: all of (`start`, `end`]. What is added is the next command's, whole."""

    def __init__(self, *, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._entries: list[Entry] = []
        self.start = Position(0)
        self.bytes = 0

    @property
    def end(self) -> Position:
        """The position up to which the log has arrived here."""
        return Position(self.start + len(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def restart(self, at: Position) -> None:
        """Forget everything; go on after this position."""
        self._entries.clear()
        self.start, self.bytes = at, 0

    def extend(self, envelopes: Iterable[Envelope]) -> Sequence[Entry]:
        """Add the next events, and give them; the oldest are dropped where there are too many, or they are too large.

        Raises ValueError for what does not follow: it would be told in a wrong order, or a gap would be.
        """
        added = []
        for envelope in envelopes:
            if envelope.position != self.end + 1:
                raise ValueError(f"event {envelope.position} does not follow {self.end}")
            entry = Entry(envelope)
            self._entries.append(entry)
            self.bytes += entry.size_bytes
            added.append(entry)
        self._drop()
        return added

    def after(self, position: Position, limit: int) -> Sequence[Entry]:
        """Give the events after a position that is not before `start`, in order, at most so many."""
        index = position - self.start
        return self._entries[index : index + limit]

    def _drop(self) -> None:
        dropped = max(len(self._entries) - self._max_events, 0)
        excess = self.bytes - self._max_bytes - sum(entry.size_bytes for entry in self._entries[:dropped])
        while excess > 0 and dropped < len(self._entries):
            excess -= self._entries[dropped].size_bytes
            dropped += 1
        if dropped:
            self.bytes -= sum(entry.size_bytes for entry in self._entries[:dropped])
            del self._entries[:dropped]
            self.start = Position(self.start + dropped)
