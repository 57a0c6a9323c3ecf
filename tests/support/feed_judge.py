"""What consumers of the change feed were told, judged against the log by code that shares nothing with Keelson's.

The judge knows the contract alone: the columns of log.events, how cursors are written, and what DESIGN.md (7) promises.
A consumer's history is a list of sessions: a connection each, or a page, or one iteration of the client's. Each is
judged by itself, from the cursor that it began with, so that a fault is named where it was made.
"""

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Literal, NamedTuple

Event = Mapping[str, Any]
Guarantee = Literal[
    "ordered", "unique", "reliable", "atomic", "resumable", "bookmarkable", "confined", "revoked", "epochs", "faithful"
]

# From when its revocation was recorded, a credential is told of nothing that is recorded later than this.
REVOKED_WITHIN = timedelta(seconds=1)

_COLUMNS = (
    *("position", "type", "aggregate_id", "seq", "org_id", "project_id", "app_id", "env_id", "node_id", "actor_type"),
    *("actor_id", "reason", "request_id", "correlation_id", "causation_id", "command_id", "command_end"),
)


class Told(NamedTuple):
    """One thing that a consumer was told: its kind, the cursor that came with it, and what it says."""

    kind: str
    cursor: str | None
    body: Mapping[str, Any]


class Fault(NamedTuple):
    """A guarantee that was broken, and how."""

    guarantee: Guarantee
    text: str


@dataclass
class Session:
    """What came of asking once: from where, whether it was answered (200), what was told, and when."""

    start: str | None
    began_at: float
    status: int = 0
    told: list[Told] = field(default_factory=list)
    ended_at: float | None = None
    # The epoch that the answer named.
    epoch: str | None = None


@dataclass
class Consumer:
    """Who listens: what it asked for, whose events it may see (None: all), and when its credential was revoked."""

    name: str
    wanted: Mapping[str, str] = field(default_factory=dict)
    org_id: str | None = None
    revoked_at: datetime | None = None
    sessions: list[Session] = field(default_factory=list)

    def wants(self, event: Event) -> bool:
        """Whether an event is one that it must be told of, and may."""
        if self.org_id is not None and event["org_id"] != self.org_id:
            return False
        return all(_column(event, name) == value for name, value in self.wanted.items())


def _column(event: Event, name: str) -> Any:
    return event["aggregate_id"].partition("_")[0] if name == "aggregate_type" else event[name]


@dataclass
class Epoch:
    """A lineage of the log, all that it held until it ended, and when it began and ended as the test's clock says."""

    name: str
    log: Sequence[Event]
    began_at: float
    ended_at: float | None = None


def place_of(cursor: str) -> tuple[str, int]:
    """Give the epoch and the position of a cursor."""
    epoch, _, position = cursor.rpartition("-")
    return epoch, int(position)


class Judge:
    """Holds histories against what the log was in every epoch. `stale_s` is how long a replica may know an old one."""

    def __init__(self, epochs: Iterable[Epoch], *, stale_s: float = 2.0) -> None:
        self._epochs = {epoch.name: epoch for epoch in epochs}
        self._stale_s = stale_s
        self._shares: dict[tuple[str, str], Share] = {}

    def faults_of(self, consumer: Consumer) -> list[Fault]:
        """Name whatever was wrong about all that a consumer was told."""
        return [fault for session in consumer.sessions for fault in self._faults_of_session(consumer, session)]

    def faults_at_rest(self, consumer: Consumer) -> list[Fault]:
        """Name what is missing once nothing breaks and nobody writes any more: the end of the log must be reached."""
        session = consumer.sessions[-1]
        name = self._epoch_of(session)
        if name is None or self._epochs[name].ended_at is not None:
            return [Fault("epochs", f"{consumer.name} is not in the last epoch: {session.start}")]
        walk = self._walk(consumer, name, session)
        for told in session.told:
            list(walk.follow(told))
        head = len(self._epochs[name].log)
        if (following := walk.following) is not None:
            return [Fault("reliable", f"{consumer.name} was never told of {following}")]
        if walk.at != head:
            return [
                Fault("bookmarkable", f"{consumer.name} was not told that nothing matched from {walk.at} to {head}")
            ]
        return []

    def _epoch_of(self, session: Session) -> str | None:
        """Give the lineage that a session is of: its start's, else that of its first cursor, else what was named."""
        if session.start is not None and place_of(session.start)[0]:
            return place_of(session.start)[0]
        named = next((place_of(told.cursor)[0] for told in session.told if told.cursor), session.epoch)
        return named if named in self._epochs else None

    def _is_turned_away(self, session: Session) -> bool:
        """Whether all that it was told is that the epoch is another, and that is so."""
        if [told.kind for told in session.told] != ["resync"]:
            return False
        said, came_from = session.told[0].body.get("epoch"), place_of(session.start or "-0")[0]
        return said in (None, *self._epochs) and (not came_from or came_from != said)

    def _walk(self, consumer: Consumer, epoch: str, session: Session) -> "Walk":
        key = (consumer.name, epoch)
        if key not in self._shares:
            self._shares[key] = Share(self._epochs[epoch], consumer.wants)
        return Walk(self._shares[key], session.start)

    def _faults_of_session(self, consumer: Consumer, session: Session) -> Iterator[Fault]:
        name = self._epoch_of(session)
        if session.status != 200:
            yield from self._faults_of_refusal(consumer, session)
        elif self._is_turned_away(session):
            return
        elif name is None or name not in self._epochs:
            yield from (Fault("epochs", f"{consumer.name} was told {told} of no epoch") for told in session.told[:1])
        else:
            epoch = self._epochs[name]
            if epoch.ended_at is not None and session.began_at > epoch.ended_at + self._stale_s:
                late_s = session.began_at - epoch.ended_at
                text = f"{consumer.name} was served from {session.start} {late_s:.1f} s after its epoch's end"
                yield Fault("epochs", text)
            walk = self._walk(consumer, name, session)
            for told in session.told:
                yield from (Fault(each, f"{consumer.name}: {text}") for each, text in walk.follow(told))
            yield from _faults_of_revocation(consumer, session)

    def _faults_of_refusal(self, consumer: Consumer, session: Session) -> Iterator[Fault]:
        """Name a good cursor that was refused (its epoch lives), and who was refused without having been revoked."""
        if session.status == 410 and session.start is not None:
            epoch = self._epochs.get(place_of(session.start)[0])
            if epoch is not None and (epoch.ended_at is None or (session.ended_at or 0.0) < epoch.ended_at):
                yield Fault("resumable", f"{consumer.name} was refused the cursor {session.start}")
        elif session.status in (401, 403):
            if consumer.revoked_at is None:
                yield Fault("revoked", f"{consumer.name} was refused, and was not revoked")
        elif session.status not in (0, 410, 429, 503):
            yield Fault("resumable", f"{consumer.name} got {session.status} from {session.start}")


def _faults_of_revocation(consumer: Consumer, session: Session) -> Iterator[Fault]:
    """Name what happened too late to be told; by the database's times, so that what lingered on its way is no fault."""
    if consumer.revoked_at is None:
        return
    for told in session.told:
        if told.kind == "event":
            late = datetime.fromisoformat(told.body["recorded_at"]) - consumer.revoked_at
            if late > REVOKED_WITHIN:
                yield Fault("revoked", f"{consumer.name} was told of what happened {late} after its revocation")


class Share:
    """What of an epoch's log a consumer is to be told."""

    def __init__(self, epoch: Epoch, wants: Callable[[Event], bool]) -> None:
        matching = [event for event in epoch.log if wants(event)]
        self.epoch = epoch
        self.log = {event["position"]: event for event in epoch.log}
        self.order = [event["position"] for event in matching]
        self.matches = frozenset(self.order)
        self.lasts_of_commands = _lasts(matching)

    def following(self, position: int) -> int | None:
        """Give the next position after this one that must be told of."""
        place = bisect_right(self.order, position)
        return self.order[place] if place < len(self.order) else None


class Walk:
    """Follows one session along a share of its epoch's log; `at` is how far all has been told."""

    def __init__(self, share: Share, start: str | None) -> None:
        self._share = share
        self._start = place_of(start)[1] if start is not None else 0
        self._last_told = 0
        self._bookmarked = self._start
        self._said: set[int] = set()
        self._is_over = False
        self.at = self._start

    @property
    def following(self) -> int | None:
        """The next position that must be told of."""
        return self._share.following(self.at)

    def follow(self, told: Told) -> Iterator[tuple[Guarantee, str]]:
        """Name what is wrong about what was told next."""
        if self._is_over:
            yield "epochs", f"{told} came after the end"
        if told.kind == "event":
            yield from self._follow_event(told)
        elif told.kind == "bookmark":
            yield from self._follow_bookmark(told)
        elif told.kind == "resync":
            self._is_over = True
            if self._share.epoch.ended_at is None:
                yield "epochs", "a resync came, and the epoch is the same"
        else:
            yield "faithful", f"nobody knows what a {told.kind} is"

    def _follow_event(self, told: Told) -> Iterator[tuple[Guarantee, str]]:
        position = int(told.body["position"])
        event = self._share.log.get(position)
        # What is not in the log of an epoch that has ended is of the next one.
        stranger: Guarantee = "faithful" if self._share.epoch.ended_at is None else "epochs"
        if event is None:
            yield stranger, f"{position} is not in the log of {self._share.epoch.name}"
            return
        yield from ((stranger, text) for text in _differences(event, told.body))
        if position not in self._share.matches:
            yield "confined", f"{position} was not asked for, or is not for its eyes"
            return
        yield from self._place(position)
        yield from self._faults_of_cursor(position, told.cursor)
        self._said.add(position)
        self._last_told = position
        self.at = max(self.at, position)

    def _place(self, position: int) -> Iterator[tuple[Guarantee, str]]:
        following = self.following
        if position in self._said:
            yield "unique", f"{position} came again"
        elif position < self._last_told:
            yield "ordered", f"{position} came after {self._last_told}"
        elif position <= self._start:
            yield "resumable", f"{position} came again after {self._start}"
        elif position <= self._bookmarked:
            yield "bookmarkable", f"{position} came after the bookmark {self._bookmarked}"
        elif following is not None and position > following:
            is_first = self._start and not self._said
            yield "resumable" if is_first else "reliable", f"{position} came, and {following} had not"

    def _faults_of_cursor(self, position: int, cursor: str | None) -> Iterator[tuple[Guarantee, str]]:
        is_last = position in self._share.lasts_of_commands
        if cursor is None:
            if is_last:
                yield "atomic", f"{position} is the last of its command, and gives no cursor"
            return
        if not is_last:
            yield "atomic", f"{position} gives the cursor {cursor} within its command"
        if place_of(cursor) != (self._share.epoch.name, position):
            yield "epochs", f"{position} gives the cursor {cursor} in {self._share.epoch.name}"

    def _follow_bookmark(self, told: Told) -> Iterator[tuple[Guarantee, str]]:
        epoch, position = place_of(told.cursor or "-0")
        if epoch != self._share.epoch.name:
            yield "epochs", f"the bookmark {told.cursor} in {self._share.epoch.name}"
        if told.body.get("position") != position:
            yield "bookmarkable", f"the bookmark {told.cursor} says {told.body}"
        following = self.following
        if position < self.at:
            yield "ordered", f"the bookmark {position} came after {self.at}"
        elif following is not None and following <= position:
            yield "bookmarkable", f"the bookmark {position} came before {following}"
        event = self._share.log.get(position)
        # Where it stands already may be the last of a command that matched, and not the last of all.
        is_known = position == self.at
        if position and event is None:
            is_over = self._share.epoch.ended_at is not None
            yield "epochs" if is_over else "bookmarkable", f"the bookmark {position} is beyond the log"
        elif event is not None and not event["command_end"] and not is_known:
            yield "atomic", f"the bookmark {position} is within a command"
        self.at = self._bookmarked = max(self.at, position)


def _lasts(matching: Iterable[Event]) -> frozenset[int]:
    """Give the last matching position of every command."""
    commands = groupby(matching, key=lambda event: event["command_id"])
    return frozenset([event["position"] for event in events][-1] for _, events in commands)


def _differences(event: Event, body: Mapping[str, Any]) -> Iterator[str]:
    """Hold what was told of an event against its row; what is null there is left out here."""
    for name in _COLUMNS:
        if body.get(name) != event[name]:
            yield f"{event['position']}: {name} is {body.get(name)!r}, not {event[name]!r}"
    if body["stored_version"] == body["version"] and body["payload"] != json.loads(event["payload"]):
        yield f"{event['position']} has another payload"
    if datetime.fromisoformat(body["recorded_at"]) != event["recorded_at"]:
        yield f"{event['position']} was recorded at {event['recorded_at']}, not {body['recorded_at']}"
