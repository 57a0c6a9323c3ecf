"""A model of the log: what becomes of each decision, and what is there afterwards, as its promises say."""

from collections.abc import Iterator
from typing import NamedTuple

from hypothesis import strategies as st

from keelson.events.ids import AggregateId, Position
from keelson.events.org import OrgRenamed
from keelson.log.database import Connection
from keelson.log.decision import (
    Decision,
    Done,
    FreedScope,
    KeyReused,
    KeyTaken,
    Limit,
    Moved,
    Outcome,
    OverLimit,
    Replayed,
    TakenKey,
)
from keelson.log.read import read_page
from support.decisions import an_event, decide

AGGREGATES, SCOPES, KEYS = 3, 2, 3

_small = st.integers(0, 2)


# Who holds a key of a scope, and what it counts.
Claims = dict[tuple[str, str], tuple[AggregateId, int]]


class Free(NamedTuple):
    """An aggregate lets go of a scope."""

    scope: str
    aggregate_id: AggregateId


class Step(NamedTuple):
    """What to decide, in numbers; what they stand for depends on the log by then. `stale` says what is read wrongly."""

    writes: list[int]
    reads: list[int]
    scopes: list[int]
    keys: list[tuple[int, int]]
    changes: list[tuple[bool, int, int, int, int]]
    limits: list[tuple[int, int, int]]
    idempotency: int
    request: int
    stale: int


STEPS = st.builds(
    Step,
    writes=st.lists(_small, max_size=3),
    reads=st.lists(_small, max_size=2, unique=True),
    scopes=st.lists(st.integers(0, 1), max_size=1),
    keys=st.lists(st.tuples(st.integers(0, 1), _small), max_size=1),
    changes=st.lists(st.tuples(st.booleans(), st.integers(0, 1), _small, _small, _small), max_size=4),
    limits=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 5)), max_size=1),
    idempotency=st.integers(0, 30),
    request=st.integers(0, 7),
    stale=st.integers(0, 15),
)


class Model:
    """The log as its promises describe it: one decision after another, each whole or not at all."""

    def __init__(self, epoch: str, prefix: str, position: int) -> None:
        self.epoch = epoch
        self.prefix = prefix
        self.position = position
        self.events: list[tuple[str, int, str]] = []
        self.seqs: dict[AggregateId, int] = {}
        self.claims: Claims = {}
        self.versions: dict[str, int] = {}
        self.answers: dict[tuple[str, ...], tuple[bytes, Replayed]] = {}

    def append(self, decisions: list[Decision], changes: list[list[Free | TakenKey]]) -> list[Outcome]:
        """Append a group; the version of a scope rises once for all of it."""
        changed: set[str] = set()
        head, before = self.position, self.claims
        outcomes = [self._append_one(*each, head, before, changed) for each in zip(decisions, changes, strict=True)]
        for scope in changed:
            self.versions[scope] = self.versions.get(scope, 0) + 1
        return outcomes

    def _append_one(
        self, decision: Decision, changes: list[Free | TakenKey], head: int, before: Claims, changed: set[str]
    ) -> Outcome:
        if decision.key in self.answers:
            request_hash, replayed = self.answers[decision.key]
            return replayed if request_hash == decision.request_hash else KeyReused()
        if self._moved(decision):
            return Moved()
        claims = dict(self.claims)
        own: set[tuple[str, str]] = set()
        freed: set[Free] = set()
        for change in changes:
            refusal = _taken_before(before, change, freed) or _change(claims, change, own)
            if refusal is not None:
                return refusal
        for limit in decision.limits:
            held, amount = self._held(claims, limit.scope)
            if (limit.held is not None and held > limit.held) or (limit.amount is not None and amount > limit.amount):
                return OverLimit(limit.scope, held, amount)
        # What was taken and let go of again within the decision was never there.
        changed |= {scope for scope, _ in own | (self.claims.keys() - claims.keys())}
        self.claims = claims
        return self._commit(decision, head)

    def _moved(self, decision: Decision) -> bool:
        reads = decision.reads
        return (
            any(self.seqs.get(each, 0) != seq for each, seq in reads.aggregates.items())
            or any(self.versions.get(each, 0) != version for each, version in reads.scopes.items())
            or any(self.claims.get(each, (None, 0))[0] != holder for each, holder in reads.keys.items())
        )

    def _held(self, claims: Claims, scope: str) -> tuple[int, int]:
        amounts = [amount for (each, _), (_, amount) in claims.items() if each == scope]
        return len(amounts), sum(amounts)

    def _commit(self, decision: Decision, head: int) -> Outcome:
        first = Position(self.position + 1) if decision.events else None
        for event in decision.events:
            self.seqs[event.aggregate_id] = event.seq
            self.events.append((event.aggregate_id, event.seq, decision.command_id))
            self.position += 1
        position = Position(self.position if decision.events else head)
        replayed = Replayed(decision.command_id, first, position, decision.answer)
        self.answers[decision.key] = (decision.request_hash, replayed)
        return Done(first, position)

    def decide(self, step: Step, number: int) -> tuple[Decision, list[Free | TakenKey]]:
        """Decide on what there is; one bit of `stale` makes each kind of read wrong."""
        aggregates = [AggregateId(f"org_{self.prefix}-{each}") for each in range(AGGREGATES)]
        scopes = [f"{self.prefix}-{each}" for each in range(SCOPES)]
        wrong = [int(step.stale == kind) for kind in (1, 2, 3)]
        read = {each: self.seqs.get(each, 0) + wrong[0] for each in aggregates}
        changes = list(self._changes(step, aggregates, scopes))
        seqs = dict(read)
        events = []
        # Claims change with an event of whoever holds them.
        holders = {change.aggregate_id for change in changes}
        for each in [*(aggregates[each] for each in step.writes), *sorted(holders)]:
            seqs[each] = seq = seqs[each] + 1
            events.append(an_event(each, seq, OrgRenamed(name=str(number))))
        places = [(scopes[scope], str(key)) for scope, key in step.keys]
        decision = decide(
            self.epoch,
            *events,
            reads={aggregates[each]: read[aggregates[each]] for each in step.reads},
            scopes={scopes[each]: self.versions.get(scopes[each], 0) + wrong[1] for each in step.scopes},
            keys={each: aggregates[0] if wrong[2] else self.claims.get(each, (None, 0))[0] for each in places},
            limits=[Limit(scopes[each], held, amount if amount < 5 else None) for each, held, amount in step.limits],
            key=f"{self.prefix}-{step.idempotency}" if step.idempotency < 8 else None,
            request_hash=b"another" if not step.request else b"hash",
            answer=f"{number}",
        )
        # Of what a decision frees twice, the transaction remembers the first: the append counts each as often as named.
        freed = {each: FreedScope(*each, at) for at, each in reversed([*enumerate(changes)]) if isinstance(each, Free)}
        decision.freed = list(freed.values())
        decision.taken = [
            each._replace(at=at, kept=Free(each.scope, each.aggregate_id) not in changes[at + 1 :])
            for at, each in enumerate(changes)
            if isinstance(each, TakenKey)
        ]
        return decision, changes

    def _changes(self, step: Step, aggregates: list[AggregateId], scopes: list[str]) -> Iterator[Free | TakenKey]:
        """Give claims to free and take, but none that the decision itself holds by then: handlers see to that."""
        own: dict[tuple[str, str], AggregateId] = {}
        for frees, scope_number, key_number, holder, amount in step.changes:
            scope, key, aggregate_id = scopes[scope_number], str(key_number), aggregates[holder]
            if frees:
                own = {place: each for place, each in own.items() if (place[0], each) != (scope, aggregate_id)}
                yield Free(scope, aggregate_id)
            elif (scope, key) not in own:
                own[scope, key] = aggregate_id
                yield TakenKey(scope, key, aggregate_id, amount)


def _taken_before(before: Claims, change: Free | TakenKey, freed: set[Free]) -> KeyTaken | None:
    """Refuse a key that was held before the group, unless its decision has freed it; others of the group cannot."""
    if isinstance(change, Free):
        freed.add(change)
        return None
    holder, _ = before.get((change.scope, change.key), (None, 0))
    if holder is None or Free(change.scope, holder) in freed:
        return None
    return KeyTaken(change.scope, change.key, holder)


def _change(claims: Claims, change: Free | TakenKey, own: set[tuple[str, str]]) -> KeyTaken | None:
    """Make a change; `own` are the places that the decision has taken so far."""
    if isinstance(change, Free):
        for place in [place for place, claim in claims.items() if (place[0], claim[0]) == change]:
            del claims[place]
            own.discard(place)
        return None
    place = (change.scope, change.key)
    if place in claims:
        return KeyTaken(*place, claims[place][0])
    claims[place] = (change.aggregate_id, change.amount)
    own.add(place)
    return None


async def assert_same(connection: Connection, model: Model, before: Position) -> None:
    """Compare what the log holds after a position with what the model holds."""
    page = await read_page(connection, before, 10_000)
    assert page.head == model.position
    assert [(each.aggregate_id, each.seq, each.command_id) for each in page.envelopes] == model.events
    assert [each.position for each in page.envelopes] == list(range(before + 1, model.position + 1))
    claims = await connection.fetch("SELECT * FROM log.claims WHERE starts_with(scope, $1)", f"{model.prefix}-")
    assert {(scope, key): (holder, amount) for scope, key, holder, amount in claims} == model.claims
    scopes = await connection.fetch("SELECT * FROM log.claim_scopes WHERE starts_with(scope, $1)", f"{model.prefix}-")
    assert {scope: version for scope, _, _, version in scopes} == model.versions
    for scope, held, amount, _ in scopes:
        assert (held, amount) == model._held(model.claims, scope)
