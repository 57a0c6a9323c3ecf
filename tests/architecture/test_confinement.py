"""Reads are confined in one place (ADR 9, ADR 10): nothing of the query service reads beside it."""

import ast
from collections.abc import Callable

from support.repository import code_files, name_of, parse

QUERY = "services/query/keelson/query/"

# Where statements are run, and why that is not beside the one place.
RUN_SQL = {
    "reads.py": "views, by statements that the reach confines",
    "people.py": "the vault, of rows that were within reach",
    "heartbeats.py": "heartbeats, of rows that were within reach",
    "credential_routes.py": "last uses, of rows that were within reach",
    "readiness.py": "whether the views are there, and nothing of them",
}
# Where the log is read.
READ_THE_LOG = {
    "audit.py": "filtered by the reach",
    "history.py": "of an aggregate within reach",
    "freshness.py": "its head alone",
    "lineages.py": "where epochs began, for entity tags",
    "desired/watching.py": "its head alone, and which events may have changed a view; rows are read within the reach",
    "feed/events.py": "filtered by the reach",
    "feed/follower.py": "all of it, for the ring: of that, streams tell what their filters let through",
    "feed/endpoint.py": "its types alone; makes the filters of streams, within the reach",
    "feed/hub.py": "its types alone",
    "feed/interests.py": "its types alone",
    "feed/source.py": "its types alone",
    "log_routes.py": "its types alone",
    "app.py": "the name of its channel alone",
}


def test_statements_are_run_where_it_is_known_to_be_confined() -> None:
    assert _modules_with(_runs_sql) <= RUN_SQL.keys()
    assert "reads.py" in _modules_with(_runs_sql)


def test_the_log_is_read_where_it_is_known_to_be_confined() -> None:
    assert _modules_with(_reads_the_log) <= READ_THE_LOG.keys()
    assert "audit.py" in _modules_with(_reads_the_log)


def _modules_with(finds: Callable[[ast.AST], bool]) -> set[str]:
    return {
        name_of(path).removeprefix(QUERY)
        for path in code_files()
        if name_of(path).startswith(QUERY) and any(finds(node) for node in ast.walk(parse(path)))
    }


def _runs_sql(node: ast.AST) -> bool:
    runs = {"fetch", "fetchrow", "fetchval", "execute", "executemany", "cursor", "copy_from_query"}
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in runs


def _reads_the_log(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module in ("keelson.log.read", "keelson.log.tail")
