"""What a handler says of rows. Changes are data: who applies them, to what and when is not their business."""

import msgspec

from keelson.views.table import Key, KeyPart, Table, Value


class Put(msgspec.Struct, frozen=True, gc=False):
    """The row is this, whatever it was; fields with a default may be left out."""

    table: Table
    fields: dict[str, Value]


class Patch(msgspec.Struct, frozen=True, gc=False):
    """These fields of the row change. It is an error, and poison, if there is no such row."""

    table: Table
    key: Key
    fields: dict[str, Value]


class Delete(msgspec.Struct, frozen=True, gc=False):
    """There is no such row any more; that there was none is well."""

    table: Table
    key: Key


class Replace(msgspec.Struct, frozen=True, gc=False):
    """The rows whose keys begin with `prefix` are exactly these; every row's key begins with it."""

    table: Table
    prefix: Key
    rows: tuple[dict[str, Value], ...]


Change = Put | Patch | Delete | Replace


def put(table: Table, **fields: Value) -> Put:
    """Say that a row is this."""
    return Put(table, fields)


def patch(table: Table, *key: KeyPart, **fields: Value) -> Patch:
    """Say that these fields of a row change."""
    return Patch(table, key, fields)


def delete(table: Table, *key: KeyPart) -> Delete:
    """Say that there is no such row any more."""
    return Delete(table, key)


def replace(table: Table, *prefix: KeyPart, rows: list[dict[str, Value]]) -> Replace:
    """Say that the rows under a prefix of the key are exactly these."""
    return Replace(table, prefix, tuple(rows))
