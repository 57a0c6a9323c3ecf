"""Every request that a client sends, and how it ended: what failed, when, and whether a fault excuses it."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace

import aiohttp

# What a fault may look like from outside.
EXCUSED_STATUSES = frozenset({502, 503, 504})
RESETS = ("ServerDisconnectedError", "ClientOSError", "ClientConnectionResetError", "ClientPayloadError")
# An answer whose body never came whole.
CUT = "cut"


@dataclass
class Attempt:
    """One request; `outcome` is a status, or why there was none; `detail` is the body of a failure.

    Times are of the monotonic clock.
    """

    path: str
    begun: float
    ended: float
    outcome: int | str
    detail: str = ""

    @property
    def failed(self) -> bool:
        """Whether it got no answer, or one that says that the service failed."""
        return isinstance(self.outcome, str) or self.outcome >= 500

    @property
    def is_excusable(self) -> bool:
        """Whether a fault may have made it fail so."""
        return self.outcome in EXCUSED_STATUSES or self.outcome in (*RESETS, CUT)


@dataclass(frozen=True)
class Window:
    """A time in which something was done to the stack; `settled` is when the last request failed because of it."""

    name: str
    begun: float
    ended: float
    settled: float

    @property
    def recovered_s(self) -> float:
        """How long requests still failed after it had ended."""
        return self.settled - self.ended

    def touches(self, attempt: Attempt) -> bool:
        """Whether a request was under way in it."""
        return attempt.begun <= self.settled and self.begun <= attempt.ended


@dataclass
class Attempts:
    """What was sent; give `trace()` to the session that sends."""

    made: list[Attempt] = field(default_factory=list)

    def trace(self) -> aiohttp.TraceConfig:
        """Give what a session needs to tell of each of its requests."""
        config = aiohttp.TraceConfig()
        config.on_request_start.append(self._on_start)
        config.on_request_end.append(self._on_end)
        config.on_request_exception.append(self._on_exception)
        config.on_response_chunk_received.append(self._on_body)
        return config

    def failures(self, since: float = 0.0) -> list[Attempt]:
        """Give those that failed, of those that ended since then."""
        return [each for each in list(self.made) if each.failed and each.ended >= since]

    def unexcused(self, windows: Iterable[Window]) -> list[Attempt]:
        """Give the failures that no fault explains: outside of every window, or of another kind."""
        known = list(windows)
        return [
            each
            for each in self.failures()
            if not each.is_excusable or not any(window.touches(each) for window in known)
        ]

    def summary(self) -> Counter[int | str]:
        """Count the outcomes."""
        return Counter(each.outcome for each in list(self.made))

    async def _on_start(
        self, _session: aiohttp.ClientSession, context: SimpleNamespace, given: aiohttp.TraceRequestStartParams
    ) -> None:
        context.attempt = Attempt(given.url.path, time.monotonic(), 0.0, CUT)

    async def _on_end(
        self, _session: aiohttp.ClientSession, context: SimpleNamespace, given: aiohttp.TraceRequestEndParams
    ) -> None:
        attempt: Attempt = context.attempt
        attempt.ended = time.monotonic()
        if given.response.status >= 500:
            attempt.outcome = given.response.status
        self.made.append(attempt)
        context.status = given.response.status

    async def _on_body(
        self,
        _session: aiohttp.ClientSession,
        context: SimpleNamespace,
        _given: aiohttp.TraceResponseChunkReceivedParams,
    ) -> None:
        context.attempt.outcome = context.status

    async def _on_exception(
        self, _session: aiohttp.ClientSession, context: SimpleNamespace, given: aiohttp.TraceRequestExceptionParams
    ) -> None:
        attempt: Attempt = context.attempt
        attempt.ended = time.monotonic()
        attempt.outcome = type(given.exception).__name__
        self.made.append(attempt)
