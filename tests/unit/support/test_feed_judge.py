"""The judge of the change feed: it could not prove that nothing was lost if it did not see what was."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.feed_judge import Consumer, Epoch, Event, Fault, Judge, Session, Told

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
# One letter an event, by its organisation: two commands of both, one of b alone, and one of a at the end.
COMMANDS = ("ab", "aba", "bb", "a")


def _log(*commands: str) -> list[Event]:
    events: list[Event] = []
    for command in commands:
        for place, org in enumerate(command, start=1):
            position = len(events) + 1
            ids = dict.fromkeys(("project_id", "app_id", "env_id", "node_id", "reason", "correlation_id"))
            events.append(
                {
                    **ids,
                    "position": position,
                    "type": "org.renamed",
                    "aggregate_id": f"org_{org}",
                    "seq": position,
                    "org_id": org,
                    "actor_type": "system",
                    "actor_id": "operator",
                    "request_id": "request",
                    "causation_id": None,
                    "command_id": f"command_{len(events) + 1 - place}",
                    "command_end": place == len(command),
                    "recorded_at": BEGAN + timedelta(seconds=position),
                    "payload": json.dumps({"name": f"name-{position}"}),
                }
            )
    return events


LOG = _log(*COMMANDS)


def event(position: int, cursor: str | None = None, **changes: Any) -> Told:
    """Tell of an event of the log, as the feed would."""
    row = {name: value for name, value in LOG[position - 1].items() if value is not None}
    payload = json.loads(row["payload"])
    body = {**row, "version": 1, "stored_version": 1, "payload": payload, "recorded_at": row["recorded_at"].isoformat()}
    return Told("event", cursor, {**body, **changes})


def bookmark(at: int, **changes: Any) -> Told:
    """Tell how far nothing matched."""
    return Told("bookmark", f"e1-{at}", {"position": at, **changes})


def of(told: Sequence[Told], start: str | None = None, **fields: Any) -> Session:
    """Make a session in which this was told."""
    return Session(start, 1.0, status=200, told=list(told), ended_at=2.0, epoch="e1", **fields)


def listener(*sessions: Session, **fields: Any) -> Consumer:
    """Make a consumer of the events of organisation a."""
    return Consumer("a", {"org_id": "a"}, sessions=list(sessions), **fields)


FIRST = [event(1, "e1-1"), event(3), event(5, "e1-5")]
SOUND = [*FIRST, bookmark(7), event(8, "e1-8")]
NOW = Judge([Epoch("e1", LOG, 0.0)])
OVER = Judge([Epoch("e1", LOG, 0.0, 10.0), Epoch("e2", LOG[:5], 10.0)])


@pytest.mark.parametrize(
    "consumer",
    [
        listener(of(SOUND)),
        listener(of(FIRST), of([event(8, "e1-8")], "e1-5")),
        listener(of([*FIRST, event(8, "e1-8")])),
        listener(of(FIRST[:2]), of([event(3), event(5, "e1-5"), event(8, "e1-8")], "e1-1")),
        listener(of([event(8, "e1-8")], "7")),
        listener(Session("e1-5", 1.0, status=503, ended_at=2.0), of(SOUND)),
        listener(Session("e1-5", 1.0, ended_at=2.0), of([bookmark(8)], "e1-8")),
        Consumer("all", sessions=[of([event(1), event(2, "e1-2"), event(3), event(4), event(5, "e1-5")])]),
    ],
)
def test_a_sound_history_has_no_faults(consumer: Consumer) -> None:
    assert not NOW.faults_of(consumer)


def test_the_end_of_the_log_was_reached() -> None:
    assert not NOW.faults_at_rest(listener(of(SOUND)))
    assert not NOW.faults_at_rest(listener(of([bookmark(8)], "e1-8")))
    assert guarantees(NOW.faults_at_rest(listener(of(SOUND[:4])))) == {"reliable"}
    nothing_of_it = Consumer("c", {"org_id": "c"}, sessions=[of([bookmark(5)])])
    assert guarantees(NOW.faults_at_rest(nothing_of_it)) == {"bookmarkable"}
    assert guarantees(OVER.faults_at_rest(listener(of(SOUND)))) == {"epochs"}


def guarantees(faults: Sequence[Fault]) -> set[str]:
    """Give what was broken."""
    return {fault.guarantee for fault in faults}


BROKEN: dict[str, tuple[str, Consumer]] = {
    "two in the wrong order": ("ordered reliable", listener(of([event(5, "e1-5"), event(1, "e1-1")]))),
    "a bookmark that goes back": ("ordered", listener(of([*FIRST, bookmark(2)]))),
    "one twice": ("unique", listener(of([*FIRST, event(5, "e1-5")]))),
    "one left out": ("reliable", listener(of([event(1, "e1-1"), event(5, "e1-5")]))),
    "a command skipped": ("reliable", listener(of([event(1, "e1-1"), event(8, "e1-8")]))),
    "one left out after the resumption": ("resumable", listener(of([event(8, "e1-8")], "e1-1"))),
    "one again after the resumption": ("resumable", listener(of([event(5, "e1-5")], "e1-5"))),
    "a good cursor that is refused": ("resumable", listener(Session("e1-5", 1.0, status=410, ended_at=2.0))),
    "a cursor that is no garbage": ("resumable", listener(Session("e1-5", 1.0, status=400, ended_at=2.0))),
    "a cursor within a command": ("atomic", listener(of([event(1, "e1-1"), event(3, "e1-3")]))),
    "no cursor at a command's end": ("atomic", listener(of([event(1)]))),
    "a bookmark within a command": ("atomic", Consumer("c", {"org_id": "c"}, sessions=[of([bookmark(4)])])),
    "a bookmark that passes one": ("bookmarkable", listener(of([event(1, "e1-1"), bookmark(5)]))),
    "one that a bookmark has passed": ("bookmarkable", listener(of([bookmark(2), event(1, "e1-1")]))),
    "a bookmark beyond the head": ("bookmarkable", listener(of([*SOUND, bookmark(9)]))),
    "a bookmark that says another place": ("bookmarkable", listener(of([*FIRST, bookmark(7, position=6)]))),
    "one of somebody else": ("confined", listener(of([event(1, "e1-1"), event(2, "e1-2")]))),
    "one that may not be seen": ("confined", Consumer("b", {}, "b", sessions=[of([event(1, "e1-1")])])),
    "one that never was": ("faithful", listener(of([Told("event", "e1-9", {**event(8).body, "position": 9})]))),
    "another payload": ("faithful", listener(of([event(1, "e1-1", payload={"name": "x"})]))),
    "another actor": ("faithful", listener(of([event(1, "e1-1", actor_id="x")]))),
    "another time": ("faithful", listener(of([event(1, "e1-1", recorded_at=BEGAN.isoformat())]))),
    "what nobody knows": ("faithful", listener(of([Told("gossip", None, {})]))),
    "another epoch's cursor": ("epochs", listener(of([event(1, "e1-1"), event(3), event(5, "e2-5")]))),
    "another epoch's bookmark": ("epochs", listener(of([*FIRST, Told("bookmark", "e2-7", {"position": 7})]))),
    "a resync without another epoch": ("epochs", listener(of([*FIRST, Told("resync", None, {"epoch": "e2"})]))),
    "an epoch that never was": ("epochs", listener(of([event(1, "e7-1")]))),
    "refused and not revoked": ("revoked", listener(Session("e1-5", 1.0, status=401, ended_at=2.0))),
    "told after its revocation": ("revoked", listener(of(SOUND), revoked_at=BEGAN + timedelta(seconds=6.9))),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_seen_as_that(what: str) -> None:
    guarantee, consumer = BROKEN[what]
    assert guarantees(NOW.faults_of(consumer)) == set(guarantee.split())


def test_who_was_revoked_may_be_refused_and_told_of_what_happened_before() -> None:
    assert not NOW.faults_of(listener(of(SOUND), revoked_at=BEGAN + timedelta(seconds=7)))
    refused = Session("e1-5", 1.0, status=401, ended_at=2.0)
    assert not NOW.faults_of(listener(of(FIRST), refused, revoked_at=BEGAN + timedelta(seconds=4)))


def test_an_epoch_ends_what_is_of_it() -> None:
    resync = Told("resync", None, {"epoch": "e2"})
    assert not OVER.faults_of(listener(of([*FIRST, resync])))
    assert not OVER.faults_of(listener(Session("e1-5", 10.5, status=410, ended_at=10.6)))
    assert guarantees(OVER.faults_of(listener(of([*FIRST, resync, bookmark(7)])))) == {"epochs"}
    assert guarantees(OVER.faults_of(listener(Session("e1-5", 13.0, status=200, ended_at=14.0)))) == {"epochs"}
    assert not OVER.faults_of(listener(Session("e1-5", 11.0, status=200, ended_at=14.0)))
    of_the_next = Told("event", "e1-9", {**event(8).body, "position": 9})
    assert guarantees(OVER.faults_of(listener(of([*SOUND, of_the_next])))) == {"epochs"}
    assert guarantees(OVER.faults_of(listener(of([*SOUND, bookmark(9)])))) == {"epochs"}
    assert guarantees(OVER.faults_of(listener(of([event(1, "e1-1", payload={"name": "x"})])))) == {"epochs"}
    turned_away = Session("e1-5", 13.0, status=200, told=[resync], epoch="e2")
    assert not OVER.faults_of(listener(turned_away))
    assert not OVER.faults_of(listener(of([Told("event", "e2-1", event(1).body)])))


Break = Callable[[list[Told]], list[Told]]


@pytest.mark.parametrize("place", range(len(SOUND)))
def test_nothing_can_be_left_out_or_repeated_unseen(place: int) -> None:
    """Bookmarks alone may be left out, as long as others follow."""
    without = [*SOUND[:place], *SOUND[place + 1 :]]
    faults = NOW.faults_of(listener(of(without))) + NOW.faults_at_rest(listener(of(without)))
    assert bool(faults) is (SOUND[place].kind == "event")
    twice = [*SOUND[: place + 1], *SOUND[place:]]
    assert bool(NOW.faults_of(listener(of(twice)))) is (SOUND[place].kind == "event")
