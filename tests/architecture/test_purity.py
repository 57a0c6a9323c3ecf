"""What runs again in a rebuild must come to the same result: no clock, no seed, no I/O in events, views and domains.

F25, and two schedulers that plan the same. Imports are ruled by pyproject.toml; here is what is reached without one.
"""

import ast
from collections.abc import Iterator

import pytest

from support.repository import code_files, name_of, parse

PURE = (
    "libs/events/",
    "libs/views/",
    "services/command/keelson/command/domain/",
    "services/scheduler/keelson/scheduler/domain/",
)

CLOCK = frozenset({"now", "utcnow", "today"})
# When the request came: the same however often it is decided.
GIVEN = frozenset({"tx.now"})
# hash() and id() differ from process to process; the others are I/O.
BUILTINS = frozenset({"hash", "id", "input", "open", "print"})


def impurities(tree: ast.AST) -> Iterator[str]:
    """Give what a file calls that may differ the next time."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in CLOCK and ast.unparse(node) not in GIVEN:
            yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BUILTINS:
            yield f"line {node.lineno}: {node.func.id}()"


def test_nothing_pure_reads_a_clock_or_does_io() -> None:
    files = [path for path in code_files() if name_of(path).startswith(PURE)]

    assert len(files) > len(PURE)
    assert not [f"{name_of(path)} {each}" for path in files for each in impurities(parse(path))]


@pytest.mark.parametrize(
    "planted",
    ["datetime.now(UTC)", "clock = datetime.datetime.utcnow", "date.today()", "print(row)", "hash(key)", "open('x')"],
)
def test_what_is_impure_is_found(planted: str) -> None:
    assert len(list(impurities(ast.parse(planted)))) == 1


def test_what_is_pure_is_left_alone() -> None:
    assert not list(impurities(ast.parse("def f(self): return self.known_ids[event.id] + self.open.hash")))
    assert not list(impurities(ast.parse("def f(tx): return tx.now")))
