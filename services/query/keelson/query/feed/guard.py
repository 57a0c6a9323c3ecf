"""The guard: streams of credentials that are not good any more end, before they are told anything else (F34).

The log says when a credential may have changed: an event of the aggregate that holds it. The hub shows every event here
before it wakes anybody; from then on the credential is doubted, and its streams say nothing, until the vault and the
log have been asked anew. Who connects is asked about once more, after its watch has begun: what authenticated it may be
almost a second old.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import msgspec
import structlog

from keelson.events import Envelope
from keelson.service.authentication import Authenticator
from keelson.service.credentials import Caller, UnauthenticatedError
from keelson.service.problems import unavailable

# A doubt that cannot be settled ends the streams that it is about: nobody knows whether they may go on.
MAX_DOUBT_S = 0.8
RETRY_S = 0.1
# What no event tells of is found by asking about everybody, one after the other, this often.
ROUND_S = 30.0
# How many questions are asked of the database at once.
QUESTIONS = 4
# An expiry is asked about just after it.
_AFTER_EXPIRY_S = 0.02
_LONGEST_TIMER_S = 24 * 3600.0

Verdict = Literal["good", "revoked", "changed", "unknown"]

_log = structlog.get_logger()


class _Concerned(msgspec.Struct):
    """What events of an organisation say of whom they are about."""

    member_id: str | None = None


_decode_concerned = msgspec.json.Decoder(_Concerned).decode


class Watch:
    """What is known of one stream's credential. `wake` is called when a doubt is settled."""

    __slots__ = ("_credential", "caller", "verdict", "wake")

    def __init__(self, credential: "_Credential | None", caller: Caller, wake: Callable[[], None]) -> None:
        self._credential = credential
        self.caller = caller
        self.wake = wake
        self.verdict: Verdict = "good"

    @property
    def is_over(self) -> bool:
        """Whether the stream may say nothing more, ever."""
        return self.verdict != "good"

    @property
    def is_doubted(self) -> bool:
        """Whether the stream may say nothing now."""
        return self._credential is not None and self._credential.is_doubted

    async def settled(self) -> bool:
        """Wait until nothing is doubted; give whether the stream may go on."""
        while self.is_doubted and not self.is_over:
            assert self._credential is not None  # noqa: S101 - only what can be asked about is doubted
            await self._credential.answered()
        return not self.is_over

    def require(self) -> None:
        """Raise what the verdict is to a client that has not been answered yet."""
        match self.verdict:
            case "good":
                return
            case "revoked":
                raise UnauthenticatedError
            case "changed" | "unknown":
                raise unavailable("What this credential may has just changed, or cannot be told; come again")


class _Credential:
    """A credential, and the streams that it opened.

    Doubts are counted: `asking` is how many the question under way will settle, `asked` how many are settled.
    `doubted_at` is when the first came that it will not.
    """

    __slots__ = (
        *("asked", "asking", "doubted_at", "doubts", "holder_id", "is_being_settled", "token_hash", "waiting"),
        "watches",
    )

    def __init__(self, caller: Caller) -> None:
        self.token_hash = caller.token_hash
        self.holder_id = caller.identity.holder_id
        self.watches: set[Watch] = set()
        self.doubts = self.asking = self.asked = 0
        self.doubted_at = 0.0
        self.is_being_settled = False
        self.waiting: list[asyncio.Future[None]] = []

    @property
    def is_doubted(self) -> bool:
        return self.asked < self.doubts

    def doubt(self, now: float) -> None:
        """Count one doubt more."""
        if self.doubts == self.asking:
            self.doubted_at = now
        self.doubts += 1

    async def answered(self) -> None:
        """Wait for the next answer."""
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        await future

    def judge(self, caller: Caller | None, unknown: Verdict | None = None) -> None:
        """End the streams that were opened with other grants than the credential has now."""
        for watch in self.watches:
            if not watch.is_over and (caller is None or caller.grants != watch.caller.grants):
                watch.verdict = unknown or ("revoked" if caller is None else "changed")
                watch.wake()

    def answer(self) -> None:
        """Let those go on whose doubts were there when the question was asked that is answered now."""
        self.asked = self.asking
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


class Guard:
    """Watches over streams, by the credentials that `authenticator` has while the service works."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._credentials: dict[bytes, _Credential] = {}
        self._by_holder: dict[str, set[_Credential]] = defaultdict(set)
        self._doubted: dict[bytes, _Credential] = {}
        self._something_doubted = asyncio.Event()
        self._questions = asyncio.Semaphore(QUESTIONS)

    @contextmanager
    def watching(self, caller: Caller, wake: Callable[[], None]) -> Iterator[Watch]:
        """Watch over one stream, until the end of the body. Who has no token that is in the vault is good for ever."""
        if not caller.token_hash:
            yield Watch(None, caller, wake)
            return
        credential = self._credential_of(caller)
        watch = Watch(credential, caller, wake)
        credential.watches.add(watch)
        timer = self._expiry_timer(caller, credential)
        try:
            yield watch
        finally:
            if timer is not None:
                timer.cancel()
            credential.watches.discard(watch)
            if not credential.watches:
                self._forget(credential)

    async def confirm(self, watch: Watch) -> None:
        """Ask whether a watch that has begun is of a good credential, with the grants that it had.

        Raises UnauthenticatedError if it is not good, and Problem `unavailable` if that cannot be told or they differ.
        """
        if watch._credential is not None:  # noqa: SLF001 - a watch is this module's
            self._doubt(watch._credential)  # noqa: SLF001
            await watch.settled()
        watch.require()

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

    def _doubt(self, credential: _Credential) -> None:
        credential.doubt(asyncio.get_running_loop().time())
        self._doubted[credential.token_hash] = credential
        self._something_doubted.set()

    async def _settle(self, credential: _Credential) -> None:
        """Ask until nothing is doubted: by one question at a time, however many connect at once (F32)."""
        try:
            while credential.is_doubted:
                await self._settle_doubts(credential)
        finally:
            credential.is_being_settled = False

    async def _settle_doubts(self, credential: _Credential) -> None:
        """Ask what settles the doubts there are until now, unless it takes too long."""
        credential.asking = credential.doubts
        try:
            async with asyncio.timeout_at(credential.doubted_at + MAX_DOUBT_S):
                caller = await self._ask_until_told(credential)
        except TimeoutError:
            _log.warning("streams_ended", why="nobody could tell whether their credential is good")
            credential.judge(None, unknown="unknown")
        else:
            credential.judge(caller)
        credential.answer()

    async def _ask_until_told(self, credential: _Credential) -> Caller | None:
        while True:
            try:
                async with self._questions:
                    return await self._ask(credential)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is no answer, and no reason to end the service
                _log.warning("credential_unasked", error=type(error).__name__)
                await asyncio.sleep(RETRY_S)

    async def _ask(self, credential: _Credential) -> Caller | None:
        credentials = self._authenticator.credentials
        if credentials is None:
            raise ConnectionError("the service has no database")
        return await credentials.ask(credential.token_hash)

    async def _keep_going_round(self) -> None:
        while True:
            await asyncio.sleep(ROUND_S)
            await self.go_round()

    def _credential_of(self, caller: Caller) -> _Credential:
        credential = self._credentials.get(caller.token_hash)
        if credential is None:
            credential = self._credentials[caller.token_hash] = _Credential(caller)
            self._by_holder[credential.holder_id].add(credential)
        return credential

    def _forget(self, credential: _Credential) -> None:
        if self._credentials.pop(credential.token_hash, None) is None:
            return
        holding = self._by_holder[credential.holder_id]
        holding.discard(credential)
        if not holding:
            del self._by_holder[credential.holder_id]

    def _expiry_timer(self, caller: Caller, credential: _Credential) -> asyncio.TimerHandle | None:
        credentials = self._authenticator.credentials
        left_s = credentials.seconds_left(caller) if credentials is not None else None
        if left_s is None:
            return None
        after_s = min(max(left_s, 0.0) + _AFTER_EXPIRY_S, _LONGEST_TIMER_S)
        return asyncio.get_running_loop().call_later(after_s, self._doubt, credential)


def _member_of(envelope: Envelope) -> str | None:
    """Give the one member whom an organisation's event is about; None for what may be about anybody."""
    if envelope.aggregate_type != "org":
        return None
    try:
        return _decode_concerned(envelope.payload).member_id
    except msgspec.MsgspecError:
        return None
