"""Following a stream for ever, over as many connections as it takes."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Protocol, TypeVar

import msgspec

from keelson.client.errors import ClientError, ProblemError, UnreachableError
from keelson.client.sse import Frame, Parser
from keelson.client.transport import Request, Transport

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_GONE = 410
# A refusal that stands however often it is asked, but for these: too slow, too often, and what is not our fault.
_LATER = frozenset({408, 429})
_SERVER_FAULT = 500


class StreamTimes(msgspec.Struct, frozen=True, kw_only=True):
    """How long a stream may be silent, and how long to wait before it is opened again.

    Services say something every 15 s. `retry_s` counts until a service has said how long to wait; it is doubled with
    each connection that came to nothing, up to `max_retry_s`, and half of it is left to chance.
    """

    idle_timeout_s: float = 45.0
    retry_s: float = 1.0
    max_retry_s: float = 10.0


class BrokenStreamError(ClientError):
    """What came cannot be gone on from; the stream is opened again, from where its reader says."""


class Reader(Protocol[T_co]):
    """Makes items of frames, and keeps the place to go on from; it does no I/O."""

    @property
    def place(self) -> str | None:
        """Where the next connection goes on: a cursor or a position; None for the beginning."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be made of this connection: the next one begins anew."""

    def begin(self) -> None:
        """Take note that another connection begins: what was left unfinished comes again."""

    def read(self, frame: Frame) -> Sequence[T_co]:
        """Give what a frame completes. Raises BrokenStreamError if another connection must be made."""

    def expire(self, epoch: str | None) -> Sequence[T_co]:
        """Take note that the place is one of another epoch, or beyond the head: this connection is over."""


class Pause:
    """How long to wait before the next connection."""

    def __init__(self, times: StreamTimes) -> None:
        self._retry_s = times.retry_s
        self._max_retry_s = times.max_retry_s
        self._failures = 0

    def hear(self, retry_ms: int | None) -> None:
        """Take what the stream said of how long to wait, if it did."""
        if retry_ms is not None:
            self._retry_s = retry_ms / 1000

    def progressed(self) -> None:
        """Take note that the connection was good for something."""
        self._failures = 0

    def next_s(self, at_least_s: float | None = None) -> float:
        """Give how long to wait after another connection has ended: as long as was asked for, or a little longer."""
        wait_s = min(self._retry_s * 2.0**self._failures, max(self._max_retry_s, self._retry_s))
        self._failures = min(self._failures + 1, 30)
        chance = random.random()  # noqa: S311 - it spreads clients, and hides nothing
        return max(wait_s * (1 + chance) / 2, (at_least_s or 0) * (1 + chance / 2))


async def follow(
    transport: Transport, url: str, params: Mapping[str, str], reader: Reader[T], times: StreamTimes
) -> AsyncGenerator[T, None]:
    """Give what the reader makes of a stream, until cancelled or closed. What one frame completes is given in one go.

    Connections that are refused for the time being, cut, ended or silent for too long are made again. Raises
    ProblemError for a refusal that stands, such as a credential that is good no more.
    """
    pause = Pause(times)
    while True:
        reader.begin()
        stream = transport.stream(_request(url, params, reader.place), times.idle_timeout_s)
        asked_s: float | None = None
        try:
            async with aclosing(_read_once(stream, reader, pause)) as items:
                async for item in items:
                    yield item
        except ProblemError as error:
            if error.status == _GONE:
                for item in reader.expire(error.epoch):
                    yield item
            elif error.status < _SERVER_FAULT and error.status not in _LATER:
                raise
            asked_s = error.retry_after_s
        except (UnreachableError, BrokenStreamError):
            pass
        await asyncio.sleep(pause.next_s(asked_s))


async def _read_once(
    stream: AbstractAsyncContextManager[AsyncIterator[bytes]], reader: Reader[T], pause: Pause
) -> AsyncGenerator[T, None]:
    """Give what the reader makes of one connection, until it ends. Raises as a transport's stream and the reader do."""
    parser = Parser()
    async with stream as pieces:
        async for piece in pieces:
            frames = parser.feed(piece)
            pause.hear(parser.retry_ms)
            for frame in frames:
                for item in reader.read(frame):
                    pause.progressed()
                    yield item
                if reader.is_over:
                    return


def _request(url: str, params: Mapping[str, str], place: str | None) -> Request:
    """Give the request of the next connection; only what names its epoch may be said in the header."""
    headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
    if place is None:
        return Request("GET", url, headers=headers, params={**params})
    if "-" in place:
        return Request("GET", url, headers={**headers, "Last-Event-ID": place}, params={**params})
    return Request("GET", url, headers=headers, params={**params, "after": place})
