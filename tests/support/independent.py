"""The log judged and folded by code that shares nothing with Keelson's: rows of log.events in, verdicts and views out.

It knows the published contract alone (types, payloads, columns), so that a mistake in the product is not made here too.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

Event = Mapping[str, Any]
Rows = dict[tuple[Any, ...], dict[str, Any]]
Views = dict[str, Rows]
# What secrets' versions hold.
Vault = Mapping[tuple[str, int], Mapping[str, str]]

VIEWS = (
    *("orgs", "members", "principals", "credentials", "projects"),
    *("apps", "envs", "env_processes", "releases", "deploys", "routes", "secrets", "nodes", "instances", "activity"),
)
KEYS = {"env_processes": ("env_id", "process"), "activity": ("position",), "credentials": ("credential_id",)}
_COLLECTIONS = {
    "org": "orgs",
    "principal": "principals",
    "project": "projects",
    "app": "apps",
    "env": "envs",
    "release": "releases",
    "deploy": "deploys",
    "route": "routes",
    "node": "nodes",
    "instance": "instances",
    "secret": "secrets",
}
_ANCESTORS = {
    "org": (),
    "principal": ("org_id",),
    "project": ("org_id",),
    "app": ("org_id", "project_id"),
    "env": ("org_id", "project_id", "app_id"),
    "release": ("org_id", "project_id", "app_id"),
    "deploy": ("org_id", "project_id", "app_id", "env_id"),
    "route": ("org_id", "project_id", "app_id", "env_id"),
    "node": (),
    "instance": ("org_id", "project_id", "app_id", "env_id", "node_id"),
    "secret": ("org_id", "project_id", "app_id", "env_id"),
}
_PARENTS = {"org": None, "principal": "org_id", "project": "org_id", "app": "project_id", "env": "app_id"}
# What a row has before any event says otherwise.
_INITIAL: dict[str, dict[str, Any]] = {
    "org": {"quota": {}},
    "principal": {"deleted_at": None},
    "project": {"deleted_at": None},
    "app": {"deleted_at": None},
    "env": {
        "release_id": None,
        "release_number": None,
        "deploy_id": None,
        "replicas": {},
        "variables": {},
        "deleted_at": None,
    },
    "release": {},
    "deploy": {"status": "queued", "message": None},
    "route": {"deleted_at": None},
    "node": {
        **dict.fromkeys(("name", "state", "message", "cpu_millis", "memory_bytes", "address", "deleted_at")),
        "labels": {},
    },
    "instance": {
        "desired_state": "running",
        "status": "booting",
        **dict.fromkeys(("secret_version", "endpoints", "reason_code", "exit_code", "message")),
    },
    "secret": {"version": 0, "keys": [], "digest": "", "deleted_at": None},
}
# What begins an aggregate, where it is not called created.
_BEGINNINGS = ("node.enrollment_created", "instance.allocated")
# What an instance's report says, if it says it; what was said before it is over.
_REPORT = ("status", "endpoints", "reason_code", "exit_code", "message")
_OF_ACTIVITY = (
    "type",
    "aggregate_id",
    "org_id",
    "project_id",
    "app_id",
    "env_id",
    "node_id",
    "actor_type",
    "actor_id",
    "reason",
    "request_id",
    "recorded_at",
)


def faults_of_log(events: Iterable[Event]) -> list[str]:
    """Name every breach of the log's promises in its order: gaps, times that go back, commands torn apart."""
    faults: list[str] = []
    seqs: dict[str, int] = {}
    seen: set[str] = set()
    last: Event | None = None
    for place, event in enumerate(events, start=1):
        if event["position"] != place:
            return [*faults, f"position {place} is missing"]
        expected = seqs.get(event["aggregate_id"], 0) + 1
        if event["seq"] != expected:
            faults.append(f"{event['aggregate_id']}: seq {event['seq']} where {expected} belongs, at {place}")
        seqs[event["aggregate_id"]] = event["seq"]
        if last is not None and event["recorded_at"] < last["recorded_at"]:
            faults.append(f"the time goes back at {place}")
        if last is not None and (last["command_id"] != event["command_id"]) != last["command_end"]:
            faults.append(f"command_end is wrong before {place}")
        if last is None or last["command_id"] != event["command_id"]:
            if event["command_id"] in seen:
                faults.append(f"command {event['command_id']} is torn apart at {place}")
            seen.add(event["command_id"])
        last = event
    if last is not None and not last["command_end"]:
        faults.append("the last command has no end")
    return faults


def faults_of_rules(events: Iterable[Event]) -> list[str]:
    """Name every breach of a rule: names held twice, numbers with gaps, open deploys, lost routes, lost owners."""
    faults: list[str] = []
    names: dict[Any, dict[str, str]] = defaultdict(dict)
    numbers: Counter[str] = Counter()
    opened: dict[str, set[str]] = defaultdict(set)
    events = list(events)
    placed = Placed()
    for event in events:
        aggregate, _, what = event["type"].partition(".")
        payload = json.loads(event["payload"])
        if aggregate in _PARENTS and what in ("created", "renamed", "deleted"):
            scope = (aggregate, event.get(_PARENTS[aggregate] or ""))
            faults += _name(names[scope], event["aggregate_id"], payload.get("name"))
        elif aggregate == "route":
            faults += _name(names[aggregate], event["aggregate_id"], payload.get("hostname"))
        elif aggregate == "release":
            numbers[event["app_id"]] += 1
            if payload["number"] != numbers[event["app_id"]]:
                faults.append(f"{event['aggregate_id']} has number {payload['number']}")
        elif aggregate == "deploy":
            deploys = opened[event["env_id"]]
            deploys.add(event["aggregate_id"])
            if payload.get("status") in ("succeeded", "failed", "superseded"):
                deploys.remove(event["aggregate_id"])
            if len(deploys) > 1:
                faults.append(f"{event['env_id']} has the open deploys {sorted(deploys)}")
        faults += placed.faults_after(event, payload)
    faults += _faults_of_envs(events)
    return faults + _faults_of_members(each for each in events if each["type"].startswith("org."))


def _faults_of_envs(events: Iterable[Event]) -> list[str]:
    """Name what is wrong about environments' routes, whenever a command ends, and about their secrets."""
    routed: dict[str, Routed] = defaultdict(Routed)
    bundles: dict[str, Bundles] = defaultdict(Bundles)
    touched: set[str] = set()
    faults: list[str] = []
    for event in events:
        aggregate = event["type"].partition(".")[0]
        payload = json.loads(event["payload"])
        if aggregate in ("env", "route"):
            routed[event["env_id"]].follow(event, payload)
            touched.add(event["env_id"])
        elif aggregate == "secret":
            faults += bundles[event["env_id"]].faults_after(event, payload)
        if event["command_end"]:
            faults += [fault for env_id in sorted(touched) for fault in routed[env_id].faults_at(event["position"])]
            touched.clear()
    return faults


def _faults_of_members(events: Iterable[Event]) -> list[str]:
    members: dict[str, Members] = defaultdict(Members)
    return [fault for event in events for fault in members[event["org_id"]].faults_after(event)]


class Members:
    """An organisation: its members, each with the person and the role."""

    def __init__(self) -> None:
        self._members: dict[str, tuple[str, str]] = {}
        self._had_owner = False

    def faults_after(self, event: Event) -> list[str]:
        """Follow an event of the organisation; name whoever is in it twice, and say if it has lost its last owner."""
        payload = json.loads(event["payload"])
        own = payload.get("member_id", "")
        match event["type"].partition(".")[2]:
            case "member_added":
                self._members[own] = (payload["person_id"], payload["role"])
            case "member_role_changed":
                self._members[own] = (self._members[own][0], payload["role"])
            case "member_removed":
                del self._members[own]
            case "credential_issued" if own not in self._members:
                return [f"{own} has a credential and is no member, at {event['position']}"]
        people = Counter(person_id for person_id, _ in self._members.values())
        has_owner = any(role == "owner" for _, role in self._members.values())
        self._had_owner = self._had_owner or has_owner
        faults = [f"{person} is in {event['org_id']} twice" for person, times in people.items() if times > 1]
        lost = self._had_owner and not has_owner
        return faults + ([f"{event['org_id']} has lost its last owner at {event['position']}"] if lost else [])


class Bundles:
    """The secrets of an environment: one at a time, its versions without gaps."""

    def __init__(self) -> None:
        self._live: str | None = None
        self._version = 0

    def faults_after(self, event: Event, payload: dict[str, Any]) -> list[str]:
        """Follow an event of a secret; name what is wrong about it."""
        expected = None if event["type"] == "secret.created" else event["aggregate_id"]
        faults = [f"{event['aggregate_id']} {event['type']} beside {self._live}"] if self._live != expected else []
        match event["type"]:
            case "secret.created":
                self._live, self._version = event["aggregate_id"], 0
            case "secret.deleted":
                self._live = None
            case "secret.version_set":
                self._version += 1
                faults += [f"{self._live} has version {payload['version']}"] * (payload["version"] != self._version)
        return faults


class Routed:
    """An environment: the ports that its release has, and where its routes lead."""

    def __init__(self) -> None:
        self._ports: set[tuple[str, str]] = set()
        self._routes: dict[str, tuple[str, str]] = {}

    def follow(self, event: Event, payload: dict[str, Any]) -> None:
        """Follow an event of the environment, or of one of its routes."""
        match event["type"]:
            case "route.created" | "route.updated":
                self._routes[event["aggregate_id"]] = (payload["process"], payload["port"])
            case "route.deleted":
                del self._routes[event["aggregate_id"]]
            case "env.release_set":
                processes = payload["processes"].items()
                self._ports = {(name, port["name"]) for name, process in processes for port in process["ports"]}
            case "env.deleted":
                self._ports = set()

    def faults_at(self, position: int) -> list[str]:
        """Name every route that leads nowhere when a command has ended."""
        lost = [route_id for route_id, place in self._routes.items() if place not in self._ports]
        return [f"{route_id} leads nowhere after {position}" for route_id in lost]


def desired_at(events: Iterable[Event], env_id: str, position: int, vault: Vault) -> dict[str, Any] | None:
    """Give what an environment should be by the commands that were complete at a position; None if it was not there.

    One flat map, so that two of them differ in what any name has another value; an empty secret is as good as none.
    """
    past = [event for event in events if event["position"] <= position]
    while past and not past[-1]["command_end"]:
        past.pop()
    own = [event for event in past if event["env_id"] == env_id]
    desired: dict[str, Any] = {}
    routes: dict[str, str] = {}
    for event in own:
        _desire(desired, routes, event, vault)
    there = any(event["type"] == "env.created" for event in own)
    return {name: value for name, value in desired.items() if value != {}} if there else None


def _desire(desired: dict[str, Any], routes: dict[str, str], event: Event, vault: Vault) -> None:
    """Follow an event; `routes` are the names that routes have in the map."""
    payload = json.loads(event["payload"])
    match event["type"]:
        case "env.release_set":
            desired["release"] = {name: payload[name] for name in ("release_id", "release_number")}
            replicas = {name: process["replicas"] for name, process in payload["processes"].items()}
            _exchange(desired, "replicas/", replicas)
        case "env.scaled":
            _exchange(desired, "replicas/", payload["replicas"])
        case "env.config_set":
            _exchange(desired, "variables/", payload["variables"])
        case "route.created" | "route.updated":
            desired.pop(routes.get(event["aggregate_id"], ""), None)
            routes[event["aggregate_id"]] = f"routes/{payload['hostname']}"
            desired[routes[event["aggregate_id"]]] = {name: payload[name] for name in ("process", "port")}
        case "route.deleted":
            desired.pop(routes.pop(event["aggregate_id"]))
        case "secret.version_set":
            _exchange(desired, "secret", {"": vault[event["aggregate_id"], payload["version"]]})
        case "secret.deleted":
            _exchange(desired, "secret", {})


def _exchange(desired: dict[str, Any], prefix: str, values: Mapping[str, Any]) -> None:
    for name in [name for name in desired if name.startswith(prefix)]:
        del desired[name]
    desired |= {prefix + name: value for name, value in values.items()}


class Placed:
    """The nodes, and what is placed on them."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._states: dict[str, str] = {}
        self._memory: dict[str, int] = {}
        # Instances that have not stopped: their node, their environment, their memory.
        self._live: dict[str, tuple[str, str, int]] = {}

    def faults_after(self, event: Event, payload: dict[str, Any]) -> list[str]:
        """Follow an event of an environment, a node or an instance; name every breach of a rule of placement."""
        own, faults = event["aggregate_id"], list[str]()
        match event["type"]:
            case "node.enrolled":
                if own in self._states:
                    faults.append(f"{own} has enrolled twice")
                self._states[own], self._memory[own] = "active", payload["memory_bytes"]
                faults += _name(self._names, own, payload["name"])
            case "node.state_changed":
                self._states[own] = payload["state"]
            case "node.capacity_set":
                self._memory[own] = payload["memory_bytes"]
            case "node.removed" | "env.deleted":
                faults += _name(self._names, own, None)
                faults += [f"{own} is gone under {each}" for each, place in self._live.items() if own in place[:2]]
            case "instance.allocated":
                node = event["node_id"]
                if self._states.get(node) != "active":
                    faults.append(f"{own} is placed on {node}, which is not active")
                self._live[own] = (node, event["env_id"], payload["spec"]["memory_bytes"])
            case "instance.status_changed" if payload["status"] == "stopped":
                del self._live[own]
        held: Counter[str] = Counter()
        for node, _, memory_bytes in self._live.values():
            held[node] += memory_bytes
        return [
            *faults,
            *(f"{node} has promised {held[node]} bytes" for node in held if held[node] > self._memory[node]),
        ]


def _name(held: dict[str, str], own: str, name: str | None) -> list[str]:
    """Give an aggregate a name, or none, in place of the one it had; name the other one that has it."""
    for each in [each for each, holder in held.items() if holder == own]:
        del held[each]
    if name is not None and held.setdefault(name, own) != own:
        return [f"{own} has the name {name} of {held[name]}"]
    return []


def fold_views(events: Iterable[Event]) -> Views:
    """Give the views that a log should have, each a map from key to row."""
    views: Views = {name: {} for name in VIEWS}
    for event in events:
        aggregate = event["type"].partition(".")[0]
        payload = json.loads(event["payload"])
        if aggregate in _COLLECTIONS:
            _apply(views, aggregate, event, payload)
        views["activity"][event["position"],] = {
            **{name: event[name] for name in _OF_ACTIVITY},
            "aggregate_type": aggregate,
            **_stamps(event, event["recorded_at"]),
        }
    return views


def _stamps(event: Event, created_at: Any) -> dict[str, Any]:
    return {
        "resource_version": event["seq"],
        "position": event["position"],
        "created_at": created_at,
        "updated_at": event["recorded_at"],
    }


def _apply(  # noqa: C901 - a case for each kind of event that says more than its payload
    views: Views, aggregate: str, event: Event, payload: dict[str, Any]
) -> None:
    rows = views[_COLLECTIONS[aggregate]]
    key = (event["aggregate_id"],)
    if event["type"].endswith(".created") or event["type"] in _BEGINNINGS:
        ancestors = {name: event[name] for name in _ANCESTORS[aggregate]}
        rows[key] = {"id": event["aggregate_id"], **ancestors, **_INITIAL[aggregate], "created_at": None}
    row = rows[key]
    row |= _stamps(event, row["created_at"] or event["recorded_at"])
    if aggregate in ("node", "instance"):
        _place(row, event, payload)
        return
    match event["type"].partition(".")[2]:
        case "deleted":
            row["deleted_at"] = event["recorded_at"]
            _drop_processes(views, event["aggregate_id"])
        case "member_added" | "member_role_changed" | "member_removed" | "member_erased":
            _apply_member(views["members"], event, payload)
        case "credential_issued" | "credential_revoked":
            _apply_credential(views["credentials"], event, payload)
        case "release_set":
            processes = payload.pop("processes")
            row |= payload
            row["replicas"] = {name: process["replicas"] for name, process in processes.items()}
            _drop_processes(views, event["aggregate_id"])
            for name, process in processes.items():
                views["env_processes"][event["aggregate_id"], name] = {
                    "env_id": event["aggregate_id"],
                    "process": name,
                    **{name: event[name] for name in ("org_id", "project_id", "app_id")},
                    **{name: payload[name] for name in ("release_id", "release_number")},
                    **process,
                    **_stamps(event, event["recorded_at"]),
                }
        case "scaled":
            row["replicas"] = payload["replicas"]
            for name, replicas in payload["replicas"].items():
                process = views["env_processes"][event["aggregate_id"], name]
                process |= {"replicas": replicas, **_stamps(event, process["created_at"])}
        case "revealed":
            pass
        case _:
            row |= payload


def _place(row: dict[str, Any], event: Event, payload: dict[str, Any]) -> None:
    """Say what an event says of a node or an instance."""
    match event["type"]:
        case "node.removed":
            row["deleted_at"] = event["recorded_at"]
        case "node.enrolled":
            row |= payload | {"state": "active", "expires_at": None}
        case "node.state_changed":
            row |= {"message": None} | payload
        case "instance.allocated" | "instance.desired_state_changed":
            row |= payload | {"desired_position": event["position"]}
        case "instance.status_changed":
            row |= dict.fromkeys(_REPORT) | payload
            if payload["status"] == "stopped":
                row["desired_position"] = event["position"]
        case _:
            row |= payload


def _apply_member(rows: Rows, event: Event, payload: dict[str, Any]) -> None:
    stamps = _stamps(event, event["recorded_at"])
    match event["type"].partition(".")[2]:
        case "member_added":
            told = {name: payload[name] for name in ("person_id", "role")}
            member = {"id": payload["member_id"], "org_id": event["org_id"], "erased": False, "deleted_at": None}
            rows[payload["member_id"],] = member | told | stamps
        case "member_role_changed":
            _change(rows, payload["member_id"], event, role=payload["role"])
        case "member_removed":
            _change(rows, payload["member_id"], event, deleted_at=event["recorded_at"])
        case "member_erased":
            _change(rows, payload["member_id"], event, erased=True)


def _apply_credential(rows: Rows, event: Event, payload: dict[str, Any]) -> None:
    if event["type"].endswith("_revoked"):
        _change(rows, payload["credential_id"], event, revoked_at=event["recorded_at"])
    else:
        rows[payload["credential_id"],] = {
            "credential_id": payload["credential_id"],
            "holder_id": payload.get("member_id", event["aggregate_id"]),
            "org_id": event["org_id"],
            "issued_at": event["recorded_at"],
            "expires_at": payload.get("expires_at"),
            "revoked_at": None,
            **_stamps(event, event["recorded_at"]),
        }


def _change(rows: Rows, key: str, event: Event, **fields: Any) -> None:
    row = rows[key,]
    row |= fields | _stamps(event, row["created_at"])


def _drop_processes(views: Views, env_id: str) -> None:
    for key in [key for key in views["env_processes"] if key[0] == env_id]:
        del views["env_processes"][key]


def faults_of_views(expected: Views, found: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[str]:
    """Name every difference between the views that should be and the rows that are, value by value."""
    faults = []
    for view, rows in expected.items():
        key_columns = KEYS.get(view, ("id",))
        table = {tuple(row[name] for name in key_columns): dict(row) for row in found[view]}
        faults += [f"{view} {key} is missing" for key in rows.keys() - table.keys()]
        faults += [f"{view} {key} should not be" for key in table.keys() - rows.keys()]
        for key in rows.keys() & table.keys():
            faults += _differences(f"{view} {key}", rows[key], table[key])
    return faults


def _differences(place: str, expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    # The one column that is words: what they say is not part of the contract, that they are there is.
    if "summary" in found and found.pop("summary"):
        expected = {name: value for name, value in expected.items() if name != "summary"}
    faults = [f"{place}: columns {sorted(expected.keys() ^ found.keys())}"] if expected.keys() != found.keys() else []
    for name in expected.keys() & found.keys():
        value = found[name]
        if isinstance(expected[name], dict | list) and isinstance(value, str):
            value = json.loads(value)
        if name == "expires_at":
            value, expected[name] = _time(value), _time(expected[name])
        if value != expected[name]:
            faults.append(f"{place}: {name} is {value!r}, not {expected[name]!r}")
    return faults


def _time(value: str | datetime | None) -> datetime | None:
    """Give the time that a payload or a row of JSON says in one of the ways to write it."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value
