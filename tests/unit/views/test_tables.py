"""Tables derive from structs of rows; declarations that contradict themselves are refused when they are made."""

from datetime import datetime
from typing import Literal

import pytest

from keelson.events.ids import Position
from keelson.views import PROJECTIONS, sql, table_named
from keelson.views.platform import ENV_PROCESSES, ENVS
from keelson.views.table import STAMPS, Row, Table, TableError, canonical


class Everything(Row, frozen=True, kw_only=True):
    """A column of every kind."""

    id: str
    kind: Literal["a", "b"]
    count: int
    at: Position | None
    ratio: float
    live: bool
    seen_at: datetime | None = None
    names: tuple[str, ...] = ()
    either: str | int | None = None


def test_columns_derive_from_annotations() -> None:
    table = Table(name="everything", row=Everything)

    assert [(column.name, column.sql_type, column.nullable) for column in table.columns] == [
        ("id", "text", False),
        ("kind", "text", False),
        ("count", "bigint", False),
        ("at", "bigint", True),
        ("ratio", "double precision", False),
        ("live", "boolean", False),
        ("seen_at", "timestamptz", True),
        ("names", "json", False),
        ("either", "json", True),
        ("resource_version", "bigint", False),
        ("position", "bigint", False),
        ("created_at", "timestamptz", False),
        ("updated_at", "timestamptz", False),
    ]
    assert table.defaults == {"seen_at": None, "names": (), "either": None}


@pytest.mark.parametrize("table", [table for each in PROJECTIONS.values() for table in each.tables])
def test_the_stamps_come_last(table: Table) -> None:
    assert tuple(column.name for column in table.columns[-4:]) == STAMPS


def test_defaults_are_made_anew_for_each_table() -> None:
    assert ENVS.defaults["replicas"] == {}


def test_json_is_canonical() -> None:
    assert canonical({"b": 1, "a": {"d": 1, "c": 2}}) == canonical({"a": {"c": 2, "d": 1}, "b": 1})
    assert canonical({"b": 1, "a": 2}) == '{"a":2,"b":1}'
    assert canonical(None) is None


class Reserved(Row, frozen=True, kw_only=True):
    """A row with a field that answers add to every row."""

    id: str
    found: bool


@pytest.mark.parametrize(
    ("declare", "complaint"),
    [
        (lambda: Table(name="t", row=Everything, key=("nothing",)), "no columns"),
        (lambda: Table(name="t", row=Everything, indexes=(("id", "nothing"),)), "no columns"),
        (lambda: Table(name="t", row=Everything, key=("id", "kind"), aggregate="t"), "the aggregate's id alone"),
        (lambda: Table(name="t", row=Reserved), "found"),
    ],
)
def test_contradictions_are_refused(declare: object, complaint: str) -> None:
    assert callable(declare)
    with pytest.raises(TableError, match=complaint):
        declare()


def test_names_of_tables_are_unique() -> None:
    names = [table.name for projection in PROJECTIONS.values() for table in projection.tables]

    assert len(names) == len(set(names))
    assert {PROJECTIONS[name].name for name in PROJECTIONS} == set(PROJECTIONS)


def test_tables_are_found_by_name() -> None:
    projection, table = table_named("env_processes")

    assert projection.name == "platform"
    assert table is ENV_PROCESSES
    with pytest.raises(KeyError):
        table_named("nothing")


@pytest.mark.parametrize(
    ("table", "filters", "newest_first"),
    [("env_processes", (), False), ("apps", (), True), ("env_processes", ("env_id",), True)],
)
def test_what_cannot_be_paged_is_refused(table: str, filters: tuple[str, ...], newest_first: bool) -> None:
    with pytest.raises(ValueError, match="cannot be paged"):
        sql.select_page(table_named(table)[1], filters, deleted=True, newest_first=newest_first)
