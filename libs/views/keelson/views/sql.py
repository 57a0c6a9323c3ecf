"""All SQL that is generated from declarations of tables and views, and nothing else; the one exception to SQL in files.

Names come from declarations in this package alone, never from requests; values are always parameters. Statements on a
page of rows take one array per column, so that a page costs one round trip per table, however many rows it has.
"""

from functools import cache

from keelson.views.table import STAMPS, Column, DerivedView, Relation, Table

LIVE = "views"
NEXT = "views_next"
# What a patch stamps: everything but when the row was made.
PATCH_STAMPS = tuple(name for name in STAMPS if name != "created_at")
# An exclusive upper bound above every position.
_BEYOND = 2**63 - 1


def create_table(table: Table, schema: str) -> str:
    """Create the table with its key. Ids and names are compared byte by byte."""
    columns = ", ".join(_declare(column) for column in table.columns)
    return f"CREATE TABLE {schema}.{table.name} ({columns}, PRIMARY KEY ({_list(table.key)}))"


def create_indexes(table: Table, schema: str) -> list[str]:
    """Create the other indexes, named by table and columns."""
    return [
        f"CREATE INDEX {table.name}_by_{'_'.join(index)} ON {schema}.{table.name} ({_list(index)})"
        for index in table.indexes
    ]


def create_view(view: DerivedView, schema: str) -> str:
    """Create the derived view over the tables of a schema, which must be the session's search path.

    It is bound to those tables, wherever they are moved and whatever they are then called.
    """
    names = tuple(column.name for column in view.columns)
    columns = ", ".join(f"t.{column.name}::{column.sql_type} AS {column.name}" for column in view.columns)
    return f"CREATE VIEW {schema}.{view.name} ({_list(names)}) AS SELECT {columns} FROM (\n{view.select}\n) AS t"  # noqa: S608


def drop(kind: str, qualified_name: str) -> str:
    """Drop a table or view of whatever projection; the name is quoted already. Locks: ACCESS EXCLUSIVE on it."""
    return f"DROP {kind} {qualified_name}"


def mark(relation: Relation, schema: str, projection: str) -> str:
    """Write on a table or view which projection made it, for a later version to find, whatever it calls its own."""
    return f"COMMENT ON {_kind(relation)} {schema}.{relation.name} IS '{mark_of(projection)}'"


def mark_of(projection: str) -> str:
    """Give the comment that is on the tables and views of a projection."""
    return f"projection {projection}"


def analyze(table: Table, schema: str) -> str:
    """Tell the planner what is in the table."""
    return f"ANALYZE {schema}.{table.name}"


def move(relation: Relation) -> str:
    """Move what was rebuilt, with its indexes and rights, among the live ones. Locks: ACCESS EXCLUSIVE on it."""
    return f"ALTER {_kind(relation)} {NEXT}.{relation.name} SET SCHEMA {LIVE}"


@cache
def upsert(table: Table, schema: str = LIVE) -> str:
    """Write whole rows. Parameters: an array per column, in the table's order; keys must be distinct."""
    names = tuple(column.name for column in table.columns)
    sets = ", ".join(f"{name} = excluded.{name}" for name in names if name not in table.key)
    return (
        f"INSERT INTO {schema}.{table.name} ({_list(names)}) SELECT * FROM {_unnest(table, names, 'new')} "  # noqa: S608
        f"ON CONFLICT ({_list(table.key)}) DO UPDATE SET {sets}"
    )


@cache
def patch(table: Table, fields: tuple[str, ...], schema: str = LIVE) -> str:
    """Change fields of rows. Parameters: an array per key column, per field, and per stamp of PATCH_STAMPS.

    The status says how many rows there were: fewer than keys means that one was missing.
    """
    names = (*fields, *PATCH_STAMPS)
    return (
        f"UPDATE {schema}.{table.name} AS old SET {', '.join(f'{name} = new.{name}' for name in names)} "  # noqa: S608
        f"FROM {_unnest(table, (*table.key, *names), 'new')} WHERE {_matching(table.key, 'new')}"
    )


@cache
def delete(table: Table, key: tuple[str, ...], schema: str = LIVE) -> str:
    """Delete rows by their key or the first columns of it. Parameters: an array per column of `key`."""
    return (
        f"DELETE FROM {schema}.{table.name} AS old USING {_unnest(table, key, 'gone')} WHERE {_matching(key, 'gone')}"  # noqa: S608
    )


@cache
def select_missing(table: Table, schema: str = LIVE) -> str:
    """Give the keys of which there is no row. Parameters: an array per key column."""
    return (
        f"SELECT {_list(table.key)} FROM {_unnest(table, table.key, 'asked')} "  # noqa: S608
        f"WHERE NOT EXISTS (SELECT FROM {schema}.{table.name} AS old WHERE {_matching(table.key, 'asked')})"
    )


def select_all(table: Relation, schema: str = LIVE) -> str:
    """Give all rows in the order of their keys: all columns, in the table's order."""
    names = _list(tuple(column.name for column in table.columns))
    return f"SELECT {names} FROM {schema}.{table.name} ORDER BY {_list(table.key)}"  # noqa: S608


def touch(tables: tuple[Table, ...], schema: str = LIVE) -> str:
    """Read no row of any of the tables: taking their locks is what it is for."""
    return " UNION ALL ".join(f"(SELECT 1 FROM {schema}.{table.name} LIMIT 0)" for table in tables)  # noqa: S608


@cache
def select_rows(table: Relation, *, confined: bool = False) -> str:
    """Give rows by their keys, of one column, and the checkpoint and the epoch that they reflect, in one snapshot.

    Parameters: $1 the projection, $2 the keys; if `confined`, $3 the organisation, whose rows alone there are. Each row
    has `checkpoint` (null if the projection never ran), `epoch`, `found`, and the table's columns; where nothing is
    found there is one row all the same, its columns null. One statement, because a rebuild swaps tables: a
    transaction's second would find the new table empty, its rows being newer than the snapshot.
    """
    (key,) = table.key
    mine = f" AND {_within(table, 3)}" if confined else ""
    return f"{_head(table)} LEFT JOIN {LIVE}.{table.name} AS t ON t.{key} = ANY ($2::{_type(table, key)}[]){mine}"


@cache
def select_page(
    table: Relation, filters: tuple[str, ...], *, deleted: bool, newest_first: bool = False, confined: bool = False
) -> str:
    """Give a page of rows and the checkpoint and the epoch that they reflect, in one snapshot.

    Parameters: $1 the projection; $2 what to go on after, exclusively: a value of the key's last column ('' from the
    start), or with `newest_first` a position (0 from the newest); $3 the limit; then a value per filter, equal to it;
    last, if `confined`, the organisation, whose rows alone there are. The key's other columns must be among the
    filters. Always at least one row (`found` is false if it is no row of the table). `deleted=False` leaves out rows
    that have a `deleted_at`.
    """
    *leading, last = table.key
    if not set(leading) <= set(filters) or (newest_first and last != "position"):
        raise ValueError(f"{table.name} cannot be paged by {filters}")
    after = _newest_first() if newest_first else f"t.{last} > $2::{_type(table, last)}"
    direction = "DESC" if newest_first else "ASC"
    conditions = [after]
    conditions += [f"t.{name} = ${index}::{_type(table, name)}" for index, name in enumerate(filters, start=4)]
    if confined:
        conditions.append(_within(table, 4 + len(filters)))
    if table.deletable and not deleted:
        conditions.append("t.deleted_at IS NULL")
    page = (
        f"SELECT * FROM {LIVE}.{table.name} AS t WHERE {' AND '.join(conditions)} "  # noqa: S608
        f"ORDER BY t.{last} {direction} LIMIT $3::bigint"
    )
    return f"{_head(table)} LEFT JOIN ({page}) AS t ON true ORDER BY t.{last} {direction}"


def _within(table: Relation, parameter: int) -> str:
    """Give the condition that a row is of an organisation; what is nobody's is of none."""
    return "false" if table.org is None else f"t.{table.org} = ${parameter}::text"


def _kind(relation: Relation) -> str:
    return "VIEW" if isinstance(relation, DerivedView) else "TABLE"


def _newest_first() -> str:
    return f"t.position < coalesce(nullif($2::bigint, 0), {_BEYOND})"


def _head(table: Relation) -> str:
    columns = ", ".join(f"t.{column.name}" for column in table.columns)
    return (
        "SELECT c.position AS checkpoint, (SELECT h.epoch FROM log.head AS h) AS epoch, "  # noqa: S608
        f"t.{table.key[0]} IS NOT NULL AS found, {columns} "
        "FROM (VALUES ($1::text)) AS asked (projection) "
        "LEFT JOIN ops.checkpoints AS c ON c.projection = asked.projection"
    )


def _declare(column: Column) -> str:
    collation = ' COLLATE "C"' if column.sql_type == "text" else ""
    return f"{column.name} {column.sql_type}{collation}{'' if column.nullable else ' NOT NULL'}"


def _unnest(table: Table, names: tuple[str, ...], alias: str) -> str:
    arrays = ", ".join(f"${index}::{_type(table, name)}[]" for index, name in enumerate(names, start=1))
    return f"unnest({arrays}) AS {alias} ({_list(names)})"


def _matching(key: tuple[str, ...], alias: str) -> str:
    return " AND ".join(f"old.{name} = {alias}.{name}" for name in key)


def _type(table: Relation, name: str) -> str:
    return table.columns[table.index_of[name]].sql_type


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names)
