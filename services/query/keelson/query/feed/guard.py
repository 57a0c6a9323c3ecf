"""The guard: streams of credentials that are not good any more end, before they are told anything else (F34).

The log says when a credential may have changed: an event of the aggregate that holds it. The hub shows every event here
before it wakes anybody; from then on the credential is doubted, and its streams say nothing, until the vault and the
log have been asked anew. Who connects is asked about once more, after its watch has begun: what authenticated it may be
almost a second old. That is no doubt: it holds back nobody else, and ends nobody else if it is not answered.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress

import msgspec
import structlog

from keelson.events import Envelope
from keelson.query.feed.watches import Credential, Watch
from keelson.service.authentication import Authenticator
from keelson.service.credentials import Caller

# A doubt that cannot be settled ends the streams that it is about: nobody knows whether they may go on.
MAX_DOUBT_S = 0.8
# Who connects waits for its turn no longer, however many come at once.
MAX_CONFIRMING_S = 5.0
RETRY_S = 0.1
# What no event tells of is found by asking about everybody, one after the other, this often.
ROUND_S = 30.0
# How many questions are asked of the database at once: because of doubts, and as many for who connects.
QUESTIONS = 4
# An expiry is asked about just after it.
_AFTER_EXPIRY_S = 0.02
# What is further away is looked at again then: event loops bound their timers, and clocks are set meanwhile.
LONGEST_TIMER_S = 24 * 3600.0

_log = structlog.get_logger()


class _Concerned(msgspec.Struct):
    """What events of an organisation say of whom they are about."""

    member_id: str | None = None


_decode_concerned = msgspec.json.Decoder(_Concerned).decode


class Guard:
    """Watches over streams, by the credentials that `authenticator` has while the service works."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._credentials: dict[bytes, Credential] = {}
        self._by_holder: dict[str, set[Credential]] = defaultdict(set)
        self._doubted: dict[bytes, Credential] = {}
        self._something_doubted = asyncio.Event()
        self._questions = asyncio.Semaphore(QUESTIONS)
        self._confirming = asyncio.Semaphore(QUESTIONS)

    @contextmanager
    def watching(self, caller: Caller, wake: Callable[[], None]) -> Iterator[Watch]:
        """Watch over one stream, until the end of the body. Who has no token that is in the vault is good for ever."""
        if not caller.token_hash:
            yield Watch(None, caller, wake)
            return
        credential = self._credential_of(caller)
        watch = Watch(credential, caller, wake)
        credential.watches.add(watch)
        self._await_expiry(watch, credential)
        try:
            yield watch
        finally:
            if watch.timer is not None:
                watch.timer.cancel()
            credential.watches.discard(watch)
            if not credential.watches:
                self._forget(credential)

    async def confirm(self, watch: Watch) -> None:
        """Ask whether a watch that has begun is of a good credential, with the grants that it had.

        Those who come at once by one credential share a question that begins after all of them have come, one at a time
        (F32). Raises UnauthenticatedError if it is not good, and Problem `unavailable` if that cannot be told or they
        differ.
        """
        credential = watch.credential
        if credential is not None:
            credential.expect(watch)
            with suppress(TimeoutError):
                async with asyncio.timeout(MAX_CONFIRMING_S), credential.turn:
                    if not (watch.is_confirmed or watch.is_over):
                        await self._ask_for_all_who_came(credential)
            watch.end_unless_confirmed()
            await watch.settled()
        watch.require()

    async def _ask_for_all_who_came(self, credential: Credential) -> None:
        """Ask whether all may begin who came until it is their turn, unless it takes too long from then on."""
        async with self._confirming:
            asking = credential.questions
            try:
                async with asyncio.timeout(MAX_DOUBT_S):
                    caller = await self._ask_until_told(credential, nullcontext())
            except TimeoutError:
                credential.refuse(asking)
            else:
                credential.judge(caller)
                credential.answer(asking)

    def look_closely(self, envelope: Envelope) -> None:
        """Doubt what an event may have changed. It must be called before anybody is told of the event."""
        credentials = self._by_holder.get(envelope.aggregate_id)
        if not credentials:
            return
        member_id = _member_of(envelope)
        for credential in credentials:
            if member_id is None or any(watch.caller.identity.actor.id == member_id for watch in credential.watches):
                self._doubt(credential)

    async def run(self) -> None:
        """Settle doubts, and ask about everybody now and then, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_going_round(), name="guard's rounds")
            while True:
                await self._something_doubted.wait()
                self._something_doubted.clear()
                doubted, self._doubted = self._doubted, {}
                for credential in doubted.values():
                    if not credential.is_being_settled:
                        credential.is_being_settled = True
                        tasks.create_task(self._settle(credential))

    async def go_round(self) -> None:
        """Ask about everybody, one after the other, without holding anybody back."""
        for credential in list(self._credentials.values()):
            try:
                credential.judge(await self._ask(credential))
            except Exception as error:  # noqa: BLE001 - likewise; nothing is known of this one, nor that it is not good
                _log.warning("credential_unasked", error=type(error).__name__)

    def _doubt(self, credential: Credential) -> None:
        credential.doubt(asyncio.get_running_loop().time())
        self._doubted[credential.token_hash] = credential
        self._something_doubted.set()

    async def _settle(self, credential: Credential) -> None:
        """Ask until nothing is doubted: by one question at a time."""
        try:
            while credential.is_doubted:
                await self._settle_doubts(credential)
        finally:
            credential.is_being_settled = False

    async def _settle_doubts(self, credential: Credential) -> None:
        """Ask what settles the doubts there are until now, unless it takes too long."""
        asking, doubted_to = credential.questions, credential.doubted_to
        credential.asking = asking
        try:
            async with asyncio.timeout_at(credential.doubted_at + MAX_DOUBT_S):
                caller = await self._ask_until_told(credential, self._questions)
        except TimeoutError:
            if credential.answered_to >= doubted_to:  # by the question of somebody who came
                return
            _log.warning("streams_ended", why="nobody could tell whether their credential is good")
            credential.judge(None, unknown="unknown")
        else:
            credential.judge(caller)
        credential.answer(asking)

    async def _ask_until_told(self, credential: Credential, turn: AbstractAsyncContextManager[object]) -> Caller | None:
        while True:
            try:
                async with turn:
                    return await self._ask(credential)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is no answer, and no reason to end the service
                _log.warning("credential_unasked", error=type(error).__name__)
                await asyncio.sleep(RETRY_S)

    async def _ask(self, credential: Credential) -> Caller | None:
        credentials = self._authenticator.credentials
        if credentials is None:
            raise ConnectionError("the service has no database")
        return await credentials.ask(credential.token_hash)

    async def _keep_going_round(self) -> None:
        while True:
            await asyncio.sleep(ROUND_S)
            await self.go_round()

    def _credential_of(self, caller: Caller) -> Credential:
        credential = self._credentials.get(caller.token_hash)
        if credential is None:
            credential = self._credentials[caller.token_hash] = Credential(caller)
            self._by_holder[credential.holder_id].add(credential)
        return credential

    def _forget(self, credential: Credential) -> None:
        if self._credentials.pop(credential.token_hash, None) is None:
            return
        holding = self._by_holder[credential.holder_id]
        holding.discard(credential)
        if not holding:
            del self._by_holder[credential.holder_id]

    def _await_expiry(self, watch: Watch, credential: Credential) -> None:
        """Doubt a credential just after its end, if it has one, however far away that is."""
        credentials = self._authenticator.credentials
        left_s = credentials.seconds_left(watch.caller) if credentials is not None else None
        if left_s is None:
            return
        loop, after_s = asyncio.get_running_loop(), max(left_s, 0.0) + _AFTER_EXPIRY_S
        if after_s > LONGEST_TIMER_S:
            watch.timer = loop.call_later(LONGEST_TIMER_S, self._await_expiry, watch, credential)
        else:
            watch.timer = loop.call_later(after_s, self._doubt, credential)


def _member_of(envelope: Envelope) -> str | None:
    """Give the one member whom an organisation's event is about; None for what may be about anybody."""
    if envelope.aggregate_type != "org":
        return None
    try:
        return _decode_concerned(envelope.payload).member_id
    except msgspec.MsgspecError:
        return None
