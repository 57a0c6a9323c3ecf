"""How the code is cut: small modules, SQL in files of its own, each saying what it is for."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.repository import code_files, name_of, parse

GENERATED_SQL = "libs/views/keelson/views/sql.py"

# What only asks the session about itself names no table and takes no lock: it may stand where it is asked.
STATEMENT = re.compile(
    r"""\s*(
        select\s(?!current_(setting|user|database)\b) |
        insert\s+into\s | update\s+\S+\s+set\s | delete\s+from\s | with\s+(recursive\s+)?\w+\s+as\s |
        truncate\s+\S+$ | lock\s+table\s | listen\s+\w+$ | notify\s+\w+ |
        (create|alter|drop|grant|revoke)\s+(or\s+replace\s+)?(unlogged\s+|unique\s+)?
        (all|database|default|execute|function|index|role|schema|select|sequence|table|trigger|usage|user|view)\s
    )""",
    re.IGNORECASE | re.VERBOSE,
)


def line_count(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_modules_are_small() -> None:
    sizes = {name_of(path): line_count(path) for path in code_files()}

    assert not {name: size for name, size in sizes.items() if size > 400}
    assert len([size for size in sizes.values() if size > 300]) <= 3, "modules are rarely over 300 lines"


def test_functions_are_small() -> None:
    long = [
        f"{name_of(path)}: {node.name}"
        for path in code_files()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno > 60
    ]

    assert not long


def statements(tree: ast.Module) -> Iterator[ast.Constant]:
    """Give the strings of a file that are SQL; docstrings may speak of it."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or node in docstrings:
            continue
        if isinstance(node.value, str) and STATEMENT.match(node.value):
            yield node


def test_sql_is_in_files_of_its_own() -> None:
    found = [
        f"{name_of(path)}:{each.lineno}"
        for path in code_files()
        if name_of(path) != GENERATED_SQL
        for each in statements(parse(path))
    ]

    assert not found


@pytest.mark.parametrize(
    "planted",
    [
        'db.fetch("SELECT 1")',
        'sql = f"select * from {table}"',
        'run("""\n  INSERT INTO log.events VALUES ($1)""")',
        'x = "UPDATE log.head SET position = 1"',
        'x = "WITH page AS (SELECT 1) SELECT 2"',
        'x = "CREATE TABLE views.apps ()"',
        'x = "drop table views.apps"',
    ],
)
def test_sql_in_python_is_found(planted: str) -> None:
    assert len(list(statements(ast.parse(planted)))) == 1


def test_prose_is_not_sql() -> None:
    assert not list(statements(ast.parse('"""SELECT is what this wraps."""\nhelp = "with care, or create an app"')))


@pytest.mark.parametrize("path", [pytest.param(path, id=name_of(path)) for path in code_files(".sql")])
def test_every_sql_file_says_what_it_is_for(path: Path) -> None:
    first = path.read_text(encoding="utf-8").lstrip().splitlines()[0]

    assert re.match(r"-- \S+ \S+", first)


def test_every_sql_file_is_used() -> None:
    code = {path: path.read_text(encoding="utf-8") for path in code_files()}
    unused = [
        name_of(path)
        for path in code_files(".sql")
        if path.parent.name == "sql"
        if not any(f'"{path.stem}"' in text for user, text in code.items() if user.parent == path.parent.parent)
    ]

    assert not unused
