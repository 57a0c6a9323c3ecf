"""Folding a page's changes per key, so that each row is written once however often the page changes it.

The fold never sees the tables. A patch of a row that the page did not put waits as a patch, and its key is remembered
with the position that needs it: the writer finds out whether there is such a row.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import cache
from operator import itemgetter
from typing import cast

from keelson.events import Envelope, Event
from keelson.views.changes import Change, Patch, Put, Replace
from keelson.views.projection import HandlerError, MissingRowError, Projection
from keelson.views.table import Key, KeyPart, Table, Value, canonical

# A row as a list in the order of the table's columns.
RowValues = list[Value]


class PatchValues:
    """What a page changes of a row that it did not put: the fields, and the envelope that moved it last."""

    __slots__ = ("fields", "moved_by")

    def __init__(self) -> None:
        self.fields: dict[str, Value] = {}
        self.moved_by: Envelope


class TableFold:
    """What a page does to one table. A key is in at most one of `puts`, `patches` and `deletes`.

    `prefixes` are cleared and `deletes` deleted before puts and patches are written. `needed` are the keys of which
    there must be a row before the page, each with the position of the first event that needs it. `appended` are the
    rows of a table that is append-only, and all that is said of it.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.appended: list[RowValues] = []
        self.puts: dict[Key, RowValues] = {}
        self.patches: dict[Key, PatchValues] = {}
        self.deletes: set[Key] = set()
        self.prefixes: set[Key] = set()
        self.needed: dict[Key, int] = {}
        # The keys of puts and patches by their first part, where there is a second, so that a replacement finds them.
        self._keys_under: dict[KeyPart, set[Key]] = defaultdict(set)
        self._is_keyed_deeper = len(table.key) > 1
        self._layout = _layout_of(table)

    def put(self, envelope: Envelope, fields: dict[str, Value]) -> None:
        """Fold a whole row."""
        row = self._layout.row(envelope, fields)
        if self.table.append_only:
            self.appended.append(row)
        else:
            self._put(self._layout.key(row), row)

    def patch(self, envelope: Envelope, key: Key, fields: dict[str, Value]) -> None:
        """Fold a change of fields. Raises MissingRowError if the page itself took the row away."""
        fields = self._layout.stored(fields)
        row = self.puts.get(key)
        if row is None:
            self._patch_unseen(envelope, key, fields)
        else:
            self._layout.change(row, envelope, fields)

    def delete(self, key: Key) -> None:
        """Fold a deletion."""
        self.puts.pop(key, None)
        self.patches.pop(key, None)
        self.deletes.add(key)

    def replace(self, envelope: Envelope, prefix: Key, rows: tuple[dict[str, Value], ...]) -> None:
        """Fold an exchange of all rows under a prefix of the key."""
        size = len(prefix)
        for key in [key for key in self._keys_under[prefix[0]] if key[:size] == prefix]:
            self.puts.pop(key, None)
            self.patches.pop(key, None)
        self.prefixes.add(prefix)
        for fields in rows:
            row = self._layout.row(envelope, fields)
            key = self._layout.key(row)
            if key[:size] != prefix:
                raise HandlerError(f"{envelope.type} replaces rows of {self.table.name} outside of the prefix")
            self._put(key, row)

    def _put(self, key: Key, row: RowValues) -> None:
        self.patches.pop(key, None)
        self.deletes.discard(key)
        self.puts[key] = row
        if self._is_keyed_deeper:
            self._keys_under[key[0]].add(key)

    def _patch_unseen(self, envelope: Envelope, key: Key, fields: dict[str, Value]) -> None:
        held = self.patches.get(key)
        if held is None:
            if key in self.deletes or self._is_replaced(key):
                raise MissingRowError(self.table, key)
            held = self.patches[key] = PatchValues()
            self.needed.setdefault(key, envelope.position)
            if self._is_keyed_deeper:
                self._keys_under[key[0]].add(key)
        held.fields.update(fields)
        held.moved_by = envelope

    def _is_replaced(self, key: Key) -> bool:
        return bool(self.prefixes) and any(key[:size] in self.prefixes for size in range(1, len(key) + 1))


class _Layout:
    """Where a table's columns are in a row, and how fields become what is stored."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._fields = {name: table.index_of[name] for name in table.fields}
        # All values in one call: a row of activity has 14, and laying them out one by one cost a tenth more.
        self._values = itemgetter(*table.fields) if len(table.fields) > 1 else _single(*table.fields)
        self._json = frozenset(table.json_fields)
        self._json_at = tuple(table.index_of[name] for name in table.json_fields)
        self._key_at = tuple(table.index_of[name] for name in table.key)
        self._version_at = table.index_of["resource_version"]
        self._position_at = table.index_of["position"]
        self._updated_at = table.index_of["updated_at"]

    def row(self, envelope: Envelope, fields: dict[str, Value]) -> RowValues:
        """Lay a whole row out. Raises HandlerError unless it has exactly its fields; those with a default may lack."""
        table = self._table
        given = {**table.defaults, **fields} if table.defaults else fields
        moved_at = envelope.recorded_at
        try:
            row: RowValues = list(self._values(given))
        except KeyError:
            row = []
        if len(row) != len(given):
            raise HandlerError(f"{envelope.type} puts a row into {table.name} without exactly its fields")
        for index in self._json_at:
            row[index] = canonical(row[index])
        row += (envelope.seq, envelope.position, moved_at, moved_at)
        return row

    def key(self, row: RowValues) -> Key:
        """Give a row's key."""
        return cast("Key", tuple([row[index] for index in self._key_at]))

    def stored(self, fields: dict[str, Value]) -> dict[str, Value]:
        """Give fields as they are stored. Raises HandlerError for what is no field of the table."""
        if not self._fields.keys() >= fields.keys():
            raise HandlerError(f"{self._table.name} has no fields {sorted(fields.keys() - self._fields.keys())}")
        if self._json.isdisjoint(fields):
            return fields
        return {name: canonical(value) if name in self._json else value for name, value in fields.items()}

    def change(self, row: RowValues, envelope: Envelope, fields: dict[str, Value]) -> None:
        """Change fields of a row, and say what moved it."""
        for name, value in fields.items():
            row[self._fields[name]] = value
        row[self._version_at] = envelope.seq
        row[self._position_at] = envelope.position
        row[self._updated_at] = envelope.recorded_at


def _single(field: str) -> Callable[[dict[str, Value]], tuple[Value]]:
    return lambda fields: (fields[field],)


_layout_of = cache(_Layout)


class Fold:
    """What a page does to the tables of a projection; `tables` holds those only of which it says something."""

    def __init__(self, projection: Projection) -> None:
        self.projection = projection
        self.tables: dict[str, TableFold] = {}

    def add(self, envelope: Envelope, event: Event) -> None:
        """Fold one event. Raises what its handler raises, HandlerError and MissingRowError; the fold is then void."""
        for change in self.projection.changes(envelope, event):
            self._add(envelope, change)

    def _add(self, envelope: Envelope, change: Change) -> None:
        table = self.tables.get(change.table.name) or self._begin(change.table)
        if isinstance(change, Put):
            table.put(envelope, change.fields)
        elif change.table.append_only:
            raise HandlerError(f"{envelope.type} changes rows of {change.table.name}, which is append-only")
        elif isinstance(change, Patch):
            table.patch(envelope, change.key, change.fields)
        elif isinstance(change, Replace):
            table.replace(envelope, change.prefix, change.rows)
        else:
            table.delete(change.key)

    def _begin(self, table: Table) -> TableFold:
        if table not in self.projection.tables:
            raise HandlerError(f"{table.name} is no table of {self.projection.name}")
        fold = self.tables[table.name] = TableFold(table)
        return fold
