"""A page of the log as projections share it: each event is decoded once, when the first of them wants it."""

from collections.abc import Sequence

from keelson.events import Envelope, Event, Registry, UnknownEventError


class Batch:
    """Events in order, without gaps, beginning after `start` and ending where a command ends.

    `head` and `epoch` are the log's, of the same snapshot: a batch that ends at the head left nothing to read, and in
    another epoch its events may be others. `hearing` is for whoever read it to tell what was heard of the log before.
    """

    def __init__(
        self, start: int, envelopes: Sequence[Envelope], head: int, registry: Registry, *, epoch: str, hearing: int = 0
    ) -> None:
        self.start = start
        self.epoch = epoch
        self.hearing = hearing
        self.envelopes = envelopes
        self.head = head
        self._registry = registry
        self._events: list[Event | None] = [None] * len(envelopes)

    @property
    def end(self) -> int:
        """The position of the last event; `start` if there is none."""
        return self.start + len(self.envelopes)

    @property
    def size_bytes(self) -> int:
        """About what the payloads hold: characters, not bytes."""
        return sum([len(envelope.payload) for envelope in self.envelopes])

    @property
    def is_last(self) -> bool:
        """Whether the log held no more when this was read."""
        return self.end >= self.head

    def event(self, index: int) -> Event:
        """Decode an event. Raises UnknownEventError and msgspec.MsgspecError, each time anew."""
        event = self._events[index]
        if event is None:
            envelope = self.envelopes[index]
            event = self._registry.decode(envelope.type, envelope.version, envelope.payload)
            self._events[index] = event
        return event

    def require_known(self, index: int) -> None:
        """Raise UnknownEventError if this code does not know the event's type and version."""
        envelope = self.envelopes[index]
        if (envelope.type, envelope.version) not in self._registry.classes:
            raise UnknownEventError(envelope.type, envelope.version)

    def envelope_at(self, position: int) -> Envelope:
        """Give the envelope at a position of this batch."""
        return self.envelopes[position - self.start - 1]

    def since(self, position: int) -> "Batch":
        """Give what comes after a position, which must be where a command ends."""
        return self if position == self.start else self._part(position - self.start, len(self.envelopes))

    def before(self, position: int) -> "Batch":
        """Give the commands that are complete before a position."""
        stop = position - 1 - self.start
        while stop > 0 and not self.envelopes[stop - 1].command_end:
            stop -= 1
        return self._part(0, stop)

    def first(self, count: int) -> "Batch":
        """Give the first events, wherever that cuts a command: for trials that are rolled back."""
        return self._part(0, count)

    def _part(self, begin: int, stop: int) -> "Batch":
        part = Batch(
            self.start + begin,
            self.envelopes[begin:stop],
            self.head,
            self._registry,
            epoch=self.epoch,
            hearing=self.hearing,
        )
        part._events = self._events[begin:stop]
        return part
