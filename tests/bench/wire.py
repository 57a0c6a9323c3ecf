"""HTTP/1.1 at the least cost in Python: kept connections, requests made beforehand, answers parsed by httptools."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from time import perf_counter, time_ns
from typing import Any, cast

import httptools
import msgspec

# Where a request names a number that no other request has; as wide as the number, so that lengths stand.
NUMBER = "#" * 16
_NUMBERS = count(time_ns() // 1000)

Answered = Callable[["Wire", int, bytes], None]


def request(method: str, path: str, token: str, body: Any = None, *, key: bool = False) -> str:
    """Write a whole request; the text NUMBER in its body becomes another number each time it is sent."""
    content = "" if body is None else msgspec.json.encode(body).decode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {token}"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content.encode())}"]
    if key:
        lines.append(f"Idempotency-Key: {NUMBER}")
    return "\r\n".join([*lines, "", content])


class Wire(asyncio.Protocol):
    """One kept connection with at most one request under way; calls `answered` with itself, the status and the body."""

    def __init__(self, answered: Answered, *, keep_bodies: bool = False) -> None:
        self.is_idle = True
        self.sent_at = 0.0
        self._answered = answered
        self._keep_bodies = keep_bodies
        self._body: list[bytes] = []
        self._transport: asyncio.WriteTransport | None = None
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's are of no such class

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._parser.feed_data(data)

    def connection_lost(self, _error: Exception | None) -> None:
        """Answer a request that was under way with status 0."""
        self._transport = None
        if not self.is_idle:
            self.is_idle = True
            self._answered(self, 0, b"")

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body, if anybody wants it."""
        if self._keep_bodies:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Hand the answer on."""
        status, body = self._parser.get_status_code(), b"".join(self._body)
        self._parser, self._body = httptools.HttpResponseParser(self), []
        self.is_idle = True
        self._answered(self, status, body)

    def send(self, parts: Sequence[bytes]) -> None:
        """Send a request that was split where its number goes."""
        assert self._transport is not None
        self.is_idle, self.sent_at = False, perf_counter()
        self._transport.write(parts[0] if len(parts) == 1 else (b"%016d" % next(_NUMBERS)).join(parts))

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


def split(text: str) -> list[bytes]:
    """Split a request where its number goes."""
    return [part.encode() for part in text.split(NUMBER)]


async def connect(port: int, answered: Answered, *, keep_bodies: bool = False) -> Wire:
    """Open one connection to a port of this machine."""
    loop = asyncio.get_running_loop()
    _, wire = await loop.create_connection(lambda: Wire(answered, keep_bodies=keep_bodies), "127.0.0.1", port)
    return wire
