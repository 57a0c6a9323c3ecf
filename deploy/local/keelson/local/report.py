"""What the views say of one organisation, and its audit trail."""

import sys
from collections.abc import Iterable, Mapping, Sequence

from keelson.client import Client
from keelson.client.reads.apps import AppRow
from keelson.client.reads.deploys import DeployRow
from keelson.client.reads.envs import EnvRow
from keelson.client.reads.events import EventItem
from keelson.client.reads.orgs import OrgRow
from keelson.client.reads.principals import PrincipalRow
from keelson.client.reads.releases import ReleaseRow
from keelson.client.reads.routes import RouteRow
from keelson.local.terminal import heading, paragraph, table


async def print_report(client: Client, org_id: str, position: int) -> None:
    """Print views as they are at `position` or later, then every event of the organisation."""
    org = await client.orgs.get(org_id, min_position=position)
    principals = [row async for row in client.principals.list(min_position=position)]
    apps = [row async for row in client.apps.list(org_id=org_id, min_position=position)]
    envs = [row async for row in client.envs.list(org_id=org_id, min_position=position)]
    releases = [row async for row in client.releases.list(org_id=org_id, min_position=position)]
    deploys = [row async for row in client.deploys.list(org_id=org_id, min_position=position)]
    routes = [row async for row in client.routes.list(org_id=org_id, min_position=position)]
    events = [event async for event in client.events.list(org_id=org_id)]
    names = _names([org, *principals, *apps, *envs], releases)
    _print(heading(f"What runs at {org.name}: the view of environments"))
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


def _names(named: Iterable[OrgRow | PrincipalRow | AppRow | EnvRow], releases: Iterable[ReleaseRow]) -> dict[str, str]:
    """Give every id a name that people use."""
    names = {row.id: row.name for row in named}
    return names | {row.id: f"{names[row.app_id]} {row.number}" for row in releases}


def _busiest(envs: Iterable[EnvRow]) -> EnvRow:
    return max(envs, key=lambda env: sum(env.replicas.values()))


def _print_envs(envs: Iterable[EnvRow], names: Mapping[str, str]) -> None:
    rows = [
        (
            names[env.app_id],
            env.name,
            names.get(env.release_id or ""),
            _pairs(env.replicas),
            _pairs(env.variables),
        )
        for env in envs
    ]
    _print(table(("app", "environment", "release", "replicas", "variables"), sorted(rows)))


async def _print_processes(client: Client, env: EnvRow, names: Mapping[str, str], position: int) -> None:
    processes = await client.envs.processes(env.id, min_position=position)
    rows = [
        (
            row.process,
            row.replicas,
            names[row.release_id],
            row.cpu_millis,
            row.memory_bytes // (1024 * 1024),
            " ".join(row.command),
        )
        for row in processes.items
    ]
    _print(f"{names[env.app_id]} {env.name}")
    _print(table(("process", "replicas", "release", "cpu m", "MiB", "command"), rows))


def _print_routes(routes: Iterable[RouteRow], names: Mapping[str, str]) -> None:
    rows = [(row.hostname, f"{names[row.app_id]} {names[row.env_id]}", row.process, row.port) for row in routes]
    _print(table(("hostname", "environment", "process", "port"), sorted(rows)))


def _print_deploys(deploys: Iterable[DeployRow], names: Mapping[str, str]) -> None:
    rows = [
        (
            row.position,
            f"{names[row.app_id]} {names[row.env_id]}",
            names[row.release_id],
            row.kind,
            row.status,
            row.message,
        )
        for row in sorted(deploys, key=lambda row: row.position)
    ]
    _print(table(("at", "environment", "release", "kind", "status", "message"), rows))


def _print_events(events: Sequence[EventItem], names: Mapping[str, str]) -> None:
    rows = []
    command_id = None
    for event in events:
        # The events of one command have one reason; it is said once.
        reason = '"' if event.command_id == command_id else event.reason
        command_id = event.command_id
        time = f"{event.recorded_at:%H:%M:%S}"
        who = names.get(event.actor_id, event.actor_id)
        rows.append((event.position, time, who, event.type, _subject(event, names), reason))
    _print(table(("at", "UTC", "who", "what", "of", "why"), rows))


def _subject(event: EventItem, names: Mapping[str, str]) -> str:
    """Name what an event happened to, as people would."""
    own = names.get(event.aggregate_id)
    if event.aggregate_type == "env":
        return f"{names[event.app_id or '']} {own}"
    if event.aggregate_type in ("deploy", "route"):
        return f"{names[event.app_id or '']} {names[event.env_id or '']}"
    return own or str(event.payload.get("name", event.aggregate_id))


async def _print_lag(client: Client) -> None:
    page = await client.projections.list()
    states = ", ".join(f"{row.name} {row.state} at {row.checkpoint}" for row in page.items)
    _print("")
    _print(paragraph(f"The log ends at {page.head}; projections: {states}."))


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={values[name]}" for name in sorted(values))


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
