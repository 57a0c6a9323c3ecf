"""Writing a folded page: set-based, one round trip per table and kind of change, in the caller's transaction."""

from collections import defaultdict
from collections.abc import Collection, Sequence

import asyncpg

from keelson.log.database import Connection
from keelson.projector.folding import PoisonError
from keelson.views import sql
from keelson.views.fold import Fold, PatchValues, TableFold
from keelson.views.projection import MissingRowError
from keelson.views.table import Key, Value

# What the server says of values that no column can hold, or asyncpg on its behalf (by a ValueError of its own): a NUL,
# a number too large, a null, a text too long for its index.
REFUSED: tuple[type[Exception], ...] = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
)

Columns = list[Sequence[Value]]


async def write_rows(connection: Connection, fold: Fold, schema: str = sql.LIVE) -> None:
    """Write what a page does to its tables.

    Raises PoisonError if a row that it needs is missing, and REFUSED; the transaction must then be rolled back. Waits
    for nobody but a rebuild's swap: rows of a projection are written by whoever moves its checkpoint alone.
    """
    for table in fold.tables.values():
        await _append(connection, table, schema)
        await _check_needed(connection, table, schema)
        await _delete(connection, table, schema)
        await _upsert(connection, table, schema)
        await _patch(connection, table, schema)


async def _append(connection: Connection, fold: TableFold, schema: str) -> None:
    if fold.appended:
        columns = [column.name for column in fold.table.columns]
        await connection.copy_records_to_table(
            fold.table.name, schema_name=schema, columns=columns, records=fold.appended
        )


async def _check_needed(connection: Connection, fold: TableFold, schema: str) -> None:
    """Check that the rows were there which the page first patches and then writes anew or deletes."""
    covered = [key for key in fold.needed if key not in fold.patches]
    if covered:
        await _refuse_missing(connection, fold, covered, schema)


async def _refuse_missing(connection: Connection, fold: TableFold, keys: Collection[Key], schema: str) -> None:
    rows = await connection.fetch(sql.select_missing(fold.table, schema), *_transpose(keys))
    if rows:
        first = min((tuple(row) for row in rows), key=fold.needed.__getitem__)
        raise PoisonError(fold.needed[first], str(MissingRowError(fold.table, first)))


async def _delete(connection: Connection, fold: TableFold, schema: str) -> None:
    by_size = defaultdict[int, list[Key]](list)
    for key in (*fold.prefixes, *fold.deletes):
        by_size[len(key)].append(key)
    for size, keys in sorted(by_size.items()):
        await connection.execute(sql.delete(fold.table, fold.table.key[:size], schema), *_transpose(keys))


async def _upsert(connection: Connection, fold: TableFold, schema: str) -> None:
    if fold.puts:
        await connection.execute(sql.upsert(fold.table, schema), *_transpose(fold.puts.values()))


async def _patch(connection: Connection, fold: TableFold, schema: str) -> None:
    groups = defaultdict[tuple[str, ...], dict[Key, PatchValues]](dict)
    for key, patch in fold.patches.items():
        groups[tuple(sorted(patch.fields))][key] = patch
    for fields, patches in groups.items():
        status = await connection.execute(sql.patch(fold.table, fields, schema), *_patch_columns(fields, patches))
        if int(status.rpartition(" ")[2]) < len(patches):
            # Updated rows are there; so only those that were missing before are found missing now.
            await _refuse_missing(connection, fold, fold.patches, schema)


def _patch_columns(fields: tuple[str, ...], patches: dict[Key, PatchValues]) -> Columns:
    columns = _transpose(patches)
    columns += [[patch.fields[name] for patch in patches.values()] for name in fields]
    movers = [patch.moved_by for patch in patches.values()]
    columns.append([mover.seq for mover in movers])
    columns.append([mover.position for mover in movers])
    columns.append([mover.recorded_at for mover in movers])
    return columns


def _transpose(rows: Collection[Sequence[Value]]) -> Columns:
    return list(zip(*rows, strict=True))
