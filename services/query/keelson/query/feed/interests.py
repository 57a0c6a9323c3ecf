"""Who waits for what: one interest for all who want the same, found by what an event has, not by asking each."""

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from keelson.events import Envelope
from keelson.events.ids import Position
from keelson.log.read import Filter

if TYPE_CHECKING:
    from keelson.query.feed.chunks import Chunk
    from keelson.query.feed.hub import Subscription

# By which of its fields a filter is found: the one that most events do not fit.
_NARROWEST_FIRST = (
    *("aggregate_id", "correlation_id", "request_id", "env_id", "node_id", "app_id"),
    *("actor_id", "project_id", "org_id", "type", "aggregate_type"),
)

Key = tuple[str, str] | None


class Interest:
    """All who want events of one filter: those who sleep, and the chunks that they share."""

    __slots__ = ("chunks", "chunks_end", "filter", "key", "sleepers", "subscribers", "wanted")

    def __init__(self, sought: Filter) -> None:
        self.filter = sought
        self.wanted: tuple[tuple[str, str], ...] = tuple(
            (name, value) for name, value in msgspec.structs.asdict(sought).items() if value is not None
        )
        self.key: Key = key_of(sought)
        self.subscribers = 0
        self.sleepers: set[Subscription] = set()
        self.chunks: dict[Position, Chunk] = {}
        self.chunks_end = Position(0)

    def matches(self, envelope: Envelope) -> bool:
        """Whether the filter lets an event through."""
        return all(getattr(envelope, name) == value for name, value in self.wanted)


class Interests:
    """The interests that anybody has. An event costs a look-up per field in use, and the interests found by it."""

    def __init__(self) -> None:
        self._by_filter: dict[Filter, Interest] = {}
        self._by_field: dict[str, dict[str, list[Interest]]] = defaultdict(dict)
        self._in_everything: list[Interest] = []

    def __len__(self) -> int:
        return len(self._by_filter)

    def join(self, sought: Filter) -> Interest:
        """Give the interest of a filter to one subscriber more."""
        interest = self._by_filter.get(sought)
        if interest is None:
            interest = self._by_filter[sought] = Interest(sought)
            self._group_of(interest).append(interest)
        interest.subscribers += 1
        return interest

    def leave(self, interest: Interest) -> None:
        """Take a subscriber away; what nobody wants is forgotten."""
        interest.subscribers -= 1
        if interest.subscribers:
            return
        del self._by_filter[interest.filter]
        group = self._group_of(interest)
        group.remove(interest)
        if not group and interest.key is not None:
            field, value = interest.key
            del self._by_field[field][value]
            if not self._by_field[field]:
                del self._by_field[field]

    def concerned_by(self, envelope: Envelope) -> Iterator[Interest]:
        """Give the interests whose filters an event matches, of those in which somebody sleeps."""
        for interest in self._in_everything:
            if interest.sleepers:
                yield interest
        for field, groups in self._by_field.items():
            for interest in groups.get(getattr(envelope, field), ()):
                if interest.sleepers and interest.matches(envelope):
                    yield interest

    def __iter__(self) -> Iterator[Interest]:
        return iter(self._by_filter.values())

    def _group_of(self, interest: Interest) -> list[Interest]:
        if interest.key is None:
            return self._in_everything
        field, value = interest.key
        return self._by_field[field].setdefault(value, [])


def key_of(sought: Filter) -> Key:
    """Give the field by which a filter is found, and its value; None for one that lets everything through."""
    for name in _NARROWEST_FIRST:
        value: str | None = getattr(sought, name)
        if value is not None:
            return name, value
    return None
