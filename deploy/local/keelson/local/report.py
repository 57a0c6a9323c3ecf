"""What the views say of one organisation, and its audit trail."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from keelson.client import Client
from keelson.local.terminal import heading, paragraph, table

Row = Mapping[str, Any]


async def print_report(client: Client, org_id: str, position: int) -> None:
    """Print views as they are at `position` or later, then every event of the organisation."""
    org = await client.read("orgs", org_id, min_position=position)
    principals = [row async for row in client.list("principals", min_position=position)]
    apps, envs, releases, deploys, routes = [
        [row async for row in client.list(collection, org_id=org_id, min_position=position)]
        for collection in ("apps", "envs", "releases", "deploys", "routes")
    ]
    events = [event async for event in client.events(org_id=org_id)]
    names = _names([org, *principals, *apps, *envs], releases)
    _print(heading(f"What runs at {org['name']}: the view of environments"))
    _print_envs(envs, names)
    _print(heading("The busiest environment's processes, by /v1/envs/{id}/processes"))
    await _print_processes(client, _busiest(envs), names, position)
    _print(heading("Routes"))
    _print_routes(routes, names)
    _print(heading("Deploys"))
    _print_deploys(deploys, names)
    _print(heading("The audit trail: every event, who, what, when and why"))
    _print_events(events, names)
    await _print_lag(client)


def _names(named: Iterable[Row], releases: Iterable[Row]) -> dict[str, str]:
    """Give every id a name that people use."""
    names = {row["id"]: row["name"] for row in named}
    return names | {row["id"]: f"{names[row['app_id']]} {row['number']}" for row in releases}


def _busiest(envs: Iterable[Row]) -> Row:
    return max(envs, key=lambda env: sum(env["replicas"].values()))


def _print_envs(envs: Iterable[Row], names: Mapping[str, str]) -> None:
    rows = [
        (
            names[env["app_id"]],
            env["name"],
            names.get(env["release_id"]),
            _pairs(env["replicas"]),
            _pairs(env["variables"]),
        )
        for env in envs
    ]
    _print(table(("app", "environment", "release", "replicas", "variables"), sorted(rows)))


async def _print_processes(client: Client, env: Row, names: Mapping[str, str], position: int) -> None:
    path = f"/v1/envs/{env['id']}/processes"
    processes = (await client.get(path, min_position=position)).body["items"]
    rows = [
        (
            row["process"],
            row["replicas"],
            names[row["release_id"]],
            row["cpu_millis"],
            row["memory_bytes"] // (1024 * 1024),
            " ".join(row["command"]),
        )
        for row in processes
    ]
    _print(f"{names[env['app_id']]} {env['name']}")
    _print(table(("process", "replicas", "release", "cpu m", "MiB", "command"), rows))


def _print_routes(routes: Iterable[Row], names: Mapping[str, str]) -> None:
    rows = [
        (row["hostname"], f"{names[row['app_id']]} {names[row['env_id']]}", row["process"], row["port"])
        for row in routes
    ]
    _print(table(("hostname", "environment", "process", "port"), sorted(rows)))


def _print_deploys(deploys: Iterable[Row], names: Mapping[str, str]) -> None:
    rows = [
        (
            row["position"],
            f"{names[row['app_id']]} {names[row['env_id']]}",
            names[row["release_id"]],
            row["kind"],
            row["status"],
            row["message"],
        )
        for row in sorted(deploys, key=lambda row: int(row["position"]))
    ]
    _print(table(("at", "environment", "release", "kind", "status", "message"), rows))


def _print_events(events: Iterable[Row], names: Mapping[str, str]) -> None:
    rows = []
    command_id = None
    for event in events:
        # The events of one command have one reason; it is said once.
        reason = '"' if event["command_id"] == command_id else event.get("reason")
        command_id = event["command_id"]
        time = event["recorded_at"][11:19]
        who = names.get(event["actor_id"], event["actor_id"])
        rows.append((event["position"], time, who, event["type"], _subject(event, names), reason))
    _print(table(("at", "UTC", "who", "what", "of", "why"), rows))


def _subject(event: Row, names: Mapping[str, str]) -> str:
    """Name what an event happened to, as people would."""
    own = names.get(event["aggregate_id"])
    if event["aggregate_type"] == "env":
        return f"{names[event['app_id']]} {own}"
    if event["aggregate_type"] in ("deploy", "route"):
        return f"{names[event['app_id']]} {names[event['env_id']]}"
    return own or str(event["payload"].get("name", event["aggregate_id"]))


async def _print_lag(client: Client) -> None:
    body = (await client.get("/v1/projections")).body
    states = ", ".join(f"{row['name']} {row['state']} at {row['checkpoint']}" for row in body["items"])
    _print("")
    _print(paragraph(f"The log ends at {body['head']}; projections: {states}."))


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={values[name]}" for name in sorted(values))


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
