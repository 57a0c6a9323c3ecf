"""Decisions to append, made without the command service: what a handler would have decided, or what it never would."""

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from keelson.events import Actor, Event, Ids, Release
from keelson.events.app import AppCreated
from keelson.events.ids import AggregateId, Position, Seq
from keelson.events.org import OrgCreated
from keelson.log.decision import (
    Context,
    CredentialRow,
    Decision,
    Done,
    FreedScope,
    IdempotencyKey,
    Limit,
    NewEvent,
    Person,
    ReadSet,
    SecretRow,
    TakenKey,
)

PROJECT = "project_" + "0" * 26
OPERATOR = Actor("system", "operator")
_numbers = count(1)


def made_id(prefix: str, number: int | None = None) -> AggregateId:
    """Give the id of this number: the same for the same, a new one for None."""
    return AggregateId(f"{prefix}_{next(_numbers) if number is None else number:026d}")


def an_event(aggregate_id: str, seq: int, event: Event, **ids: str) -> NewEvent:
    """Make an event to append; the aggregate's own id joins its ancestors'."""
    column = f"{aggregate_id.partition('_')[0]}_id"
    own = {column: aggregate_id} if column in Ids.__struct_fields__ else {}
    return NewEvent.of(AggregateId(aggregate_id), Seq(seq), Ids(**{**own, **ids}), event)


def an_app(name: str | None = None, project_id: str = PROJECT, app_id: str | None = None) -> NewEvent:
    """Make the first event of an app, of a name nobody has unless told otherwise."""
    own_id = app_id or made_id("app")
    return an_event(own_id, 1, AppCreated(name=name or own_id), project_id=project_id)


def done(first: int, last: int | None = None) -> Done:
    """Say that a decision's events stand at these positions."""
    return Done(Position(first), Position(last or first))


def decide(
    epoch: str,
    *events: NewEvent,
    reads: Mapping[AggregateId, int] | None = None,
    scopes: dict[str, int] | None = None,
    keys: Mapping[tuple[str, str], AggregateId | None] | None = None,
    limits: Sequence[Limit] = (),
    freed: Sequence[FreedScope] = (),
    taken: Sequence[TakenKey] = (),
    people: Sequence[Person] = (),
    looked_up: Mapping[str, str | None] | None = None,
    credentials: Sequence[CredentialRow] = (),
    secrets: Sequence[SecretRow] = (),
    key: str | None = None,
    actor: Actor = OPERATOR,
    name: str = "test.command",
    request_hash: bytes = b"hash",
    answer: str = "{}",
    context: Context | None = None,
) -> Decision:
    """Decide these events: every aggregate read at the seq before its first, every claim as the events say.

    `reads`, `freed` and `taken` come on top of that; `looked_up` are e-mails with whom each named.
    """
    command_id = made_id("command")
    firsts: dict[AggregateId, int] = {event.aggregate_id: event.seq - 1 for event in reversed(events)}
    claims_freed, claims_taken = _claims_of(events)
    return Decision(
        epoch=epoch,
        command_id=command_id,
        key=IdempotencyKey(actor.type, actor.id, name, key or command_id),
        request_hash=request_hash,
        context=context or Context(actor=actor, request_id="request"),
        reads=ReadSet(
            aggregates={each: Seq(seq) for each, seq in {**firsts, **(reads or {})}.items()},
            scopes=scopes or {},
            keys=dict(keys or {}),
            people=dict(looked_up or {}),
        ),
        answer=answer,
        events=list(events),
        limits=list(limits),
        freed=[*claims_freed, *freed],
        taken=[*claims_taken, *taken],
        people=list(people),
        credentials=list(credentials),
        secrets=list(secrets),
    )


def _claims_of(events: Sequence[NewEvent]) -> tuple[list[FreedScope], list[TakenKey]]:
    """Give what events free and take, for events that each name another scope or aggregate."""
    freed: list[FreedScope] = []
    taken: list[TakenKey] = []
    for event in events:
        for change in event.event.claims_of(event.ids):
            if isinstance(change, Release):
                freed.append(FreedScope(change.scope, event.aggregate_id))
            else:
                taken.append(
                    TakenKey(change.scope, change.key_of(event.aggregate_id), event.aggregate_id, change.amount)
                )
    return freed, taken


def _kinds() -> dict[str, Callable[[str], tuple[Decision, Decision]]]:
    """Give each way in which two decisions can depend on one another, both orders alike."""
    aggregate, other = made_id("org"), made_id("app")
    renamed = an_event(aggregate, 1, OrgCreated(name="name"))
    take = TakenKey("scope", "key", other, 1)
    ada = Person("person_a", "a@example.org", None)

    def pair(first: dict[str, Any], second: dict[str, Any]) -> Callable[[str], tuple[Decision, Decision]]:
        def decisions(epoch: str) -> tuple[Decision, Decision]:
            one, two = dict(first), dict(second)
            return decide(epoch, *one.pop("events", ()), **one), decide(epoch, *two.pop("events", ()), **two)

        return decisions

    return {
        "one writes what the other reads": pair({"events": [renamed]}, {"reads": {aggregate: 0}}),
        "both write one aggregate": pair(
            {"events": [renamed]}, {"events": [an_event(aggregate, 1, OrgCreated(name="another"))]}
        ),
        "both take one claim key": pair({"taken": [take]}, {"taken": [take._replace(aggregate_id=made_id("app"))]}),
        "one takes in a scope that the other read": pair({"taken": [take]}, {"scopes": {"scope": 0}}),
        "one frees in a scope that the other read": pair(
            {"freed": [FreedScope("scope", other)]}, {"scopes": {"scope": 0}}
        ),
        "one takes in a scope that the other limits": pair({"taken": [take]}, {"limits": [Limit("scope", 1, None)]}),
        "one frees in a scope that the other limits": pair(
            {"freed": [FreedScope("scope", other)]}, {"limits": [Limit("scope", 1, None)]}
        ),
        "one takes in a scope whose key the other read": pair({"taken": [take]}, {"keys": {("scope", "key"): None}}),
        "one frees in a scope whose key the other read": pair(
            {"freed": [FreedScope("scope", other)]}, {"keys": {("scope", "key"): None}}
        ),
        "both keep one person": pair({"people": [ada]}, {"people": [ada._replace(email="b@example.org")]}),
        "both keep one e-mail, in whichever case": pair(
            {"people": [ada]}, {"people": [Person("person_b", "A@EXAMPLE.org", None)]}
        ),
        "one keeps an e-mail that the other looked up": pair({"people": [ada]}, {"looked_up": {"A@example.org": None}}),
        "one erases whom the other found": pair(
            {"people": [Person("person_a", None, None)]}, {"looked_up": {"a@example.org": "person_a"}}
        ),
        "both have one idempotency key": pair({"key": "key"}, {"key": "key"}),
    }


DEPENDENT = _kinds()
