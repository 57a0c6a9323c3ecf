"""What a decision is, and what can become of it at the append."""

from typing import Literal, NamedTuple

import msgspec

from keelson.events import Actor, Event, Ids
from keelson.events.ids import AggregateId, Position, Seq
from keelson.events.registry import encode


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked, why, and in which connection: the same on every event of the command."""

    actor: Actor
    request_id: str
    reason: str | None = None
    correlation_id: str | None = None
    causation_id: Position | None = None
    traceparent: str | None = None


class NewEvent(msgspec.Struct, frozen=True):
    """An event that is to be appended, at the seq that follows what was read of its aggregate."""

    aggregate_id: AggregateId
    seq: Seq
    ids: Ids
    event: Event
    payload: str

    @classmethod
    def of(cls, aggregate_id: AggregateId, seq: Seq, ids: Ids, event: Event) -> "NewEvent":
        """Make one, its payload encoded: the very text that the log will keep."""
        return cls(aggregate_id, seq, ids, event, encode(event))


class TakenKey(NamedTuple):
    """A claim that a decision takes, with its event number `at`.

    It must be free by then: held by nobody, or by one whose scope the decision freed at that event or before. One that
    the decision itself frees again later is not `kept`, but must have been free all the same.
    """

    scope: str
    key: str
    aggregate_id: AggregateId
    amount: int
    at: int = 0
    kept: bool = True


class FreedScope(NamedTuple):
    """All that an aggregate holds in a scope, let go of with the decision's event number `at`."""

    scope: str
    aggregate_id: AggregateId
    at: int = 0


class Limit(NamedTuple):
    """What a scope may hold after the decision; None is no limit."""

    scope: str
    held: int | None
    amount: int | None


class Person(NamedTuple):
    """A row of the vault; without an e-mail it is erased."""

    person_id: str
    email: str | None
    name: str | None


CredentialKind = Literal["member", "principal", "node", "enrollment"]


class CredentialRow(NamedTuple):
    """A credential of the vault, by the hash of its token; without a hash it is removed.

    The holder is the aggregate whose events say whether the credential lives (the org of a member, the principal, the
    node); the actor is the member, the principal or the node that it speaks for.
    """

    credential_id: str
    hash: bytes | None
    kind: CredentialKind | None
    holder_id: str | None
    actor_id: str | None


class SecretRow(NamedTuple):
    """One version of a secret's values, sealed; without a version, all those of before the decision are erased."""

    secret_id: str
    version: int | None
    key_id: str | None
    sealed: bytes | None


class ReadSet(msgspec.Struct):
    """What a decision depended on: it holds only while none of this has moved."""

    aggregates: dict[AggregateId, Seq] = {}
    """Each with the seq it was read at; 0 if it did not exist."""
    scopes: dict[str, int] = {}
    """Claim scopes, each with the version it was read at; 0 if it had none."""
    keys: dict[tuple[str, str], AggregateId | None] = {}
    """Claim keys by scope and key, each with its holder."""
    people: dict[str, str | None] = {}
    """E-mails, each with the person whom it named. The append compares these; the confirmation does not."""


class IdempotencyKey(NamedTuple):
    """Under what an answer is kept: who asked, for which command (or the bundle), with which key."""

    actor_type: str
    actor_id: str
    name: str
    key: str


class Decision(msgspec.Struct, kw_only=True):
    """What a handler decided, ready to be appended; `answer` is kept under the key and given again on replay."""

    epoch: str
    command_id: str
    key: IdempotencyKey
    request_hash: bytes
    context: Context
    reads: ReadSet
    answer: str
    events: list[NewEvent]
    limits: list[Limit] = []
    freed: list[FreedScope] = []
    taken: list[TakenKey] = []
    people: list[Person] = []
    credentials: list[CredentialRow] = []
    secrets: list[SecretRow] = []


class Done(msgspec.Struct, frozen=True):
    """Committed, and durable. A decision without events has no first position, and the head's as its position."""

    first_position: Position | None
    position: Position


class Replayed(msgspec.Struct, frozen=True):
    """Its key was answered before: this is that answer.

    One's own command_id means that it was oneself, and only the reply was lost.
    """

    command_id: str
    first_position: Position | None
    position: Position
    answer: str


class KeyReused(msgspec.Struct, frozen=True):
    """Its key was used for another request."""


class Moved(msgspec.Struct, frozen=True):
    """Something of the read set has moved: decide again, on fresh state."""


class KeyTaken(msgspec.Struct, frozen=True):
    """Another aggregate holds a key that the decision takes."""

    scope: str
    key: str
    holder: AggregateId


class OverLimit(msgspec.Struct, frozen=True):
    """A limited scope would hold this much afterwards."""

    scope: str
    held: int
    amount: int


Outcome = Done | Replayed | KeyReused | Moved | KeyTaken | OverLimit
