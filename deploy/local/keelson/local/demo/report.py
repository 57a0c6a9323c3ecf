"""What the views say of one organisation, and its audit trail."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from keelson.client import Client
from keelson.client.reads.deploys import DeployRow
from keelson.client.reads.envs import EnvRow
from keelson.client.reads.events import EventItem
from keelson.client.reads.instances import InstanceRow
from keelson.client.reads.members import Member
from keelson.client.reads.principals import PrincipalRow
from keelson.client.reads.releases import ReleaseRow
from keelson.client.reads.routes import RouteRow
from keelson.local.demo.terminal import heading, paragraph, say, table


class _Rows(NamedTuple):
    """What the views have of it."""

    envs: list[EnvRow]
    deploys: list[DeployRow]
    routes: list[RouteRow]
    instances: list[InstanceRow]
    names: dict[str, str]


async def print_report(client: Client, org_id: str, position: int) -> None:
    """Print views as they are at `position` or later, then every event of the organisation."""
    org = await client.orgs.get(org_id, min_position=position)
    rows = await _read(client, org_id, position)
    events = [event async for event in client.events.list(org_id=org_id)]
    say(heading(f"What runs at {org.name}: the view of environments"))
    _print_envs(rows.envs, rows.names)
    say(heading("What should run in the busiest, by /v1/envs/{id}/processes"))
    await _print_processes(client, _busiest(rows.envs), rows.names, position)
    say(heading("What runs, and how its environment is, by /v1/envs/{id}/status"))
    await _print_instances(client, rows, position)
    say(heading("Routes"))
    _print_routes(rows.routes, rows.names)
    say(heading("Deploys"))
    _print_deploys(rows.deploys, rows.names)
    say(heading("The audit trail: who, what, when and why"))
    _print_events(events, {**rows.names, org_id: org.name})
    await _print_lag(client)


async def _read(client: Client, org_id: str, position: int) -> _Rows:
    apps = [row async for row in client.apps.list(org_id=org_id, min_position=position)]
    projects = [row async for row in client.projects.list(org_id=org_id, min_position=position)]
    envs = [row async for row in client.envs.list(org_id=org_id, min_position=position)]
    releases = [row async for row in client.releases.list(org_id=org_id, min_position=position)]
    members = [row async for row in client.members.list(org_id=org_id, min_position=position)]
    principals = [row async for row in client.principals.list(min_position=position)]
    nodes = [row async for row in client.nodes.list(min_position=position)]
    instances = client.instances.list(org_id=org_id, min_position=position)
    return _Rows(
        envs=envs,
        deploys=[row async for row in client.deploys.list(org_id=org_id, min_position=position)],
        routes=[row async for row in client.routes.list(org_id=org_id, min_position=position)],
        instances=[row async for row in instances if row.status != "stopped"],
        names={row.id: row.name for row in projects}
        | {row.id: row.name for row in apps}
        | {row.id: row.name for row in envs}
        | {row.id: row.name or row.id for row in nodes}
        | _release_names(releases, {row.id: row.name for row in apps})
        | _actor_names(members, principals),
    )


def _release_names(releases: Iterable[ReleaseRow], apps: Mapping[str, str]) -> dict[str, str]:
    return {row.id: f"{apps[row.app_id]} {row.number}" for row in releases}


def _actor_names(members: Iterable[Member], principals: Iterable[PrincipalRow]) -> dict[str, str]:
    """Give members as they are called, and the platform's principals by what they are: operators, the scheduler."""
    people = {row.id: row.name or (row.email or row.id).partition("@")[0] for row in members}
    return people | {row.id: row.name if row.org_id else row.name.partition("-")[0] for row in principals}


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
    say(table(("app", "environment", "release", "replicas", "variables"), sorted(rows)))


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
    say(f"{names[env.app_id]} {env.name}")
    say(table(("process", "replicas", "release", "cpu m", "MiB", "command"), rows))


async def _print_instances(client: Client, rows: _Rows, position: int) -> None:
    """Print each instance, and of each environment that has any how much of what it should have is ready."""
    cells = [
        (
            f"{rows.names[row.app_id]} {rows.names[row.env_id]}",
            row.process,
            rows.names[row.node_id],
            row.status,
            ", ".join(f"{name} at {each.host}:{each.port}" for name, each in sorted((row.endpoints or {}).items())),
        )
        for row in rows.instances
    ]
    say(table(("environment", "process", "node", "status", "endpoints"), cells))
    for env in (env for env in rows.envs if env.id in {row.env_id for row in rows.instances}):
        status = await client.envs.status(env.id, min_position=position)
        ready = ", ".join(f"{each.process} {each.ready} of {each.desired} ready" for each in status.processes)
        say(f"{rows.names[env.app_id]} {env.name} is {status.status}: {ready}")


def _print_routes(routes: Iterable[RouteRow], names: Mapping[str, str]) -> None:
    rows = [(row.hostname, f"{names[row.app_id]} {names[row.env_id]}", row.process, row.port) for row in routes]
    say(table(("hostname", "environment", "process", "port"), sorted(rows)))


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
    say(table(("at", "environment", "release", "kind", "status", "message"), rows))


def _print_events(events: Sequence[EventItem], names: Mapping[str, str]) -> None:
    """Print each event, and of those of instances, which are many, by whom and how many there are."""
    rows = []
    command_id = None
    for event in (event for event in events if event.aggregate_type != "instance"):
        # The events of one command have one reason; it is said once.
        reason = '"' if event.command_id == command_id else event.reason
        command_id = event.command_id
        time = f"{event.recorded_at:%H:%M:%S}"
        who = names.get(event.actor_id, event.actor_id)
        rows.append((event.position, time, who, event.type, _subject(event, names), reason))
    say(table(("at", "UTC", "who", "what", "of", "why"), rows))
    by = Counter(names.get(event.actor_id, event.actor_id) for event in events if event.aggregate_type == "instance")
    counts = ", ".join(f"{count} by {name}" for name, count in sorted(by.items()))
    say("", paragraph(f"And {by.total()} events of instances, by which what was declared came to run: {counts}."))


def _subject(event: EventItem, names: Mapping[str, str]) -> str:
    """Name what an event happened to, as people would; what is of an environment by the environment."""
    if event.env_id is not None:
        return f"{names[event.app_id or '']} {names[event.env_id]}"
    return names.get(event.aggregate_id) or str(event.payload.get("name", event.aggregate_id))


async def _print_lag(client: Client) -> None:
    page = await client.projections.list()
    states = ", ".join(f"{row.name} {row.state} at {row.checkpoint}" for row in page.items)
    say("", paragraph(f"The log ends at {page.head}; projections: {states}."))


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={values[name]}" for name in sorted(values))
