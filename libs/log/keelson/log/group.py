"""Append groups: which decisions may share one, and how a group becomes the append function's arguments."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from keelson.events.ids import AggregateId, Position
from keelson.log.decision import Decision, Done, KeyReused, KeyTaken, Moved, Outcome, OverLimit, Replayed

MAX_DECISIONS = 256
MAX_BYTES = 8 * 1024 * 1024


class Group:
    """Decisions that do not depend on one another, so that they can be checked and appended as one set."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self._bytes = 0
        self._read: set[AggregateId] = set()
        self._written: set[AggregateId] = set()
        self._keys: set[tuple[str, ...]] = set()
        self._claims: set[tuple[str, str]] = set()
        self._scopes_read: set[str] = set()
        self._scopes_changed: set[str] = set()

    def admit(self, decision: Decision) -> bool:
        """Take a decision in, unless the group is full or the decision depends on one that is in it."""
        touched = _Touched(decision)
        if self.is_full or self._overflows(touched) or self._depends(touched):
            return False
        self.decisions.append(decision)
        self._bytes += touched.size
        self._read |= touched.read
        self._written |= touched.written
        self._keys.add(decision.key)
        self._claims |= touched.claims
        self._scopes_read |= touched.scopes_read
        self._scopes_changed |= touched.scopes_changed
        return True

    @property
    def is_full(self) -> bool:
        """Whether no decision can join any more."""
        return len(self.decisions) >= MAX_DECISIONS

    def _overflows(self, touched: "_Touched") -> bool:
        return bool(self.decisions) and self._bytes + touched.size > MAX_BYTES

    def _depends(self, touched: "_Touched") -> bool:
        return not (
            touched.key not in self._keys
            and self._written.isdisjoint(touched.read)
            and self._written.isdisjoint(touched.written)
            and self._read.isdisjoint(touched.written)
            and self._claims.isdisjoint(touched.claims)
            and self._scopes_changed.isdisjoint(touched.scopes_read)
            and self._scopes_read.isdisjoint(touched.scopes_changed)
        )


class _Touched:
    """What a decision reads and changes, as sets."""

    def __init__(self, decision: Decision) -> None:
        self.key = decision.key
        self.size = sum(len(event.payload.encode()) for event in decision.events)
        self.size += sum(len(secret.sealed or b"") for secret in decision.secrets)
        self.read = set(decision.reads.aggregates)
        self.written = {event.aggregate_id for event in decision.events}
        self.claims = {(taken.scope, taken.key) for taken in decision.taken}
        if decision.people or decision.reads.people:
            self.claims |= _people_touched(decision)
        self.scopes_read = {
            *decision.reads.scopes,
            *(scope for scope, _ in decision.reads.keys),
            *(limit.scope for limit in decision.limits),
        }
        self.scopes_changed = {taken.scope for taken in decision.taken} | {freed.scope for freed in decision.freed}


def _people_touched(decision: Decision) -> set[tuple[str, str]]:
    """Name the people and the e-mails that a decision keeps, erases or looked up, as claims: each is for one alone."""
    people: list[tuple[str | None, str | None]] = [(person.person_id, person.email) for person in decision.people]
    people += [(person_id, email) for email, person_id in decision.reads.people.items()]
    persons = {("vault.people", person_id) for person_id, _ in people if person_id is not None}
    return persons | {("vault.people.email", email.lower()) for _, email in people if email is not None}


# Between the values of a column that goes as one text: asyncpg takes half a microsecond to encode an element of an
# array, which was half of what an append cost this side. No id, name, key or JSON has it; free text may, and goes as an
# array.
SEPARATOR = "\n"

# How a column goes to the server, as sql/append.sql takes it.
_Encode = Callable[[tuple[Any, ...]], Any]


def _texts(column: tuple[str, ...]) -> str:
    """Join texts. Raises ValueError for one that would not come out of it again."""
    joined = SEPARATOR.join(column)
    if joined.count(SEPARATOR) != len(column) - 1 or "" in column:
        raise ValueError("a text is empty, or holds a line feed, where the log allows neither")
    return joined


def _numbers(column: tuple[int, ...]) -> str:
    return SEPARATOR.join(map(str, column))


def _or_nulls(column: tuple[str | int | None, ...]) -> str:
    """Join texts or numbers; a null is an empty one."""
    if column == (None,) * len(column):
        return ""  # an empty array: the function's unnest fills it up with nulls
    texts = tuple([str(value) for value in column if value is not None])
    _texts(texts)
    return SEPARATOR.join(["" if value is None else str(value) for value in column])


def _array(column: tuple[Any, ...]) -> Sequence[Any]:
    return () if column == (None,) * len(column) else column


_DECISIONS: tuple[_Encode, ...] = (*(_texts,) * 5, _array, _texts, _numbers)
_READS: tuple[_Encode, ...] = (_numbers, _texts, _numbers)
_KEYS: tuple[_Encode, ...] = (_numbers, _texts, _texts, _or_nulls)
_LIMITS: tuple[_Encode, ...] = (_numbers, _texts, _or_nulls, _or_nulls)
_FREED: tuple[_Encode, ...] = (_numbers, _texts, _texts, _numbers)
_TAKEN: tuple[_Encode, ...] = (_numbers, _texts, _texts, _texts, _numbers, _numbers, _numbers)
_EVENTS: tuple[_Encode, ...] = (
    *(_numbers, _texts, _numbers, _texts, _numbers),  # the decision; aggregate, seq, type, version
    *(_or_nulls,) * 5,  # the ids of ancestors
    *(_texts, _texts, _array, _texts, _or_nulls, _or_nulls, _or_nulls),  # actor, reason, request … traceparent
    *(_texts, _numbers, _texts),  # command, its end, payload
)
_PEOPLE: tuple[_Encode, ...] = (_numbers, _texts, _array, _array)
_PEOPLE_READ: tuple[_Encode, ...] = (_numbers, _array, _or_nulls)
_CREDENTIALS: tuple[_Encode, ...] = (_numbers, _texts, _array, _or_nulls, _or_nulls, _or_nulls)
_SECRETS: tuple[_Encode, ...] = (_numbers, _texts, _or_nulls, _or_nulls, _array)


def _columns(rows: list[tuple[Any, ...]], encodings: tuple[_Encode, ...]) -> list[Any]:
    """Turn rows into columns as the server takes them; each is there also where there is no row."""
    if not rows:
        return [() if encode is _array else "" for encode in encodings]
    return [encode(column) for encode, column in zip(encodings, zip(*rows, strict=True), strict=True)]


def arguments(epoch: str, decisions: list[Decision]) -> list[Any]:
    """Give the arguments of sql/append.sql: what log.append_v2 takes, in its order. Raises ValueError."""
    numbered = list(enumerate(decisions, start=1))
    tables: list[tuple[tuple[_Encode, ...], list[tuple[Any, ...]]]] = [
        (_DECISIONS, [(d.command_id, *d.key, d.request_hash, d.answer, len(d.events)) for d in decisions]),
        (_READS, [(n, *read) for n, d in numbered for read in d.reads.aggregates.items()]),
        (_READS, [(n, *read) for n, d in numbered for read in d.reads.scopes.items()]),
        (_KEYS, [(n, *key, holder) for n, d in numbered for key, holder in d.reads.keys.items()]),
        (_LIMITS, [(n, *limit) for n, d in numbered for limit in d.limits]),
        (_FREED, [(n, *freed) for n, d in numbered for freed in d.freed]),
        (_TAKEN, [(n, *taken) for n, d in numbered for taken in d.taken]),
        (_EVENTS, [row for n, d in numbered for row in _event_rows(n, d)]),
        (_PEOPLE, [(n, *person) for n, d in numbered for person in d.people]),
        (_PEOPLE_READ, [(n, *read) for n, d in numbered for read in d.reads.people.items()]),
        (_CREDENTIALS, [(n, *credential) for n, d in numbered for credential in d.credentials]),
        (_SECRETS, [(n, *secret) for n, d in numbered for secret in d.secrets]),
    ]
    return [epoch, *(column for encodings, rows in tables for column in _columns(rows, encodings))]


def _event_rows(number: int, decision: Decision) -> Iterable[tuple[Any, ...]]:
    context = decision.context
    last = len(decision.events) - 1
    for index, event in enumerate(decision.events):
        ids = event.ids
        yield (
            number,
            event.aggregate_id,
            event.seq,
            event.event.event_type,
            event.event.event_version,
            ids.org_id,
            ids.project_id,
            ids.app_id,
            ids.env_id,
            ids.node_id,
            context.actor.type,
            context.actor.id,
            context.reason,
            context.request_id,
            context.correlation_id,
            context.causation_id,
            context.traceparent,
            decision.command_id,
            index == last,
            event.payload,
        )


def outcomes(decisions: list[Decision], rows: Iterable[Any]) -> list[Outcome]:
    """Read what the append function returned: one outcome per decision, in their order.

    The function names only what was not done; the done ones have the positions after the head's, in order.
    """
    settled: dict[int, Outcome] = {}
    position = 0
    for row in rows:
        if row["decision"] == 0:
            position = row["last_position"]
        else:
            settled.setdefault(row["decision"], _settled(row))
    result: list[Outcome] = []
    head = position
    for number, decision in enumerate(decisions, start=1):
        if number in settled:
            result.append(settled[number])
        elif decision.events:
            result.append(Done(Position(position + 1), Position(position + len(decision.events))))
            position += len(decision.events)
        else:
            result.append(Done(None, Position(head)))
    return result


def _settled(row: Any) -> Outcome:
    match row["outcome"]:
        case "replayed":
            return Replayed(row["command_id"], row["first_position"], row["last_position"], row["detail"])
        case "key_reused":
            return KeyReused()
        case "moved":
            return Moved()
        case "taken":
            return msgspec.json.decode(row["detail"], type=KeyTaken)
        case "over_limit":
            return msgspec.json.decode(row["detail"], type=OverLimit)
        case unknown:
            raise AssertionError(f"the append function answered {unknown!r}")
