"""Random decisions in random groups against a model of the log: what becomes of each, and what is there afterwards."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
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
from keelson.log.group import Group
from keelson.log.read import read_head, read_page
from support.database import Cluster
from support.decisions import an_event, decide
from support.log import append_group, connected, plant, read_epoch

AGGREGATES, SCOPES, KEYS = 3, 2, 3

_small = st.integers(0, 2)


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


_steps = st.builds(
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
_rounds = st.lists(st.lists(_steps, min_size=1, max_size=5), min_size=1, max_size=8)


class Model:
    """The log as its promises describe it: one decision after another, each whole or not at all."""

    def __init__(self, epoch: str, prefix: str, position: int) -> None:
        self.epoch = epoch
        self.prefix = prefix
        self.position = position
        self.events: list[tuple[str, int, str]] = []
        self.seqs: dict[AggregateId, int] = {}
        self.claims: dict[tuple[str, str], tuple[AggregateId, int]] = {}
        self.versions: dict[str, int] = {}
        self.answers: dict[tuple[str, ...], tuple[bytes, Replayed]] = {}

    def append(self, decisions: list[Decision], changes: list[list[Free | TakenKey]]) -> list[Outcome]:
        """Append a group; the version of a scope rises once for all of it."""
        changed: set[str] = set()
        head = self.position
        outcomes = [self._append_one(*each, head, changed) for each in zip(decisions, changes, strict=True)]
        for scope in changed:
            self.versions[scope] = self.versions.get(scope, 0) + 1
        return outcomes

    def _append_one(self, decision: Decision, changes: list[Free | TakenKey], head: int, changed: set[str]) -> Outcome:
        if decision.key in self.answers:
            request_hash, replayed = self.answers[decision.key]
            return replayed if request_hash == decision.request_hash else KeyReused()
        if self._moved(decision):
            return Moved()
        claims = dict(self.claims)
        own: set[tuple[str, str]] = set()
        for change in changes:
            refusal = _change(claims, change, own)
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

    def _held(self, claims: dict[tuple[str, str], tuple[AggregateId, int]], scope: str) -> tuple[int, int]:
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
        seqs = dict(read)
        events = []
        for each in step.writes:
            seqs[aggregates[each]] = seq = seqs[aggregates[each]] + 1
            events.append(an_event(aggregates[each], seq, OrgRenamed(name=str(number))))
        changes = list(self._changes(step, aggregates, scopes))
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
        decision.freed = [FreedScope(*each, at) for at, each in enumerate(changes) if isinstance(each, Free)]
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


def _change(
    claims: dict[tuple[str, str], tuple[AggregateId, int]], change: Free | TakenKey, own: set[tuple[str, str]]
) -> KeyTaken | None:
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


_examples = count(1)


async def _compare(connection: Connection, rounds: list[list[Step]]) -> None:
    """Let the log and the model come to each outcome, and then to the same tables."""
    before = (await read_head(connection)).position
    model = Model(await read_epoch(connection), f"e{next(_examples)}", before)
    numbers = count(1)
    for steps in rounds:
        waiting = [model.decide(step, next(numbers)) for step in steps]
        while waiting:
            group = Group()
            left = [each for each in waiting if not group.admit(each[0])]
            taken = [each for each in waiting if not any(each is other for other in left)]
            expected = model.append(group.decisions, [changes for _, changes in taken])
            assert await append_group(connection, *group.decisions) == expected
            waiting = left
    await _assert_same(connection, model, before)


async def _assert_same(connection: Connection, model: Model, before: Position) -> None:
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


@contextmanager
def _comparing(cluster: Cluster, *planted: tuple[str, str]) -> Iterator[Callable[[list[list[Step]]], None]]:
    """Lend a function that compares, all on one database; each example has names of its own."""
    with asyncio.Runner() as runner:
        lent = cluster.fresh_database()
        database = runner.run(lent.__aenter__())
        if planted:
            runner.run(plant(database.admin_dsn, "append_v1", *planted))
        connecting = connected(database.admin_dsn, plan_cache_mode="force_generic_plan")
        connection = runner.run(connecting.__aenter__())
        try:
            yield lambda rounds: runner.run(_compare(connection, rounds))
        finally:
            runner.run(connecting.__aexit__(None, None, None))
            runner.run(lent.__aexit__(None, None, None))


def _run(check: Callable[[list[list[Step]]], None], **options: Any) -> None:
    suppressed = [HealthCheck.too_slow, HealthCheck.data_too_large]
    settings(deadline=None, suppress_health_check=suppressed, database=None, **options)(given(_rounds)(check))()


def test_the_log_does_what_its_model_does(cluster: Cluster) -> None:
    with _comparing(cluster) as compare:
        _run(compare, max_examples=60)


BUGS = {
    "a decision settled twice": ("settled := settled || failed;", "settled := settled || failed || failed;"),
    "a version that stays": ("version = s.version + 1", "version = s.version"),
    "an amount that is forgotten": ("amount = s.amount + excluded.amount", "amount = s.amount"),
    "limits unchecked": ("o.held > l_held[o.n]", "o.held > l_held[o.n] + 1"),
    "a key freed too late": ("f.at <= t.at", "f.at < 0"),
    "a stale seq": ("r.seq <> coalesce((", "r.seq < coalesce(("),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_found(cluster: Cluster, bug: str) -> None:
    with _comparing(cluster, BUGS[bug]) as compare, pytest.raises((AssertionError, ExceptionGroup)):
        _run(compare, max_examples=600, phases=[Phase.generate], derandomize=True)
