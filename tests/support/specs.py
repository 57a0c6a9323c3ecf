"""Specs of the domain: given these events, when this command comes, then those events follow, or that refusal.

    given(*APP_EXISTS).when(RenameApp(app_id=APP, name="store")).then((APP, AppRenamed(name="store")))
    given(*ENV_EXISTS).when(DeleteApp(app_id=APP)).then_refused("in_use")
    given(*ORG_EXISTS).having({PERSON: "a@example.org"}).by(OPERATOR).when(command).then(...).limiting(...).people(...)

A fact is an aggregate's id and its event; whose child it is follows from the family of ids below, or is said as a third
part. Several commands are those of a bundle. What follows is held against more than it says: ids, seqs, the read set,
and the states that handlers saw, which must be those that the events fold to.
"""

from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any, NamedTuple, TypeVar

import msgspec

from keelson.access import Identity
from keelson.access.tokens import hash_token
from keelson.command.authorize import authorize
from keelson.command.handlers import Command
from keelson.command.limits import limit_that_refused, limits_of
from keelson.command.refusal import Refusal
from keelson.command.registry import HANDLERS
from keelson.command.state import Aggregate, S, StateCache
from keelson.command.transaction import Supply, Transaction
from keelson.command.vault import SealedSecret
from keelson.events import REGISTRY, Actor, Envelope, Event, Ids
from keelson.events.app import AppCreated
from keelson.events.base import Release as ReleaseClaims
from keelson.events.env import EnvCreated
from keelson.events.ids import AggregateId, Position, Seq
from keelson.events.org import OrgCreated
from keelson.events.project import ProjectCreated
from keelson.log.confirm import ScopeState
from keelson.log.decision import CredentialKind, CredentialRow, OverLimit, Person, ReadSet

T = TypeVar("T")
E = TypeVar("E", bound=Event)

Fact = tuple[str, Event] | tuple[str, Event, Mapping[str, str | None]]


def id_of(prefix: str, number: int = 1) -> AggregateId:
    """Give an id by number; those of one family have number 1."""
    return AggregateId(f"{prefix}_{number:026d}")


def minted(prefix: str, number: int = 1) -> AggregateId:
    """Give the id that the transaction mints as its first, second … one."""
    return AggregateId(f"{prefix}_7{number:025d}")


def token(number: int = 1) -> str:
    """Give the token that the transaction makes as its first, second … one."""
    return f"token-{number}"


OPERATOR = Identity(Actor("system", "operator"), "operator")
NOW = datetime(2026, 1, 1, tzinfo=UTC)

ORG, PROJECT, APP, ENV = map(id_of, ("org", "project", "app", "env"))
RELEASE, DEPLOY, ROUTE, SECRET = map(id_of, ("release", "deploy", "route", "secret"))
NODE, INSTANCE = map(id_of, ("node", "instance"))

# Under whom the aggregates of the family stand: all that come before in this order.
_ANCESTRY = {"org_id": ORG, "project_id": PROJECT, "app_id": APP, "env_id": ENV}
_DEPTH = {
    "org": 1,
    "project": 2,
    "app": 3,
    "env": 4,
    "release": 3,
    "deploy": 4,
    "route": 4,
    "instance": 4,
    "secret": 4,
    "principal": 1,
}

ORG_EXISTS: tuple[Fact, ...] = ((ORG, OrgCreated(name="acme")),)
PROJECT_EXISTS: tuple[Fact, ...] = (*ORG_EXISTS, (PROJECT, ProjectCreated(name="web")))
APP_EXISTS: tuple[Fact, ...] = (*PROJECT_EXISTS, (APP, AppCreated(name="shop")))
ENV_EXISTS: tuple[Fact, ...] = (*APP_EXISTS, (ENV, EnvCreated(name="production")))


def given(*facts: Fact) -> "Given":
    """Begin a spec with what has happened, in order."""
    return Given(facts)


class OpenSealer:
    """Seals nothing in truth: what it makes can be read, and says whose it is."""

    def seal(self, secret_id: str, version: int, values: dict[str, str]) -> tuple[str, bytes]:
        """Give the values with their place."""
        return "key", msgspec.json.encode([secret_id, version, values])

    def open(self, secret_id: str, version: int, key_id: str, sealed: bytes) -> dict[str, str]:
        """Give the values, of this place alone."""
        place = msgspec.json.decode(sealed, type=tuple[str, int, dict[str, str]])
        assert (key_id, *place[:2]) == ("key", secret_id, version)
        return place[2]

    def digest(self, secret_id: str, values: dict[str, str]) -> str:
        """Give what is equal for equal values of one secret."""
        return f"{secret_id}: {sorted(values.items())}"


class Stored(NamedTuple):
    """What is in the vault: people's e-mails, and secrets' values by their versions.

    And what facts do not say: at which positions commands end (each is one by default), and how many ids were minted.
    """

    emails: Mapping[str, str] = {}
    secrets: Mapping[tuple[str, int], dict[str, str]] = {}
    ends: Collection[int] = ()
    minted: int = 0


class History:
    """A list of facts and what the vault holds, read as transactions read them: the reader's other implementation."""

    def __init__(self, facts: Iterable[Fact], stored: Stored | None = None) -> None:
        self.facts = list(facts)
        self.stored = stored or Stored()
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
        claims = self._claims(scope)
        changes = sum(any(each.scope == scope for each in self._changes(fact)) for fact in self.facts)
        return ScopeState(len(claims), sum(amount for _, amount in claims.values()), changes)

    async def read_holder(self, scope: str, key: str) -> AggregateId | None:
        """Give the aggregate that holds a claim."""
        return self._holders(scope).get(key)

    async def read_command_end(self, position: int) -> Position | None:
        """Give the last position up to this one at which a command ends: each fact is one's, unless it is said."""
        if position > len(self.facts):
            return None
        return Position(max((end for end in self.stored.ends or range(position + 1) if end <= position), default=0))

    async def read_env(
        self, env_id: str, after: Position, until: Position, types: Sequence[str]
    ) -> list[tuple[Position, AggregateId, Event]]:
        """Give an environment's events, three at a time; a fact's position is its place."""
        found = [
            (Position(position), AggregateId(fact[0]), fact[1])
            for position, fact in enumerate(self.facts[:until], start=1)
            if position > after
            and ids_of(self._firsts[fact[0]]).env_id == env_id
            and fact[1].event_type.partition(".")[0] in types
        ]
        return found[:3]

    async def find_person(self, email: str) -> str | None:
        """Give the person who has an e-mail, in whichever case."""
        people = {each.lower(): person_id for person_id, each in self.stored.emails.items()}
        return people.get(email.lower())

    async def read_secret(self, secret_id: str, version: int) -> SealedSecret | None:
        """Give a version of a secret, as the specs seal it."""
        values = self.stored.secrets.get((secret_id, version))
        return None if values is None else SealedSecret(*OpenSealer().seal(secret_id, version, values))

    async def count_held(self, scope: str, aggregate_ids: Collection[str]) -> int:
        """Count the keys that these aggregates hold in a scope."""
        return sum(holder in aggregate_ids for holder in self._holders(scope).values())

    async def read_holders(self, scope: str) -> list[AggregateId]:
        """Give the aggregates that hold keys in a scope."""
        return sorted(AggregateId(holder) for holder in set(self._holders(scope).values()))

    def _holders(self, scope: str) -> dict[str, AggregateId]:
        return {key: AggregateId(holder) for key, (holder, _) in self._claims(scope).items()}

    def _claims(self, scope: str) -> dict[str, tuple[str, int]]:
        claims: dict[str, tuple[str, int]] = {}
        for fact in self.facts:
            for change in self._changes(fact):
                if change.scope != scope:
                    continue
                if isinstance(change, ReleaseClaims):
                    claims = {key: claim for key, claim in claims.items() if claim[0] != fact[0]}
                else:
                    claims[change.key_of(fact[0])] = (fact[0], change.amount)
        return claims

    def _changes(self, fact: Fact) -> Sequence[Any]:
        return fact[1].claims_of(ids_of(self._firsts[fact[0]]))


def ids_of(fact: Fact) -> Ids:
    """Give the ids of a fact's aggregate: its ancestors', and its own where it has a column."""
    prefix = fact[0].partition("_")[0]
    family = {name: _ANCESTRY[name] for name in list(_ANCESTRY)[: _DEPTH.get(prefix, 0)]}
    own = {f"{prefix}_id": fact[0]} if f"{prefix}_id" in (*_ANCESTRY, "node_id") else {}
    if prefix == "instance":
        own = {"node_id": NODE}
    said = fact[2] if len(fact) == 3 else {}
    return Ids(**{**family, **own, **said})


class Given:
    """What has happened, what the vault holds, who asks, and when."""

    def __init__(
        self, facts: Sequence[Fact], stored: Stored | None = None, identity: Identity = OPERATOR, now: datetime = NOW
    ) -> None:
        self._facts = facts
        self._stored = stored or Stored()
        self._identity = identity
        self._now = now

    def by(self, identity: Identity) -> "Given":
        """Let somebody else ask than the operator."""
        return Given(self._facts, self._stored, identity, self._now)

    def at(self, now: datetime) -> "Given":
        """Let it be asked then."""
        return Given(self._facts, self._stored, self._identity, now)

    def having(
        self,
        emails: Mapping[str, str] | None = None,
        secrets: Mapping[tuple[str, int], dict[str, str]] | None = None,
        ends: Collection[int] = (),
        minted: int = 0,
    ) -> "Given":
        """Let the vault hold people's e-mails, by their ids, and secrets' values, by their ids and versions.

        `ends` are the positions at which commands end; `minted` is how many ids were given already.
        """
        values = {**self._stored.secrets, **(secrets or {})}
        stored = Stored({**self._stored.emails, **(emails or {})}, values, ends, minted)
        return Given(self._facts, stored, self._identity, self._now)

    def when(self, *commands: Command) -> "Outcome":
        """Run the handlers of one command, or of several as a bundle."""
        history = History(self._facts, self._stored)
        ids, tokens = count(self._stored.minted + 1), count(1)
        supply = Supply(lambda prefix: minted(prefix, next(ids)), lambda: token(next(tokens)), OpenSealer())
        tx = Transaction(history, StateCache("epoch"), supply, identity=self._identity, now=self._now)
        results: list[tuple[Any, int]] = []
        refusal = None
        try:
            for tx.command_index, command in enumerate(commands):
                before = len(tx.events)
                handler = _HANDLERS[type(command)]
                _at_once(authorize(tx, handler, command))
                result = _at_once(handler.handle(tx, command))
                results.append((result, len(tx.events) - before))
            assert tx.events or not tx.vault.is_changed, "the vault changes, and no event says so"
            _refuse_over_limits(history, tx, results)
        except Refusal as refused:
            refusal = refused
        return Outcome(history, tx, [result for result, _ in results], refusal)


def _refuse_over_limits(history: History, tx: Transaction, results: list[tuple[Any, int]]) -> None:
    """Refuse as the append does for what a scope would hold. Raises Refusal; only what came before stays in results.

    Whose keys others hold is refused for that.
    """
    if _takes_what_others_hold(history, tx):
        return
    afterwards = History([*history.facts, *_facts(tx)])
    for scope, held, amount in limits_of(tx, results):
        state = _at_once(afterwards.read_scope(scope))
        if (held is not None and state.held > held) or (amount is not None and state.amount > amount):
            over = limit_that_refused(tx, results, OverLimit(scope, state.held, state.amount))
            del results[over.command_index :]
            raise over.refusal


def _takes_what_others_hold(history: History, tx: Transaction) -> bool:
    for scope, key in tx.taken:
        holder = _at_once(history.read_holder(scope, key))
        if holder is not None and (scope, holder) not in tx.freed:
            return True
    return False


def _facts(tx: Transaction) -> list[Fact]:
    return [(event.aggregate_id, event.event, _said(event.ids)) for event in tx.events]


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

    @property
    def results(self) -> list[Any]:
        """What the commands gave."""
        return self._results

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """The reasons of a refusal that has several: pointer and words."""
        return [(each.pointer, each.detail) for each in self.refusal.reasons] if self.refusal else []

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
        reads = self._tx.reads
        assert reads.aggregates or reads.scopes or reads.keys or self._tx.taken or self._tx.limits, (
            "nothing that could be confirmed"
        )
        return self

    def answering(self, **result: Any) -> "Outcome":
        """Expect the last command's result."""
        assert msgspec.to_builtins(self._results[-1]) == result
        return self

    def last_event(self, event_type: type[E]) -> E:
        """Give the last event, which must be of this type."""
        event = self._tx.events[-1].event
        assert isinstance(event, event_type)
        return event

    def taking(self, *keys: tuple[str, str]) -> "Outcome":
        """Expect these claims, scope and key: that nobody else holds them is the append's to see."""
        assert list(self._tx.taken) == list(keys)
        return self

    def limiting(self, *limits: tuple[str, int | None, int | None]) -> "Outcome":
        """Expect these limits: the scope, how many keys it may hold, and how much."""
        assert [tuple(each.limit) for each in self._tx.limits] == list(limits)
        return self

    def people(self, *people: Person) -> "Outcome":
        """Expect these changes of people in the vault."""
        assert self._tx.vault.people == list(people)
        return self

    def credentials(self, *credentials: CredentialRow) -> "Outcome":
        """Expect these changes of credentials in the vault, as `issued` and `revoked` give them."""
        assert self._tx.vault.credentials == list(credentials)
        return self

    def secrets(self, *secrets: tuple[str, int | None, dict[str, str] | None]) -> "Outcome":
        """Expect these changes of secrets in the vault: id, version and values; None twice where all are erased."""
        assert self.vaulted == list(secrets)
        return self

    @property
    def vaulted(self) -> list[tuple[str, int | None, dict[str, str] | None]]:
        """What changes of secrets in the vault: id, version and values; None twice where all are erased."""
        return [
            (
                row.secret_id,
                row.version,
                None
                if row.sealed is None
                else OpenSealer().open(row.secret_id, row.version or 0, row.key_id or "", row.sealed),
            )
            for row in self._tx.vault.secrets
        ]

    def as_appended(self) -> list[Fact] | str:
        """Give what follows at the append, which knows who holds a name: events with all ids, or a refusal's code."""
        if self.refusal is not None:
            return self.refusal.code
        return "name_taken" if _takes_what_others_hold(self._history, self._tx) else _facts(self._tx)

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


def issued(number: int, credential_id: str, kind: CredentialKind, holder_id: str, actor_id: str) -> CredentialRow:
    """Give what is written of the transaction's first, second … token."""
    return CredentialRow(credential_id, hash_token(token(number)), kind, holder_id, actor_id)


def revoked(credential_id: str) -> CredentialRow:
    """Give what removes a credential."""
    return CredentialRow(credential_id, None, None, None, None)


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
