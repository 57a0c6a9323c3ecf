"""Time-outs are counted by the monotonic clock (F11): the wall clock may jump, so no code of ours reads it to wait."""

import ast
from collections.abc import Iterator

import pytest

from support.repository import code_files, name_of, parse

# The age of idempotency keys is of the calendar: the database holds what is too young (KE005). So is when a request was
# received, and when a credential is looked up: what expires does so at a time that people name.
MAY_READ_THE_WALL_CLOCK = {
    "libs/service/keelson/service/credentials.py",
    "services/cli/keelson/cli/__main__.py",
    "services/command/keelson/command/requests.py",
}

# Of `time`, and of `datetime` and `date`; the loop's time() is monotonic.
WALL_CLOCKS = {"time": {"time", "time_ns"}, "datetime": {"now", "utcnow", "today"}, "date": {"today"}}


def wall_clocks(tree: ast.AST) -> Iterator[str]:
    """Give where a file reads the wall clock, or takes it by name to read it later."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value).rpartition(".")[2]
            if node.attr in WALL_CLOCKS.get(owner, ()):
                yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (f"line {node.lineno}: {each.name}" for each in node.names if each.name in WALL_CLOCKS["time"])


def test_f11_nothing_waits_by_the_wall_clock() -> None:
    found = {name_of(path): [*wall_clocks(parse(path))] for path in code_files()}

    assert {name for name, places in found.items() if places} == MAY_READ_THE_WALL_CLOCK


@pytest.mark.parametrize(
    "planted",
    ["time.time()", "time.time_ns()", "datetime.now(UTC)", "clock = datetime.datetime.utcnow", "from time import time"],
)
def test_the_wall_clock_is_found(planted: str) -> None:
    assert list(wall_clocks(ast.parse(planted)))


@pytest.mark.parametrize("harmless", ["time.monotonic()", "loop.time()", "from time import monotonic", "now()"])
def test_other_clocks_are_left_alone(harmless: str) -> None:
    assert not list(wall_clocks(ast.parse(harmless)))
