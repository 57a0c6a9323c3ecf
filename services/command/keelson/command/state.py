"""Folded state: what a handler decides on, and the cache that keeps it warm."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, ClassVar, Generic, Self, TypeVar

import msgspec

from keelson.events import Event, Ids
from keelson.events.ids import AggregateId, Seq
from keelson.log.confirm import ScopeState


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Base of folded states: the part of an aggregate's history that its rules need."""

    aggregate_type: ClassVar[str]
    noun: ClassVar[str]

    deleted: bool = False

    @classmethod
    def evolve(cls, state: Self | None, event: Event) -> Self:
        """Give the state after an event; pure. The first event of an aggregate comes with no state."""
        raise NotImplementedError


S = TypeVar("S", bound=State)
S_co = TypeVar("S_co", bound=State, covariant=True)


class Aggregate(msgspec.Struct, Generic[S_co], frozen=True):
    """An aggregate as it was read, or as the events of this command leave it."""

    id: AggregateId
    seq: Seq
    ids: Ids
    state: S_co


class StateCache:
    """The most recently used aggregates and claim scopes of one epoch, bounded in number.

    What it gives may be stale on every replica but the one that wrote last; the append and the confirmation notice.
    They would not notice what was read in another epoch, where the same seq may mean something else: it is not kept.
    """

    def __init__(self, epoch: str, max_entries: int = 10_000) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[str, Any] = OrderedDict()
        self._outdated: set[str] = set()
        self.epoch = epoch

    def enter_epoch(self, epoch: str) -> None:
        """Forget what was read in another lineage of the log."""
        if epoch != self.epoch:
            self._entries.clear()
            self._outdated.clear()
            self.epoch = epoch

    def read(self, aggregate_id: str) -> Aggregate[Any] | None:
        """Give an aggregate if it is warm."""
        found: Aggregate[Any] | None = self._touch(aggregate_id)
        return found

    def read_outdated(self, aggregate_id: str) -> Aggregate[Any] | None:
        """Give an earlier state of an aggregate, to read on from, if there is one."""
        found: Aggregate[Any] | None = self._entries.get(aggregate_id)
        return found

    def read_scope(self, scope: str) -> ScopeState | None:
        """Give what a claim scope holds if it is warm."""
        found: ScopeState | None = self._touch(scope)
        return found

    def keep(self, aggregate: Aggregate[Any], epoch: str) -> None:
        """Keep an aggregate that was read in an epoch, unless a later state of it is kept already."""
        known = self._entries.get(aggregate.id)
        if epoch == self.epoch and (known is None or known.seq <= aggregate.seq):
            self._put(aggregate.id, aggregate)

    def keep_scope(self, scope: str, state: ScopeState, epoch: str) -> None:
        """Keep what a scope was read to hold in an epoch, unless a later version is kept already."""
        known = self._entries.get(scope)
        if epoch == self.epoch and (known is None or known.version <= state.version):
            self._put(scope, state)

    def doubt(self, names: Iterable[str]) -> None:
        """Give aggregates and scopes, by their names, no more until they were read again."""
        self._outdated.update(name for name in names if name in self._entries)

    def _touch(self, name: str) -> Any:
        if name not in self._entries or name in self._outdated:
            return None
        self._entries.move_to_end(name)
        return self._entries[name]

    def _put(self, name: str, entry: Any) -> None:
        self._entries[name] = entry
        self._entries.move_to_end(name)
        self._outdated.discard(name)
        if len(self._entries) > self._max_entries:
            dropped, _ = self._entries.popitem(last=False)
            self._outdated.discard(dropped)
