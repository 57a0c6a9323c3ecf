"""Views in memory, event by event: for verification, for the history of one aggregate, and for tests.

Plain on purpose, and without a line in common with `keelson.views.fold`: what both make of a log can be compared.
"""

from collections.abc import Iterator
from typing import assert_never

from keelson.events import Envelope, Event
from keelson.views.changes import Change, Delete, Patch, Put, Replace
from keelson.views.projection import HandlerError, MissingRowError, Projection
from keelson.views.table import Key, KeyPart, Table, Value, canonical

Fields = dict[str, Value]


class Memory:
    """The rows of a projection's tables as they are after the events that it was given."""

    def __init__(self, projection: Projection) -> None:
        self.projection = projection
        self._rows: dict[str, dict[Key, Fields]] = {table.name: {} for table in projection.tables}

    def apply(self, envelope: Envelope, event: Event) -> None:
        """Apply one event. Raises what its handler raises, HandlerError and MissingRowError."""
        for change in self.projection.changes(envelope, event):
            self._apply(envelope, change)

    def read_row(self, table: Table, *key: KeyPart) -> Fields | None:
        """Give a row, values as the handlers gave them, or None."""
        return self._rows[table.name].get(key)

    def stored_rows(self, table: Table) -> Iterator[tuple[Key, Fields]]:
        """Give the rows as the database holds them (JSON as canonical text), in the order of their keys."""
        for key, row in sorted(self._rows[table.name].items()):
            yield key, {column.name: _stored(row[column.name], column.is_json) for column in table.columns}

    def _apply(self, envelope: Envelope, change: Change) -> None:
        rows = self._rows[change.table.name]
        match change:
            case Put(table, fields):
                _put(rows, table, envelope, fields)
            case Patch(table, key, fields):
                if key not in rows:
                    raise MissingRowError(table, key)
                _refuse_unknown(table, fields)
                rows[key] = {**rows[key], **fields, **_moved(envelope)}
            case Delete(_, key):
                rows.pop(key, None)
            case Replace(table, prefix, new):
                for key in [key for key in rows if key[: len(prefix)] == prefix]:
                    del rows[key]
                for fields in new:
                    _put(rows, table, envelope, fields)
            case _:
                assert_never(change)


def _put(rows: dict[Key, Fields], table: Table, envelope: Envelope, fields: Fields) -> None:
    _refuse_unknown(table, fields)
    row = {**table.defaults, **fields, "created_at": envelope.recorded_at, **_moved(envelope)}
    if len(row) != len(table.columns):
        raise HandlerError(f"{envelope.type} puts a row into {table.name} without all of its fields")
    rows[_key(table, row)] = row


def _key(table: Table, row: Fields) -> Key:
    parts = [row[name] for name in table.key]
    return tuple(part for part in parts if isinstance(part, str | int))


def _moved(envelope: Envelope) -> Fields:
    return {"resource_version": envelope.seq, "position": envelope.position, "updated_at": envelope.recorded_at}


def _refuse_unknown(table: Table, fields: Fields) -> None:
    if not fields.keys() <= set(table.fields):
        raise HandlerError(f"{table.name} has no fields {sorted(fields.keys() - set(table.fields))}")


def _stored(value: Value, is_json: bool) -> Value:
    return canonical(value) if is_json else value
