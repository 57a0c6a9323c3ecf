"""Claims and quotas judged by code that shares nothing with Keelson's: rows of log.events in, verdicts out.

It knows the published contract alone: which event takes what, and how much an organisation may have.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

Event = Mapping[str, Any]
# Who holds a key of a scope, and for how much.
Held = dict[str, dict[str, tuple[str, int]]]

# The scopes of an organisation that a quota is held against: by the number of their keys, or by the sum of amounts.
COUNTED = {"projects": "project.name", "apps": "app.of", "envs": "env.of"}
SUMMED = {"instances": "env.instances", "memory_bytes": "env.memory_bytes"}

_PARENT_OF_NAME = {"project": "org_id", "app": "project_id", "env": "app_id"}


def fold_claims(events: Iterable[Event]) -> Held:
    """Give the claims that a log should leave behind."""
    held: Held = defaultdict(dict)
    for event in events:
        follow(held, event)
    return held


def follow(held: Held, event: Event) -> None:
    """Let an event take and free what it does."""
    payload = json.loads(event["payload"])
    kind, _, what = event["type"].partition(".")
    own = event["aggregate_id"]
    for scope, key, amount in _taken(kind, what, event, payload):
        _free(held[scope], own)
        if key is not None:
            held[scope][key] = (own, amount)


def _free(claims: dict[str, tuple[str, int]], own: str) -> None:
    for key in [key for key, (holder, _) in claims.items() if holder == own]:
        del claims[key]


def _taken(kind: str, what: str, event: Event, payload: Any) -> Iterable[tuple[str, str | None, int]]:
    """Give the scopes in which an event changes what its aggregate holds: the one key that it has then, or None."""
    org, env, own = event["org_id"], event["env_id"], event["aggregate_id"]
    gone = what in ("deleted", "removed")
    if kind == "org" and what in ("created", "renamed"):
        yield "org.name", payload["name"], 0
    if kind in _PARENT_OF_NAME and what in ("created", "renamed", "deleted"):
        yield f"{kind}.name:{event[_PARENT_OF_NAME[kind]]}", payload.get("name"), 0
    if kind in ("app", "env") and (what == "created" or gone):
        yield f"{kind}.of:{org}", None if gone else own, 0
    if kind == "release":
        yield f"release.number:{event['app_id']}", str(payload["number"]), 0
    if kind == "route":
        yield "route.hostname", payload.get("hostname"), 0
        yield f"route.hostname:{env}", payload.get("hostname"), 0
    if kind == "principal" and (what == "created" or gone):
        yield f"principal.name:{org or 'platform'}", payload.get("name"), 0
    if kind == "secret" and (what == "created" or gone):
        yield f"secret.of:{env}", None if gone else "secret", 0
    if kind == "env":
        yield from _wanted(what, org, own, payload)
    yield from _placed(kind, what, event, payload)


def _wanted(what: str, org: str, own: str, payload: Any) -> Iterable[tuple[str, str | None, int]]:
    instances, memory = f"env.instances:{org}", f"env.memory_bytes:{org}"
    if what == "release_set":
        processes = payload["processes"].values()
        yield instances, own, sum(process["replicas"] for process in processes)
        yield memory, own, sum(process["replicas"] * process["memory_bytes"] for process in processes)
    if what == "scaled":
        yield instances, own, sum(payload["replicas"].values())
        if payload.get("memory_bytes") is not None:
            yield memory, own, payload["memory_bytes"]
    if what == "deleted":
        yield instances, None, 0
        yield memory, None, 0


def _placed(kind: str, what: str, event: Event, payload: Any) -> Iterable[tuple[str, str | None, int]]:
    env, node, own = event["env_id"], event["node_id"], event["aggregate_id"]
    if kind == "node" and what in ("enrolled", "removed"):
        yield "node.name", payload.get("name"), 0
    if kind == "instance" and (what == "allocated" or payload.get("status") == "stopped"):
        lives = what == "allocated"
        yield f"node.memory_bytes:{node}", own if lives else None, payload["spec"]["memory_bytes"] if lives else 0
        yield f"instance.of:{env}", own if lives else None, 0


def faults_of_claims(events: Iterable[Event], claims: Iterable[Event], scopes: Iterable[Event]) -> list[str]:
    """Name every row of log.claims and log.claim_scopes that is not as the log says."""
    held = fold_claims(events)
    expected = {(scope, key): claim for scope, keys in held.items() for key, claim in keys.items()}
    found = {(row["scope"], row["key"]): (row["aggregate_id"], row["amount"]) for row in claims}
    faults = [
        f"the claim {place} is {found.get(place)}, not {expected.get(place)}"
        for place in sorted(expected.keys() | found.keys())
        if expected.get(place) != found.get(place)
    ]
    sums = {row["scope"]: (row["held"], row["amount"]) for row in scopes}
    for scope in sorted(held.keys() | sums.keys()):
        total = (len(held[scope]), sum(amount for _, amount in held[scope].values()))
        if sums.get(scope, (0, 0)) != total:
            faults.append(f"the scope {scope} holds {sums.get(scope, (0, 0))}, not {total}")
    return faults


def faults_of_quotas(events: Iterable[Event]) -> list[str]:
    """Name every command after which an organisation has more than before, and more than it might have.

    What it might have is what its quota said when the command's last event that took more was written.
    """
    held: Held = defaultdict(dict)
    quotas: dict[str, dict[str, int]] = defaultdict(dict)
    before: dict[tuple[str, str], int] = {}
    allowed: dict[tuple[str, str], int] = {}
    faults = []
    for event in events:
        org = event["org_id"]
        if event["type"] == "org.quota_set":
            quotas[org] = json.loads(event["payload"])["quota"]
        for name in [*COUNTED, *SUMMED]:
            before.setdefault((org, name), _total(held, name, org))
        so_far = {name: _total(held, name, org) for name in [*COUNTED, *SUMMED]}
        follow(held, event)
        for name, count in so_far.items():
            if _total(held, name, org) > count and name in quotas[org]:
                allowed[org, name] = quotas[org][name]
        if event["command_end"]:
            for (owner, name), most in allowed.items():
                total = _total(held, name, owner)
                if total > most and total > before[owner, name]:
                    faults.append(f"{owner} has {total} {name} after {event['position']}, and might have {most}")
            before.clear()
            allowed.clear()
    return faults


def _total(held: Held, name: str, org: str) -> int:
    if name in COUNTED:
        return len(held[f"{COUNTED[name]}:{org}"])
    return sum(amount for _, amount in held[f"{SUMMED[name]}:{org}"].values())
