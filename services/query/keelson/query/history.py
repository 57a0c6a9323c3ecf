"""What became of one aggregate, event by event: the projection's own handlers, run in memory over its events."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import msgspec

from keelson.events import REGISTRY, Envelope, UnknownEventError
from keelson.log.database import Database
from keelson.log.read import Head, read_aggregate, read_head
from keelson.query.confinement import Reach
from keelson.views import PROJECTIONS, Projection, Table
from keelson.views.memory import Memory

_BATCH = 1000

Changes = dict[str, tuple[Any, Any]]


class HistoryItem(msgspec.Struct, frozen=True, kw_only=True):
    """One event and what it changed in the aggregate's row: field to old and new value.

    `changes` is null where this code cannot tell: the event is a newer writer's, or its handler refuses it.
    """

    position: int
    seq: int
    type: str
    actor_type: str
    actor_id: str
    reason: str | None
    recorded_at: datetime
    causation_id: int | None
    changes: Changes | None


class History(msgspec.Struct, frozen=True, kw_only=True):
    """Events after a seq, whether the aggregate has any at all, and the head that they reflect."""

    items: list[HistoryItem]
    exists: bool
    more: bool
    head: Head


class Recorder:
    """Folds one aggregate's events and says what each changed in the aggregate's own row."""

    def __init__(self, aggregate_id: str) -> None:
        self._aggregate_id = aggregate_id
        self._owner = _find_owner(aggregate_id.partition("_")[0])
        self._memory = Memory(self._owner[0]) if self._owner else None

    def record(self, envelope: Envelope) -> HistoryItem:
        """Fold the next event; they must come in order, from the first on."""
        return HistoryItem(
            position=envelope.position,
            seq=envelope.seq,
            type=envelope.type,
            actor_type=envelope.actor_type,
            actor_id=envelope.actor_id,
            reason=envelope.reason,
            recorded_at=envelope.recorded_at,
            causation_id=envelope.causation_id,
            changes=self._fold(envelope),
        )

    def _fold(self, envelope: Envelope) -> Changes | None:
        before = self._fields()
        try:
            event = REGISTRY.decode(envelope.type, envelope.version, envelope.payload)
            if self._memory is not None:
                self._memory.apply(envelope, event)
        except (UnknownEventError, msgspec.MsgspecError):
            return None
        except Exception:  # noqa: BLE001 - a handler may raise anything; the other events are still to be shown
            return None
        after = self._fields()
        return {name: (before.get(name), new) for name, new in after.items() if before.get(name) != new}

    def _fields(self) -> dict[str, Any]:
        """Give the row without what the engine stamps on it; empty while there is none."""
        if self._owner is None or self._memory is None:
            return {}
        _, table = self._owner
        row = self._memory.read_row(table, self._aggregate_id)
        return {} if row is None else {name: row[name] for name in table.fields}


def _find_owner(aggregate_type: str) -> tuple[Projection, Table] | None:
    """Give the table of an aggregate's own rows; the platform has none."""
    for projection in PROJECTIONS.values():
        for table in projection.tables:
            if table.aggregate == aggregate_type:
                return projection, table
    return None


async def read_history(db: Database, aggregate_id: str, *, reach: Reach, after_seq: int, limit: int) -> History:
    """Give an aggregate's history after a seq; one beyond reach does not exist.

    Every event up to the page's end is folded, 1000 a statement.
    """
    head = await read_head(db)
    recorder = Recorder(aggregate_id)
    items: list[HistoryItem] = []
    exists = False
    async for envelope in _events_until(db, aggregate_id, head):
        if not reach.covers(envelope.org_id):
            break
        exists = True
        if len(items) == limit:
            return History(items=items, exists=True, more=True, head=head)
        item = recorder.record(envelope)
        if envelope.seq > after_seq:
            items.append(item)
    return History(items=items, exists=exists, more=False, head=head)


async def _events_until(db: Database, aggregate_id: str, head: Head) -> AsyncIterator[Envelope]:
    """Give the events up to a head that was read before: whatever came later belongs to a later answer (F3)."""
    seq = 0
    while batch := await read_aggregate(db, aggregate_id, seq, _BATCH):
        for envelope in batch:
            if envelope.position > head.position:
                return
            yield envelope
        seq = batch[-1].seq
