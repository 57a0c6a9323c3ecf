"""What nodes were told to do, and what they did, judged against the log by code that shares nothing with Keelson's."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from support.feed_judge import Epoch, Event, Fault, Told, place_of

_OF_THE_EVENT = ("org_id", "project_id", "app_id", "env_id")
_OF_THE_PAYLOAD = ("process", "release_id", "release_number", "secret_version", "spec", "spec_hash")
Item = Mapping[str, Any]


class Wanted:
    """What one node should be doing at every position of a log: versions, and what there is in each."""

    def __init__(self, log: Iterable[Event], node_id: str) -> None:
        self._versions: list[int] = [0]
        self._items: list[list[Item]] = [[]]
        live: dict[str, dict[str, Any]] = {}
        version = 0
        for event in log:
            if event["node_id"] == node_id and _follow(live, event, json.loads(event["payload"])):
                version = event["position"]
            if event["command_end"] and version > self._versions[-1]:
                self._versions.append(version)
                self._items.append([dict(item) for _, item in sorted(live.items())])

    def version_at(self, position: int) -> int:
        """Give the version at a position."""
        return self._versions[bisect_right(self._versions, position) - 1]

    def items_of(self, version: int) -> list[Item] | None:
        """Give what a version says; None if it is none."""
        place = bisect_right(self._versions, version) - 1
        return self._items[place] if self._versions[place] == version else None

    @property
    def last(self) -> tuple[int, list[Item]]:
        """The last version, and what it says."""
        return self._versions[-1], self._items[-1]


def _follow(live: dict[str, dict[str, Any]], event: Event, payload: Mapping[str, Any]) -> bool:
    """Follow an event of the node; give whether it changes what it should be doing."""
    own = event["aggregate_id"]
    match event["type"]:
        case "instance.allocated":
            told = {name: payload.get(name) for name in _OF_THE_PAYLOAD}
            ids = {name: event[name] for name in _OF_THE_EVENT}
            live[own] = {"instance_id": own, **ids, **told, "desired_state": "running"}
        case "instance.desired_state_changed":
            live[own]["desired_state"] = payload["desired_state"]
        case "instance.status_changed" if payload["status"] == "stopped":
            del live[own]
        case _:
            return False
    return True


@dataclass
class Apprentice:
    """Who follows what a node should be doing: what it was told in each session, and the cursor that began it."""

    name: str
    node_id: str
    sessions: list[tuple[str | None, list[Told]]] = field(default_factory=list)

    def begin(self, start: str | None) -> list[Told]:
        """Begin a session; what is told in it goes into the list that is given."""
        told: list[Told] = []
        self.sessions.append((start, told))
        return told


class DesiredJudge:
    """Holds what was told of nodes against the log of each epoch."""

    def __init__(self, epochs: Iterable[Epoch]) -> None:
        self._epochs = {epoch.name: epoch for epoch in epochs}
        self._wanted: dict[tuple[str, str], Wanted] = {}

    def wanted(self, epoch: str, node_id: str) -> Wanted:
        """Give what a node should be doing throughout an epoch."""
        key = (epoch, node_id)
        if key not in self._wanted:
            self._wanted[key] = Wanted(self._epochs[epoch].log, node_id)
        return self._wanted[key]

    def faults_of(self, apprentice: Apprentice) -> list[Fault]:
        """Name whatever was wrong about what one was told."""
        return [
            Fault(fault.guarantee, f"{apprentice.name}: {fault.text}")
            for start, told in apprentice.sessions
            for fault in self._faults_of_session(apprentice.node_id, start, told)
        ]

    def faults_at_rest(self, apprentice: Apprentice, epoch: str) -> list[Fault]:
        """Name what one does not know when nothing changes any more."""
        version, items = self.wanted(epoch, apprentice.node_id).last
        known = [each.body for _, told in apprentice.sessions for each in told if each.kind != "resync"]
        if not known or known[-1]["version"] != version or known[-1]["digest"] != digest_of(items):
            return [Fault("reliable", f"{apprentice.name} knows {known[-1:]}, and the last version is {version}")]
        return []

    def _faults_of_session(self, node_id: str, start: str | None, told: Sequence[Told]) -> Iterator[Fault]:
        version, digest = None if start is None else place_of(start)[1], None
        newest = {} if start is None else dict([place_of(start)])
        for each in told:
            if each.kind == "resync":
                return
            epoch = place_of(each.cursor or "-0")[0]
            if epoch not in self._epochs:
                yield Fault("epochs", f"{each} is of no epoch")
                return
            yield from self._faults_of_place(each, epoch, newest)
            wanted = self.wanted(epoch, node_id)
            yield from (
                _faults_of_snapshot(each, wanted)
                if each.kind == "event"
                else _faults_of_bookmark(each, wanted, version, digest)
            )
            version, digest = each.body["version"], each.body["digest"]

    def _faults_of_place(self, told: Told, epoch: str, newest: dict[str, int]) -> Iterator[Fault]:
        """Name a version that is older than what was known in its epoch, and a cursor of something else."""
        version = told.body["version"]
        if told.cursor != f"{epoch}-{version}":
            yield Fault("resumable", f"the cursor {told.cursor} came with version {version}")
        if told.kind == "event" and version < newest.get(epoch, 0):
            yield Fault("ordered", f"version {version} came after {newest[epoch]}")
        newest[epoch] = max(newest.get(epoch, 0), version)


def _faults_of_snapshot(told: Told, wanted: Wanted) -> Iterator[Fault]:
    body = told.body
    items = wanted.items_of(body["version"])
    if items is None:
        yield Fault("faithful", f"{body['version']} is no version")
    elif body["items"] != items:
        yield Fault("faithful", f"version {body['version']} says {body['items']}, and not {items}")
    if body["digest"] != digest_of(body["items"]):
        yield Fault("faithful", f"version {body['version']} has not the digest {body['digest']}")
    if wanted.version_at(body["position"]) != body["version"]:
        yield Fault("reliable", f"version {body['version']} is said to be the one at {body['position']}")


def _faults_of_bookmark(told: Told, wanted: Wanted, version: int | None, digest: str | None) -> Iterator[Fault]:
    """Name a confirmation that is not so: what was told last is not what should be at its position."""
    body = told.body
    if wanted.version_at(body["position"]) != body["version"]:
        yield Fault("reliable", f"version {body['version']} is confirmed as the one at {body['position']}")
    if body["digest"] != digest_of(wanted.items_of(body["version"]) or []):
        yield Fault("faithful", f"version {body['version']} is confirmed by the digest {body['digest']}")
    if version != body["version"] and digest != body["digest"]:
        yield Fault("bookmarkable", f"version {body['version']} is confirmed, and {version} was told last")


def digest_of(items: Sequence[Item]) -> str:
    """Give SHA-256 of canonical JSON: keys sorted, no spaces."""
    text = json.dumps(items, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def faults_of_doing(log: Sequence[Event], node_id: str, running: Iterable[str]) -> list[Fault]:
    """Name how what runs on a node, and what the log says of it, is not what the log wants."""
    _, items = Wanted(log, node_id).last
    wanted = {item["instance_id"] for item in items if item["desired_state"] == "running"}
    faults = [Fault("reliable", f"{each} runs on {node_id}, and should not") for each in {*running} - wanted]
    faults += [Fault("reliable", f"{each} does not run on {node_id}") for each in wanted - {*running}]
    said = {event["aggregate_id"]: json.loads(event["payload"]) for event in log if _is_report(event, node_id)}
    for item in items:
        status = said.get(item["instance_id"], {}).get("status")
        if item["desired_state"] != "running" or status != "ready":
            text = f"{item['instance_id']} should be {item['desired_state']}, and is {status}"
            faults.append(Fault("faithful", text))
    return faults


def _is_report(event: Event, node_id: str) -> bool:
    return bool(event["type"] == "instance.status_changed" and event["node_id"] == node_id)
