"""Tables and derived views as a projection declares them: a struct of columns, a key, indexes.

Columns derive from the struct's annotations, so that the row that the query service describes to clients and the table
that the projector creates cannot differ.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import msgspec
from msgspec import inspect

KeyPart = str | int
Key = tuple[KeyPart, ...]
Value = object

# Set by the engine from the envelope, on every row; handlers never name them.
STAMPS = ("resource_version", "position", "created_at", "updated_at")

_SQL_TYPES: dict[type[inspect.Type], str] = {
    inspect.StrType: "text",
    inspect.LiteralType: "text",
    inspect.IntType: "bigint",
    inspect.BoolType: "boolean",
    inspect.FloatType: "double precision",
    inspect.DateTimeType: "timestamptz",
}
# What `select_rows` and `select_page` add to a row.
_RESERVED = frozenset({"checkpoint", "epoch", "found"})
_CANONICAL = msgspec.json.Encoder(order="deterministic")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What every row has beside the columns of its table.

    `resource_version` is the seq of the event that last moved the row, `position` that event's position; the times are
    those of the events that made and last moved it.
    """

    resource_version: int
    position: int
    created_at: datetime
    updated_at: datetime


class TableError(Exception):
    """A declaration of a table contradicts itself; raised when it is made, never later."""


class Column(msgspec.Struct, frozen=True):
    """One column: its PostgreSQL type, and whether it may be null."""

    name: str
    sql_type: str
    nullable: bool

    @property
    def is_json(self) -> bool:
        """Whether the column holds JSON text: canonical, so that equal values are equal texts."""
        return self.sql_type == "json"


@dataclass(frozen=True, eq=False, kw_only=True)
class Relation:
    """What has rows to read: a table, or a derived view. Its columns are the row's fields: its own, then the stamps.

    Equal only to itself.
    """

    name: str
    row: type[msgspec.Struct]
    key: tuple[str, ...] = ("id",)

    def __post_init__(self) -> None:
        names = {column.name for column in self.columns}
        unknown = set(self.key) - names
        if unknown:
            raise TableError(f"{self.name} has no columns {sorted(unknown)}")
        if names & _RESERVED:
            raise TableError(f"{self.name} declares {sorted(names & _RESERVED)}, which answers add to every row")

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns in the order of the table."""
        info = inspect.type_info(self.row)
        if not isinstance(info, inspect.StructType):
            raise TableError(f"{self.row.__name__} is no struct")
        columns = [_column(field) for field in info.fields]
        return tuple(sorted(columns, key=lambda column: column.name in STAMPS))

    @cached_property
    def index_of(self) -> dict[str, int]:
        """Each column's place in the table."""
        return {column.name: index for index, column in enumerate(self.columns)}

    @cached_property
    def json_fields(self) -> tuple[str, ...]:
        """The fields that are kept as JSON text."""
        return tuple(column.name for column in self.columns if column.is_json)

    @property
    def org(self) -> str | None:
        """The column that says whose a row is: confined readers see their organisation's alone; None is nobody's."""
        return "org_id" if "org_id" in self.index_of else None

    @property
    def deletable(self) -> bool:
        """Whether rows say when what they describe was deleted."""
        return "deleted_at" in self.index_of


@dataclass(frozen=True, eq=False, kw_only=True)
class Table(Relation):
    """A view's table.

    `aggregate` names the type of aggregate whose own row this is (its key is the aggregate's id): every event of such
    an aggregate moves that row. `collection` says that clients may list it. Rows that can be deleted have a field
    `deleted_at`. `append_only` says that a row is put once and never changed: such rows are copied in, at a third of
    the cost.
    """

    row: type[Row]
    indexes: tuple[tuple[str, ...], ...] = ()
    aggregate: str | None = None
    collection: bool = False
    append_only: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = {name for index in self.indexes for name in index} - set(self.index_of)
        if unknown:
            raise TableError(f"{self.name} has no columns {sorted(unknown)}")
        if self.aggregate is not None and len(self.key) != 1:
            raise TableError(f"{self.name} is an aggregate's own table: its key is the aggregate's id alone")

    @property
    def org(self) -> str | None:
        """The column that says whose a row is; of an organisation's own it is the id."""
        return "id" if self.aggregate == "org" else super().org

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The columns that handlers give: all but the stamps."""
        return tuple(column.name for column in self.columns if column.name not in STAMPS)

    @cached_property
    def defaults(self) -> dict[str, Value]:
        """The fields that a handler may leave out of a put, with what they then are."""
        info = msgspec.structs.fields(self.row)
        return {
            field.name: field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
            for field in info
            if not field.required
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class DerivedView(Relation):
    """An SQL view over tables of one projection: nothing is stored twice, and it is exact at their checkpoint.

    `select` names the tables by their bare names, and gives the row's fields under these, in this order and of these
    types: the database refuses to make it otherwise. What it gives may differ from the stored rows in nothing but how
    they are put together: no clock, no randomness, and no other schema's tables.
    """

    select: str


def canonical(value: Value) -> str | None:
    """Give the text of a value in a column of JSON: keys sorted, whatever order they came in; None stays null."""
    return None if value is None else _CANONICAL.encode(value).decode()


def _column(field: inspect.Field) -> Column:
    kinds = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
    given = [kind for kind in kinds if not isinstance(kind, inspect.NoneType)]
    sql_type = _SQL_TYPES.get(type(given[0]), "json") if len(given) == 1 else "json"
    return Column(field.name, sql_type, nullable=len(given) < len(kinds))
