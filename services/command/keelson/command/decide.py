"""Deciding: handlers run on what is warm, and nothing that they say is answered before the log has confirmed it."""

import asyncio
import secrets
from typing import NamedTuple, assert_never

import msgspec
from typing_extensions import TypeIs

from keelson.command import metrics
from keelson.command.answers import (
    Results,
    answer_again,
    answer_appended,
    answer_unchanged,
    command_that_took,
    keep_results,
)
from keelson.command.authorize import authorize
from keelson.command.limits import limit_that_refused, limits_of
from keelson.command.reader import LogReader
from keelson.command.refusal import Denial, Refusal, name_taken
from keelson.command.state import StateCache
from keelson.command.submission import Answer, Part, Submission, request_hash
from keelson.command.transaction import Supply, Transaction
from keelson.command.turns import Turns
from keelson.events.ids import AggregateId, Position
from keelson.log.append import Appender
from keelson.log.confirm import KnownKey, ScopeState, confirm
from keelson.log.database import Pool
from keelson.log.decision import (
    Decision,
    Done,
    IdempotencyKey,
    KeyReused,
    KeyTaken,
    Moved,
    Outcome,
    OverLimit,
    ReadSet,
    Replayed,
)
from keelson.log.group import MAX_BYTES
from keelson.log.read import read_page

# Within a process turns avoid lost races, so these are lost to other replicas only. Who gave up its turn after each
# would lose most of them, one in six won with two replicas and 32 callers on one aggregate; so a turn has several.
MAX_ATTEMPTS = 20
TRIES_A_TURN = 5


class _Asked(NamedTuple):
    """A submission with its identity: its key and keyed hash are the same however often it must be decided."""

    submission: Submission
    key: IdempotencyKey
    request_hash: bytes


class Decided(NamedTuple):
    """What the handlers made of a submission: each part's result and the number of its events."""

    tx: Transaction
    results: Results


class Refused(NamedTuple):
    """What a handler refused, and on what it did."""

    tx: Transaction
    refusal: Refusal


class Decider:
    """Turns submissions into answers, any number at a time."""

    def __init__(
        self, pool: Pool, appender: Appender, cache: StateCache, *, supply: Supply, secret: bytes, timeout_s: float
    ) -> None:
        self._pool = pool
        self._appender = appender
        self._cache = cache
        self._reader = LogReader(pool)
        self._supply = supply
        self._secret = secret
        self._timeout_s = timeout_s
        self._turns = Turns()

    async def decide(self, submission: Submission) -> Answer:
        """Give what became of a submission, as the log has it.

        Raises Refusal, confirmed; AppendUnavailableError or TimeoutError when the outcome could not be learnt in time.
        """
        async with asyncio.timeout(self._timeout_s):
            asked = self._identify(submission)
            for attempt in range(MAX_ATTEMPTS):
                if attempt:
                    metrics.RERUN_ELSEWHERE.inc()
                answer = await self._attempt(asked)
                if answer is not None:
                    return answer
        tries = MAX_ATTEMPTS * TRIES_A_TURN
        raise Refusal("concurrent_change", f"others changed the same thing {tries} times in a row")

    def _identify(self, submission: Submission) -> _Asked:
        """Name the request; without a key of the client's one is made up: a lost reply can then be asked for (F6)."""
        if submission.key is None:
            return _Asked(submission, _key_of(submission, secrets.token_hex(16)), b"")
        return _Asked(submission, _key_of(submission, submission.key), request_hash(self._secret, submission))

    async def _attempt(self, asked: _Asked) -> Answer | None:
        """Decide for one turn; None if the ground moved each time and it must be decided in another turn."""
        outcome = await self._run(asked.submission)
        async with self._turns.of(_contended(outcome.tx)):
            if self._is_stale(outcome.tx):
                # Somebody of this process was first. It is this one's turn now: decide on what that one left.
                metrics.RERUN_HERE.inc()
                outcome = await self._run(asked.submission)
            answer = await self._conclude(asked, outcome)
            for _ in range(TRIES_A_TURN - 1):
                if answer is not None:
                    break
                # Another replica was first. It is busy with its answer now: who decides again at once is first next.
                metrics.RERUN_ELSEWHERE.inc()
                answer = await self._conclude(asked, await self._run(asked.submission))
        return answer

    async def _conclude(self, asked: _Asked, outcome: Decided | Refused) -> Answer | None:
        """Answer what was decided, if it holds; None if the ground has moved meanwhile.

        Whatever the handlers say, the append and the confirmation look the key up before they look at anything else: a
        repeated delete finds its answer, and not that there is nothing to delete (F14a).
        """
        if _appends(outcome, asked.submission):
            return await self._append(asked, outcome)
        return await self._confirm(asked, outcome)

    async def _run(self, submission: Submission) -> Decided | Refused:
        tx = Transaction(
            self._reader, self._cache, self._supply, identity=submission.identity, now=submission.received_at
        )
        results: Results = []
        for index, part in enumerate(submission.parts):
            tx.command_index = index
            before = len(tx.events)
            try:
                result = await _run_part(tx, part)
            except Refusal as refusal:
                refusal.command_index = index
                return Refused(tx, refusal)
            results.append((result, len(tx.events) - before))
        if sum(len(event.payload) for event in tx.events) > MAX_BYTES:
            return Refused(tx, Refusal("too_large", f"Its events would hold more than {MAX_BYTES} bytes"))
        if tx.vault.is_changed and not tx.events:
            raise AssertionError(f"{submission.name} changes the vault and says so in no event")
        return Decided(tx, results)

    async def _confirm(self, asked: _Asked, outcome: Decided | Refused) -> Answer | None:
        """Answer what appends nothing, if it still holds; an answer that was kept under the key comes first.

        But not before a denial: who may not send the command any more is not told what it answered.
        """
        tx = outcome.tx
        confirmation = await confirm(self._pool, asked.key, tx.reads)
        denied = isinstance(outcome, Refused) and isinstance(outcome.refusal, Denial)
        if confirmation.known_key is not None and not denied:
            return await self._known(asked, tx, confirmation.epoch, confirmation.known_key)
        if confirmation.epoch != tx.epoch:
            self._appender.enter_epoch(confirmation.epoch)
            return None
        if confirmation.moved:
            self._doubt(tx)
            return None
        if isinstance(outcome, Refused):
            raise outcome.refusal
        return answer_unchanged(outcome.results, confirmation.epoch, confirmation.position)

    async def _append(self, asked: _Asked, decided: Decided) -> Answer | None:
        decision = self._decision(asked, decided)
        outcome = await self._appender.append(decision, self._timeout_s)
        metrics.decision_settled(outcome, len(decision.events))
        return await self._settle(decided, decision, outcome)

    def _decision(self, asked: _Asked, decided: Decided) -> Decision:
        tx = decided.tx
        return Decision(
            epoch=tx.epoch,
            command_id=self._supply.mint("command"),
            key=asked.key,
            request_hash=asked.request_hash,
            context=asked.submission.context,
            reads=tx.reads,
            answer=keep_results(decided.results),
            events=tx.events,
            limits=limits_of(tx, decided.results),
            freed=list(tx.freed.values()),
            taken=[*tx.taken.values(), *tx.passing],
            people=tx.vault.people,
            credentials=tx.vault.credentials,
            secrets=tx.vault.secrets,
        )

    async def _settle(self, decided: Decided, decision: Decision, outcome: Outcome) -> Answer | None:
        match outcome:
            case Done(first_position=first, position=position):
                self._keep(decided.tx)
                return answer_appended(decided.tx, decided.results, decision.epoch, first, position)
            case Replayed(command_id=command_id, first_position=first, position=position) if (
                command_id == decision.command_id  # it was this very decision, and only the reply was lost
            ):
                return answer_appended(decided.tx, decided.results, decision.epoch, first, position)
            case Replayed():
                return await self._replay(decided.tx, decision.epoch, outcome)
            case KeyReused():
                raise _key_reused()
            case Moved():
                self._doubt(decided.tx)
                return None
            case KeyTaken(scope=scope, key=key):
                refusal = name_taken(key)
                refusal.command_index = command_that_took(decided.tx, decided.results, scope, key)
                raise refusal
            case OverLimit():
                over = limit_that_refused(decided.tx, decided.results, outcome)
                over.refusal.command_index = over.command_index
                raise over.refusal
            case _:
                assert_never(outcome)

    async def _known(self, asked: _Asked, tx: Transaction, epoch: str, known: KnownKey) -> Answer | None:
        """Give the answer that is kept under the request's key. Raises Refusal if the key is another request's."""
        if known.request_hash != asked.request_hash:
            raise _key_reused()
        return await self._replay(tx, epoch, known.replayed)

    async def _replay(self, tx: Transaction, epoch: str, replayed: Replayed) -> Answer | None:
        """Give an answer as it was given first: its results were kept, its events are in the log.

        None if what grants its sender anything has moved since it was read: keys are looked up before read sets are
        compared, and whoever was revoked meanwhile is told nothing (F15).
        """
        if await self._has_moved(tx, tx.identity.holder_id):
            return None
        page = None
        if replayed.first_position is not None:
            after = Position(replayed.first_position - 1)
            page = await read_page(self._pool, after, replayed.position - after)
        return answer_again(replayed, epoch, page)

    async def _has_moved(self, tx: Transaction, aggregate_id: AggregateId) -> bool:
        """Whether an aggregate that was read is not as it was; it is doubted then. One round trip if it was read."""
        if aggregate_id not in tx.reads.aggregates:
            return False
        reads = ReadSet(aggregates={aggregate_id: tx.reads.aggregates[aggregate_id]})
        moved = (await confirm(self._pool, None, reads)).moved
        if moved:
            self._cache.doubt([aggregate_id])
        return moved

    def _is_stale(self, tx: Transaction) -> bool:
        """Whether this process itself knows better by now than the transaction did."""
        warm = ((self._cache.read(name), seq) for name, seq in tx.reads.aggregates.items())
        scopes = ((self._cache.read_scope(name), version) for name, version in tx.reads.scopes.items())
        return any(found is not None and found.seq != seq for found, seq in warm) or any(
            found is not None and found.version != version for found, version in scopes
        )

    def _keep(self, tx: Transaction) -> None:
        """Keep what the append has just made true."""
        for aggregate in tx.changed():
            self._cache.keep(aggregate, tx.epoch)
        freed = {scope for scope, _ in tx.freed}
        self._cache.doubt(freed)
        for scope, state in tx.scopes.items():
            taken = [taken.amount for taken in tx.taken.values() if taken.scope == scope]
            if taken and scope not in freed:
                after = ScopeState(state.held + len(taken), state.amount + sum(taken), state.version + 1)
                self._cache.keep_scope(scope, after, tx.epoch)

    def _doubt(self, tx: Transaction) -> None:
        self._cache.doubt(tx.reads.aggregates)
        self._cache.doubt(tx.reads.scopes)


async def _run_part(tx: Transaction, part: Part) -> msgspec.Struct:
    """Run one command's handler; If-Match is held against its target as the handler found it."""
    before = len(tx.events)
    await authorize(tx, part.handler, part.command)
    try:
        result = await part.handler.handle(tx, part.command)
    except Refusal as refusal:
        if refusal.code != "not_found":
            _require_match(tx, part, before)
        raise
    _require_match(tx, part, before)
    return result


def _require_match(tx: Transaction, part: Part, before: int) -> None:
    if part.if_match is None or part.handler.target is None:
        return
    target: str = getattr(part.command, part.handler.target)
    seq = tx.seq_before(target, before)
    if seq is not None and seq != part.if_match:
        raise Refusal("seq_mismatch", f"{target} is at seq {seq}, not {part.if_match}")


def _appends(outcome: Decided | Refused, submission: Submission) -> TypeIs[Decided]:
    """Whether something is to be written: events, or an answer under the client's key."""
    return isinstance(outcome, Decided) and (bool(outcome.tx.events) or submission.key is not None)


def _contended(tx: Transaction) -> set[str]:
    """Name what other decisions might change at the same time: existing aggregates, and scopes read and changed."""
    changed = {event.aggregate_id for event in tx.events if tx.reads.aggregates[event.aggregate_id]}
    scopes = {taken.scope for taken in tx.taken.values()} | {scope for scope, _ in tx.freed}
    return changed | (scopes & tx.reads.scopes.keys())


def _key_of(submission: Submission, key: str) -> IdempotencyKey:
    actor = submission.context.actor
    return IdempotencyKey(actor.type, actor.id, submission.name, key)


def _key_reused() -> Refusal:
    return Refusal("idempotency_key_reuse", "this key was used for another request")
