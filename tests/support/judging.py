"""A load is over: was everything promised kept? Judged by code that shares nothing with Keelson's."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from keelson.log.database import Connection, connect
from support.database import Database
from support.independent import VIEWS, Event, faults_of_log, faults_of_rules, faults_of_views, fold_views
from support.independent_claims import faults_of_claims, faults_of_quotas
from support.load import Load
from support.waiting import eventually


def judge(load: Load, events: list[Event], views: dict[str, list[Event]], *, after: int = 0) -> None:
    """Fail with whatever is wrong; up to the position `after`, others than the load wrote to the log."""
    assert not load.faults
    assert not faults_of_log(events)
    assert not faults_of_rules(events)
    assert not faults_of_quotas(events)
    assert not faults_of_promises(load, [event for event in events if event["position"] > after])
    assert not faults_of_views(fold_views(events), views)


def faults_of_promises(load: Load, events: list[Event]) -> list[str]:
    """Name every acknowledged command that is not in the log exactly once as it was answered, and every stray one."""
    by_request: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_request[event["request_id"]].append(event)
    faults = []
    for key, answered in load.answered.items():
        found = by_request.pop(key, [])
        promised = _events_of(answered.content) if answered.status == 200 else []
        if [_reference(event) for event in found] != promised:
            faults.append(f"{key} was promised {promised}, the log has {[_reference(event) for event in found]}")
        if len({event["command_id"] for event in found}) > 1:
            faults.append(f"{key} was done twice")
    by_request.pop("migration", None)
    faults += [f"{key} was never answered, but is in the log" for key in by_request]
    return faults


def _events_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    results = content.get("results", [content])
    return [event for result in results for event in result["events"]]


def _reference(event: Event) -> dict[str, Any]:
    return {name: event[name] for name in ("position", "type", "version", "aggregate_id", "seq")}


async def read_when_caught_up(database: Database) -> tuple[list[Event], dict[str, list[Event]]]:
    """Give the log and the views once every checkpoint is at the head."""
    connection = await connect(database.admin_dsn, application_name="keelson-tests")
    try:

        async def caught_up() -> bool:
            row = await connection.fetchrow(
                "SELECT min(c.position) = h.position AND count(*) = 3 AS done "
                "FROM ops.checkpoints AS c, log.head AS h GROUP BY h.position"
            )
            return bool(row and row["done"])

        await eventually(caught_up, 60)
        events: list[Event] = [
            dict(row) for row in await connection.fetch("SELECT * FROM log.events ORDER BY position")
        ]
        views = {name: await read_view(connection, name) for name in VIEWS}
    finally:
        await connection.close()
    return events, views


async def require_claims(database: Database, events: list[Event]) -> None:
    """Fail unless the claims are as the log says; nobody may write meanwhile."""
    connection = await connect(database.admin_dsn, application_name="keelson-tests")
    try:
        claims = [dict(row) for row in await connection.fetch("SELECT * FROM log.claims")]
        scopes = [dict(row) for row in await connection.fetch("SELECT * FROM log.claim_scopes")]
    finally:
        await connection.close()
    assert not faults_of_claims(events, claims, scopes)


async def keep_log(database: Database, file: Path) -> None:
    """Write the log of a run that failed where it can be looked at."""
    connection = await connect(database.admin_dsn, application_name="keelson-tests")
    try:
        rows = await connection.fetch("SELECT * FROM log.events ORDER BY position")
    finally:
        await connection.close()
    file.write_text(  # noqa: ASYNC240 - a failed run has time
        json.dumps([dict(row) for row in rows], default=str, indent=1)
    )


async def read_view(connection: Connection, name: str) -> list[Event]:
    """Give all rows of a view."""
    return [dict(row) for row in await connection.fetch(f"SELECT * FROM views.{name}")]  # noqa: S608 - a name of ours
