"""Answers that go on: a body written chunk by chunk, each within a time-out, and no more of it in memory than one.

ASGI has no bound on what a send may take, tells of a client that left only who receives, and cannot cut a connection;
so what streams writes the chunks of its body to the connection itself, between ASGI's start and end of the answer.
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache

from starlette.types import Scope

from keelson.service.connection import AnswerTransport

# A client that vanished without a word is noticed so long after it should have taken something (F28).
VANISHED_AFTER_S = 15.0
# What the kernel keeps of it besides; over 100 ms of network that is still more than a megabyte a second.
MAX_UNSENT_BYTES = 128 * 1024


class SlowClientError(Exception):
    """A client did not take in time what it was sent."""


class StreamedBody:
    """The body of the answer to this request, whose start has been sent; used by one task.

    The client may take `timeout_s` whenever it has to be waited for.
    """

    __slots__ = ("_answer", "_timeout_s", "_waiting")

    def __init__(self, scope: Scope, timeout_s: float) -> None:
        self._answer: AnswerTransport = scope["state"]["answer"]
        self._answer.bound_silence(VANISHED_AFTER_S)
        self._answer.bound_unsent(MAX_UNSENT_BYTES)
        self._timeout_s = timeout_s
        self._waiting: asyncio.Timeout | None = None

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._answer.is_closing()

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Have this called when the client is gone."""
        self._answer.on_lost(callback)

    @property
    def is_full(self) -> bool:
        """Whether the client has to be waited for before anything more is sent."""
        return self._answer.is_full

    def write(self, data: bytes) -> None:
        """Send a chunk to a client that has taken most of what was sent before, without waiting for it."""
        self._answer.write_raw(chunked(data))

    def hurry(self, timeout_s: float) -> None:
        """Give the client no longer than this from now on, also where it is being waited for already."""
        self._timeout_s = min(self._timeout_s, timeout_s)
        waiting = self._waiting
        if waiting is not None and not waiting.expired() and (deadline := waiting.when()) is not None:
            waiting.reschedule(min(deadline, asyncio.get_running_loop().time() + timeout_s))

    async def send(self, data: bytes) -> None:
        """Send a chunk, and wait until the client has taken most of it. Raises SlowClientError; nothing if it is gone.

        A timer costs as much as writing, so it is set only for a client that has to be waited for.
        """
        if self._answer.is_full:
            await self._drain()
        if self.is_lost:
            return
        self.write(data)
        if self._answer.is_full:
            await self._drain()

    async def drained(self) -> None:
        """Wait until the client has taken most of what it was sent. Raises SlowClientError; nothing if it is gone."""
        if self._answer.is_full:
            await self._drain()

    def abort(self) -> None:
        """Cut the connection."""
        self._answer.abort()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s) as self._waiting:
                await self._answer.drain()
        except TimeoutError:
            raise SlowClientError from None
        finally:
            self._waiting = None


@lru_cache(maxsize=8)
def chunked(data: bytes) -> bytes:
    """Give a chunk as HTTP/1.1 has it (RFC 9112): the same bytes for all whom the same piece is sent to."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def forget_credential(scope: Scope) -> None:
    """Forget the credential that a request came with: an answer may go on for days."""
    headers = scope["headers"]
    headers[:] = [each for each in headers if each[0] != b"authorization"]


def hold(scope: Scope) -> None:
    """Say that this answer takes as long as its client likes: how long that is says nothing of the service."""
    scope["state"]["held"] = True
