"""The judge of nodes: it could not prove that no change was missed if it did not see one that was."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from support.desired_judge import Apprentice, DesiredJudge, Wanted, digest_of, faults_of_doing
from support.feed_judge import Epoch, Event, Fault, Told

NODE, OTHER = "node_1", "node_2"
SPEC = {"image": "shop", "command": ["serve"]}


def event(position: int, what: str, instance: str = "instance_1", node: str | None = NODE, **payload: Any) -> Event:
    ids = dict.fromkeys(("org_id", "project_id", "app_id", "env_id"), "x")
    told = {"position": position, "type": what, "aggregate_id": instance, "node_id": node, "command_end": True}
    return {**ids, **told, "payload": json.dumps(payload)}


def allocated(position: int, instance: str, node: str = NODE) -> Event:
    return event(position, "instance.allocated", instance, node, process="web", spec=SPEC, spec_hash="0")


LOG = [
    event(1, "org.created", "org_1", None),
    allocated(2, "instance_1"),
    allocated(3, "instance_2", OTHER),
    event(4, "instance.status_changed", status="ready"),
    event(5, "instance.desired_state_changed", desired_state="draining"),
    allocated(6, "instance_3"),
    event(7, "instance.status_changed", status="stopped"),
    event(8, "instance.status_changed", "instance_3", status="ready"),
]
WANTED = Wanted(LOG, NODE)
JUDGE = DesiredJudge([Epoch("e1", LOG, 0.0)])


def snapshot(version: int, position: int | None = None, **changes: Any) -> Told:
    items = WANTED.items_of(version) or []
    body = {"version": version, "digest": digest_of(items), "items": items, "position": position or version}
    return Told("event", f"e1-{version}", {**body, **changes})


def confirmed(version: int, position: int, **changes: Any) -> Told:
    body = {"version": version, "digest": digest_of(WANTED.items_of(version) or []), "position": position}
    return Told("bookmark", f"e1-{version}", {**body, **changes})


def of(*told: Told, start: str | None = None) -> Apprentice:
    return Apprentice("one", NODE, [(start, list(told))])


def guarantees(faults: Sequence[Fault]) -> set[str]:
    return {fault.guarantee for fault in faults}


def test_versions_are_the_positions_of_what_changes_a_node() -> None:
    assert [WANTED.version_at(position) for position in range(9)] == [0, 0, 2, 2, 2, 5, 6, 7, 7]
    assert [len(WANTED.items_of(version) or []) for version in (0, 2, 5, 6, 7)] == [0, 1, 1, 2, 1]
    assert WANTED.items_of(3) is None
    assert WANTED.last[1][0]["instance_id"] == "instance_3"


@pytest.mark.parametrize(
    "apprentice",
    [
        of(snapshot(2), snapshot(5), snapshot(6), snapshot(7)),
        of(snapshot(0, 1), snapshot(6), confirmed(6, 6), snapshot(7), confirmed(7, 8)),
        of(confirmed(5, 5), snapshot(7), start="e1-5"),
        of(snapshot(2, 4), Told("resync", None, {"epoch": "e2"})),
    ],
)
def test_a_sound_history_has_no_faults(apprentice: Apprentice) -> None:
    assert not JUDGE.faults_of(apprentice)


BROKEN = {
    "an older version": ("ordered", of(snapshot(6), snapshot(5))),
    "older than what was known": ("ordered", of(snapshot(2), start="e1-5")),
    "another digest": ("faithful", of(snapshot(5, digest="0"))),
    "other items": ("faithful", of(snapshot(5, items=[]))),
    "no version": ("faithful reliable", of(snapshot(4))),
    "a change that is passed over": ("reliable", of(snapshot(2, position=6))),
    "a change that is confirmed away": ("reliable", of(snapshot(2), confirmed(2, 5))),
    "confirmed by another digest": ("faithful", of(snapshot(2), confirmed(2, 4, digest="0"))),
    "confirmed and never told": ("bookmarkable", of(snapshot(2), confirmed(5, 5))),
    "another cursor": ("resumable", of(Told("event", "e1-6", snapshot(5).body))),
    "another epoch": ("epochs", of(Told("event", "e7-5", snapshot(5).body))),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_seen_as_that(what: str) -> None:
    guarantee, apprentice = BROKEN[what]
    assert guarantees(JUDGE.faults_of(apprentice)) == set(guarantee.split())


def test_at_rest_the_last_version_is_known() -> None:
    assert not JUDGE.faults_at_rest(of(snapshot(6), snapshot(7)), "e1")
    assert not JUDGE.faults_at_rest(of(snapshot(7), confirmed(7, 8)), "e1")
    for told in ([], [snapshot(6)], [snapshot(7, digest="0")]):
        assert guarantees(JUDGE.faults_at_rest(of(*told), "e1")) == {"reliable"}


def test_at_rest_what_should_run_runs_and_says_so() -> None:
    assert not faults_of_doing(LOG, NODE, ["instance_3"])
    assert guarantees(faults_of_doing(LOG, NODE, [])) == {"reliable"}
    assert guarantees(faults_of_doing(LOG, NODE, ["instance_3", "instance_1"])) == {"reliable"}
    assert guarantees(faults_of_doing(LOG[:7], NODE, ["instance_3"])) == {"faithful"}
    assert guarantees(faults_of_doing(LOG[:6], NODE, ["instance_3"])) == {"faithful"}
    assert guarantees(faults_of_doing(LOG, OTHER, ["instance_2"])) == {"faithful"}
