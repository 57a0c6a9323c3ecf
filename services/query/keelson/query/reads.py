"""Reading views: rows and pages, with the checkpoint and the epoch that they reflect, in one snapshot (F3, F26)."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

import asyncpg
import msgspec

from keelson.log.database import Database
from keelson.query.confinement import Reach
from keelson.service.problems import unavailable
from keelson.views import Projection, Relation
from keelson.views.sql import select_page, select_rows

# A row as clients see it, ready to be encoded; columns of JSON are passed through as they are stored.
Row = dict[str, Any]

# Before its columns, each row of the statements has the checkpoint, the epoch, and whether it is a row at all.
_LEADING = 3

_select_rows = lru_cache(select_rows)
_select_page = lru_cache(select_page)


class RowsReading(msgspec.Struct, frozen=True):
    """Those rows that were found, by their keys, as of the checkpoint, in the epoch of the same snapshot."""

    checkpoint: int
    epoch: str
    rows: dict[str, Row]


class PageReading(msgspec.Struct, frozen=True):
    """Rows in order, as of the checkpoint, in the epoch of the same snapshot; `more` says that others follow."""

    checkpoint: int
    epoch: str
    rows: list[Row]
    more: bool


class View:
    """One table or derived view of a projection, as it is read. `name` is also its collection's."""

    def __init__(self, projection: Projection, table: Relation) -> None:
        self.name = table.name
        self.projection = projection.name
        self.table = table
        self._columns = tuple(column.name for column in table.columns)

    async def read_rows(self, db: Database, keys: Collection[str], *, reach: Reach) -> RowsReading:
        """Give the rows of these keys that are within reach; the table's key is one column."""
        confined, mine = _confinement(reach)
        records = await _fetch(db, _select_rows(self.table, confined=confined), self.projection, keys, *mine)
        rows = {record[_LEADING]: self._row(record) for record in records if record["found"]}
        return RowsReading(*_reflected(records[0]), rows)

    async def read_page(
        self,
        db: Database,
        filters: Mapping[str, Any],
        *,
        reach: Reach,
        after: str | int,
        limit: int,
        deleted: bool = True,
        newest_first: bool = False,
    ) -> PageReading:
        """Give the rows within reach that equal all filters, after a value of the key's last column.

        '' or 0 is from the start. One more than `limit` is read, to know whether others follow.
        """
        confined, mine = _confinement(reach)
        statement = _select_page(
            self.table, tuple(filters), deleted=deleted, newest_first=newest_first, confined=confined
        )
        records = await _fetch(db, statement, self.projection, after, limit + 1, *filters.values(), *mine)
        rows = [self._row(record) for record in records[:limit] if record["found"]]
        return PageReading(*_reflected(records[0]), rows, more=len(records) > limit)

    def _row(self, record: Any) -> Row:
        row = dict(zip(self._columns, tuple(record)[_LEADING:], strict=True))
        for name in self.table.json_fields:
            if row[name] is not None:
                row[name] = msgspec.Raw(row[name].encode())
        return row


def _confinement(reach: Reach) -> tuple[bool, tuple[str, ...]]:
    """Give whether a statement is confined, and its last parameter."""
    return (False, ()) if reach.org_id is None else (True, (reach.org_id,))


async def _fetch(db: Database, statement: str, *args: Any) -> list[Any]:
    """Run the statement; a view that is not there, or is another version's, is a matter of time: 503."""
    try:
        return await db.fetch(statement, *args)
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
        raise unavailable("The view behind this path has not been built yet, or not in this version") from None


def _reflected(record: Any) -> tuple[int, str]:
    """Give the checkpoint and the epoch; a projection that never ran reflects nothing."""
    return record["checkpoint"] or 0, record["epoch"]
