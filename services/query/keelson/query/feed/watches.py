"""Watches: what is known of the credentials by which streams were opened, and of what is being asked about them."""

import asyncio
from collections.abc import Callable
from typing import Literal

from keelson.query.feed.refusals import refused
from keelson.service.credentials import Caller, UnauthenticatedError

Verdict = Literal["good", "revoked", "changed", "unknown"]


class Watch:
    """What is known of one stream's credential. `wake` is called when the stream must end."""

    __slots__ = ("caller", "credential", "expected", "timer", "verdict", "wake")

    def __init__(self, credential: "Credential | None", caller: Caller, wake: Callable[[], None]) -> None:
        self.credential = credential
        self.caller = caller
        self.wake = wake
        self.verdict: Verdict = "good"
        # Which question, or a later one, says whether the stream may begin.
        self.expected = 0
        self.timer: asyncio.TimerHandle | None = None

    @property
    def is_over(self) -> bool:
        """Whether the stream may say nothing more, ever."""
        return self.verdict != "good"

    @property
    def is_doubted(self) -> bool:
        """Whether the stream may say nothing now."""
        return self.credential is not None and self.credential.is_doubted

    @property
    def is_confirmed(self) -> bool:
        """Whether the stream may begin, as far as that was asked."""
        return self.credential is None or self.expected <= self.credential.answered_to

    async def settled(self) -> bool:
        """Wait until what is doubted now is settled; give whether the stream may go on.

        What is doubted later is about what happens later: whoever has read already need not wait for it.
        """
        credential = self.credential
        until = 0 if credential is None else credential.doubted_to
        while credential is not None and credential.answered_to < until and not self.is_over:
            await credential.answered()
        return not self.is_over

    def end_unless_confirmed(self) -> None:
        """Let the stream not begin if its question has no answer."""
        if not (self.is_confirmed or self.is_over):
            self.verdict = "unknown"
            self.wake()

    def require(self) -> None:
        """Raise what the verdict is to a client that has not been answered yet."""
        match self.verdict:
            case "good":
                return
            case "revoked":
                raise UnauthenticatedError
            case "changed" | "unknown":
                raise refused("What this credential may has just changed, or cannot be told; come again")


class Credential:
    """A credential, and the streams that it opened.

    Questions about it are counted as they arise: `questions` is how many there are, `doubted_to` the last that arose
    from a doubt, and `answered_to` the last that is answered. `asking` is the last that the settling of doubts under
    way will answer; `doubted_at` is when the first doubt came that it will not. Who connects asks as well, in `turn`.
    """

    __slots__ = (
        *("answered_to", "asking", "doubted_at", "doubted_to", "holder_id", "is_being_settled", "questions"),
        *("token_hash", "turn", "waiting", "watches"),
    )

    def __init__(self, caller: Caller) -> None:
        self.token_hash = caller.token_hash
        self.holder_id = caller.identity.holder_id
        self.watches: set[Watch] = set()
        self.questions = self.doubted_to = self.asking = self.answered_to = 0
        self.doubted_at = 0.0
        self.is_being_settled = False
        self.turn = asyncio.Lock()
        self.waiting: list[asyncio.Future[None]] = []

    @property
    def is_doubted(self) -> bool:
        """Whether its streams may say nothing now."""
        return self.answered_to < self.doubted_to

    def doubt(self, now: float) -> None:
        """Count one doubt more."""
        if self.doubted_to <= max(self.asking, self.answered_to):
            self.doubted_at = now
        self.questions += 1
        self.doubted_to = self.questions

    def expect(self, watch: Watch) -> None:
        """Count the question of one stream that is to begin."""
        self.questions += 1
        watch.expected = self.questions

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

    def refuse(self, asked: int) -> None:
        """Let those streams not begin whose questions, up to this one, nobody answered; those that are open go on."""
        for watch in self.watches:
            if watch.expected <= asked:
                watch.end_unless_confirmed()

    def answer(self, asked: int) -> None:
        """Let those go on whose questions arose before the one that is answered now was asked."""
        self.answered_to = max(self.answered_to, asked)
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
