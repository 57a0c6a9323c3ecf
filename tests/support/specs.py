"""Specs of the domain: given these events, when this command comes, then those events follow, or that refusal.

    given(*APP_EXISTS).when(RenameApp(app_id=APP, name="store")).then((APP, AppRenamed(name="store")))
    given(*ENV_EXISTS).when(DeleteApp(app_id=APP)).then_refused("in_use")

A fact is an aggregate's id and its event; whose child it is follows from the family of ids below, or is said as a third
part. Several commands are those of a bundle. What follows is held against more than it says: ids, seqs, the read set,
and the states that handlers saw, which must be those that the events fold to.
"""

from collections.abc import Awaitable, Collection, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from keelson.command.handlers import Command
from keelson.command.refusal import Refusal
from keelson.command.registry import HANDLERS
from keelson.command.state import Aggregate, S, StateCache
from keelson.command.transaction import Transaction
from keelson.events import REGISTRY, Envelope, Event, Ids
from keelson.events.app import AppCreated
from keelson.events.base import Release as ReleaseClaims
from keelson.events.env import EnvCreated
from keelson.events.ids import AggregateId, Seq
from keelson.events.org import OrgCreated
from keelson.events.project import ProjectCreated
from keelson.log.confirm import ScopeState
from keelson.log.decision import ReadSet

T = TypeVar("T")

Fact = tuple[str, Event] | tuple[str, Event, dict[str, str]]


def id_of(prefix: str, number: int = 1) -> AggregateId:
    """Give an id by number; those of one family have number 1."""
    return AggregateId(f"{prefix}_{number:026d}")


def minted(prefix: str, number: int = 1) -> AggregateId:
    """Give the id that the transaction mints as its first, second … one."""
    return AggregateId(f"{prefix}_7{number:025d}")


ORG, PROJECT, APP, ENV = map(id_of, ("org", "project", "app", "env"))
RELEASE, DEPLOY, ROUTE = map(id_of, ("release", "deploy", "route"))

# Under whom the aggregates of the family stand: all that come before in this order.
_ANCESTRY = {"org_id": ORG, "project_id": PROJECT, "app_id": APP, "env_id": ENV}
_DEPTH = {"org": 1, "project": 2, "app": 3, "env": 4, "release": 3, "deploy": 4, "route": 4}

ORG_EXISTS: tuple[Fact, ...] = ((ORG, OrgCreated(name="acme")),)
PROJECT_EXISTS: tuple[Fact, ...] = (*ORG_EXISTS, (PROJECT, ProjectCreated(name="web")))
APP_EXISTS: tuple[Fact, ...] = (*PROJECT_EXISTS, (APP, AppCreated(name="shop")))
ENV_EXISTS: tuple[Fact, ...] = (*APP_EXISTS, (ENV, EnvCreated(name="production")))


def given(*facts: Fact) -> "Given":
    """Begin a spec with what has happened, in order."""
    return Given(facts)


class History:
    """A list of facts, read as transactions read the log: the reader's other implementation."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self.facts = list(facts)
        self._firsts: dict[str, Fact] = {}
        for fact in self.facts:
            self._firsts.setdefault(fact[0], fact)

    async def read_aggregate(
        self, state_type: type[S], aggregate_id: str, _known: Aggregate[S] | None = None
    ) -> Aggregate[S] | None:
        """Fold an aggregate, from its first event."""
        found: Aggregate[S] | None = None
        for fact in self.facts:
            if fact[0] == aggregate_id:
                state = state_type.evolve(found.state if found else None, fact[1])
                seq = Seq(found.seq + 1 if found else 1)
                found = Aggregate(AggregateId(aggregate_id), seq, found.ids if found else ids_of(fact), state)
        return found

    async def read_scope(self, scope: str) -> ScopeState:
        """Give what a scope holds; its version counts the events that changed it."""
        holders = self._holders(scope)
        changes = sum(any(each.scope == scope for each in self._changes(fact)) for fact in self.facts)
        return ScopeState(len(holders), 0, changes)

    def holder_of(self, scope: str, key: str) -> str | None:
        """Give the aggregate that holds a claim."""
        return self._holders(scope).get(key)

    async def count_held(self, scope: str, aggregate_ids: Collection[str]) -> int:
        """Count the keys that these aggregates hold in a scope."""
        return sum(holder in aggregate_ids for holder in self._holders(scope).values())

    async def read_holders(self, scope: str) -> list[AggregateId]:
        """Give the aggregates that hold keys in a scope."""
        return sorted(AggregateId(holder) for holder in set(self._holders(scope).values()))

    def _holders(self, scope: str) -> dict[str, str]:
        holders: dict[str, str] = {}
        for fact in self.facts:
            for change in self._changes(fact):
                if change.scope != scope:
                    continue
                if isinstance(change, ReleaseClaims):
                    holders = {key: holder for key, holder in holders.items() if holder != fact[0]}
                else:
                    holders[change.key_of(fact[0])] = fact[0]
        return holders

    def _changes(self, fact: Fact) -> Sequence[Any]:
        return fact[1].claims_of(ids_of(self._firsts[fact[0]]))


def ids_of(fact: Fact) -> Ids:
    """Give the ids of a fact's aggregate: its ancestors', and its own where it has a column."""
    prefix = fact[0].partition("_")[0]
    family = {name: _ANCESTRY[name] for name in list(_ANCESTRY)[: _DEPTH.get(prefix, 0)]}
    own = {f"{prefix}_id": fact[0]} if f"{prefix}_id" in _ANCESTRY else {}
    said = fact[2] if len(fact) == 3 else {}
    return Ids(**{**family, **own, **said})


class Given:
    """What has happened."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self._history = History(facts)

    def when(self, *commands: Command) -> "Outcome":
        """Run the handlers of one command, or of several as a bundle."""
        count = iter(range(1, 1000))
        tx = Transaction(self._history, StateCache("epoch"), lambda prefix: minted(prefix, next(count)))
        results: list[Any] = []
        refusal = None
        try:
            for command in commands:
                result = _at_once(_HANDLERS[type(command)].handle(tx, command))
                results.append(result)
        except Refusal as refused:
            refusal = refused
        return Outcome(self._history, tx, results, refusal)


class Outcome:
    """What became of the commands."""

    def __init__(self, history: History, tx: Transaction, results: list[Any], refusal: Refusal | None) -> None:
        self._history = history
        self._tx = tx
        self._results = results
        self.refusal = refusal

    @property
    def reads(self) -> ReadSet:
        """What the decision depends on."""
        return self._tx.reads

    def then(self, *facts: Fact) -> "Outcome":
        """Expect exactly these events, in order."""
        assert self.refusal is None, f"refused: {self.refusal!r}"
        assert [(event.aggregate_id, event.event) for event in self._tx.events] == [fact[:2] for fact in facts]
        self._hold_against_the_fold(facts)
        return self

    def then_nothing(self) -> "Outcome":
        """Expect that nothing had to change."""
        return self.then()

    def then_refused(self, code: str, *, at: int = 0) -> "Outcome":
        """Expect a refusal, in a bundle of the command at that index."""
        assert self.refusal is not None, f"not refused: {self._tx.events}"
        assert (self.refusal.code, len(self._results)) == (code, at)
        assert self._tx.reads.aggregates or self._tx.reads.scopes or self._tx.taken, "nothing that could be confirmed"
        return self

    def answering(self, **result: Any) -> "Outcome":
        """Expect the last command's result."""
        assert msgspec.to_builtins(self._results[-1]) == result
        return self

    def taking(self, *keys: tuple[str, str]) -> "Outcome":
        """Expect these claims, scope and key: that nobody else holds them is the append's to see."""
        assert list(self._tx.taken) == list(keys)
        return self

    def as_appended(self) -> list[Fact] | str:
        """Give what follows at the append, which knows who holds a name: events with all ids, or a refusal's code."""
        if self.refusal is not None:
            return self.refusal.code
        for scope, key in self._tx.taken:
            holder = self._history.holder_of(scope, key)
            if holder is not None and (scope, holder) not in self._tx.freed:
                return "name_taken"
        return [(event.aggregate_id, event.event, _said(event.ids)) for event in self._tx.events]

    def _hold_against_the_fold(self, facts: Sequence[Fact]) -> None:
        afterwards = History([*self._history.facts, *facts])
        for aggregate in self._tx.changed():
            assert _at_once(afterwards.read_aggregate(type(aggregate.state), aggregate.id)) == aggregate
        for event in self._tx.events:
            before = sum(fact[0] == event.aggregate_id for fact in self._history.facts)
            assert self._tx.reads.aggregates[event.aggregate_id] == before, "written without having been read"
        for scope, state in self._tx.scopes.items():
            assert self._tx.reads.scopes[scope] == state.version
            assert _at_once(self._tx.held(scope)) == _at_once(afterwards.read_scope(scope)).held
            assert _at_once(self._tx.holders(scope)) == _at_once(afterwards.read_holders(scope))


_HANDLERS = {handler.command: handler for handler in HANDLERS.values()}


def _said(ids: Ids) -> dict[str, str]:
    return {name: value for name, value in msgspec.structs.asdict(ids).items() if value is not None}


def fact_of(envelope: Envelope) -> Fact:
    """Give an event of the log as a fact, with all its ids."""
    event = REGISTRY.decode(envelope.type, envelope.version, envelope.payload)
    return (envelope.aggregate_id, event, _said(envelope.ids))


def _at_once(waiting: Awaitable[T]) -> T:
    """Give what a coroutine returns: handlers wait for nothing but their reader, and this one never makes them."""
    try:
        next(waiting.__await__())
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the handler waits for something else than its reader")
