"""A connection, as a service takes it: uvicorn's protocol on httptools, with limits on what is not a request yet.

httptools refuses most shapes that smuggle requests (F37); what it lets pass, what is too large (F36) and what is too
slow (F35) is refused here, before the application hears of it. ADR 0006 lists who refuses what.
"""

import asyncio
import secrets
import socket
from collections.abc import Callable, Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from keelson.service.headers import RawHeaders
from keelson.service.problems import MEDIA_TYPE, Problem

if TYPE_CHECKING:
    from keelson.service.app import Application

MAX_HEADERS: Final = 100
MAX_HEADER_BYTES: Final = 16 * 1024
# Bytes that came and gave neither a complete head nor a body: of a head, with its punctuation; of chunks' framing.
MAX_OVERHEAD_BYTES: Final = 2 * MAX_HEADER_BYTES
# What each chunk's framing may cost besides.
CHUNK_FRAME_BYTES: Final = 8
# How long a refused client may go on sending, unread: closing at once would reset the connection, and it might lose
# the answer.
LINGER_S: Final = 1.0

_log = structlog.get_logger()


class _RefusedError(Exception):
    """Stops the parser; the connection knows why."""


class AnswerTransport:
    """What one request's answer is written to: its head leaves together with the first part of its body.

    uvicorn writes the two apart, which costs a system call here and wakes the client twice. A head of which no body
    follows at once leaves by itself in the next turn of the loop: a stream's client waits for nothing.
    """

    __slots__ = ("_connection", "_head", "_is_begun", "_loop", "_transport")

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._transport = connection.transport
        self._loop = connection.loop
        self._head = b""
        self._is_begun = False

    def write(self, data: bytes) -> None:
        """Write, or keep for a moment if nothing was written yet."""
        if self._head:
            data, self._head = self._head + data, b""
        elif not self._is_begun:
            self._is_begun = True
            self._head = data
            self._loop.call_soon(self.flush)
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Write what was kept."""
        if self._head:
            data, self._head = self._head, b""
            self._transport.write(data)

    def write_raw(self, data: bytes) -> None:
        """Write a part of a body that has begun, as it goes over the wire; it is not copied."""
        self.flush()
        self._transport.write(data)

    @property
    def is_full(self) -> bool:
        """Whether the client has still to take much of what was written."""
        return self._connection.flow.write_paused

    async def drain(self) -> None:
        """Wait until the client has taken most of what was written, or is gone."""
        await self._connection.flow.drain()

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Have this called when the connection is lost; an application that does not receive learns it no other way."""
        self._connection.lost_callback = callback

    def bound_silence(self, seconds: float) -> None:
        """Have a client whose machine does not even acknowledge what it is sent taken for lost after so long.

        Safe also for one that has gone already, whose socket is closed.
        """
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        own = self._transport.get_extra_info("socket")
        if option is not None and own is not None and not self.is_closing():
            own.setsockopt(socket.IPPROTO_TCP, option, int(seconds * 1000))

    def bound_unsent(self, size_bytes: int) -> None:
        """Have the kernel keep no more than about twice this for a client that does not take it; likewise safe.

        By itself it keeps up to 4 MiB, and a container pays for that.
        """
        own = self._transport.get_extra_info("socket")
        if own is not None and not self.is_closing():
            own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size_bytes)

    def abort(self) -> None:
        """Cut the connection at once, whatever the client has not taken."""
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Write what was kept, and close the connection."""
        self.flush()
        self._transport.close()


class Connection(HttpToolsProtocol):
    """uvicorn's connection, refusing what is ambiguous, too large or too slow; a refusal is the last thing it says.

    At any moment a client that owes bytes (a head, or the rest of a body that has been answered) has a deadline, which
    no byte puts off. A body that a handler waits for has its deadline there; an idle connection has uvicorn's.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._service = cast("Application", config.app)
        self._stage: Literal["idle", "head", "body"] = "idle"
        self._overhead_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._refusal: Problem | None = None
        self.lost_callback: Callable[[], None] | None = None

    # ---- what the transport tells ----

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give a client that says nothing a deadline from the beginning."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline, and tell who streams."""
        self._disarm()
        super().connection_lost(exc)
        if self.lost_callback is not None:
            self.lost_callback()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and see what the client owes afterwards; what follows a refusal is thrown away."""
        if self._refusal is not None:
            return
        if self._stage == "idle":
            self._stage = "head"
            self._disarm()
        self._overhead_bytes = max(self._overhead_bytes, 0) + len(data)
        super().data_received(data)
        if self._refusal is None:
            self._watch()

    # ---- what the parser tells ----

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._stage = "head"

    def on_headers_complete(self) -> None:
        """Let the application have a request, unless its head is at fault."""
        fault = fault_of(self.parser.get_http_version(), self.url, self.headers)
        if fault is not None:
            self._refuse(fault)
            raise _RefusedError
        super().on_headers_complete()
        if self.scope["method"] != "HEAD":  # its answer has no body that could take its head along
            answer = AnswerTransport(self)
            self.cycle.transport = answer  # type: ignore[assignment]
            self.scope["state"]["answer"] = answer
        self._stage = "body"
        self._overhead_bytes = 0
        self.headers = []  # what comes from now on are trailers, and none of the request's headers
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # whoever forwarded it may take what follows for another protocol

    def on_chunk_header(self) -> None:
        """Allow a chunk its framing."""
        self._overhead_bytes -= CHUNK_FRAME_BYTES

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._overhead_bytes -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        if self.headers:
            self._refuse(Problem("malformed", "Trailers are not supported"))
            raise _RefusedError
        super().on_message_complete()
        self._stage = "idle"
        self._overhead_bytes = 0

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the name is uvicorn's; so is the text, for any error
        """Refuse what the parser could not read, unless it was stopped by a refusal."""
        if self._refusal is None:
            self._refuse(Problem("malformed", "This is not well-formed HTTP/1.1"))

    # ---- what the application tells ----

    def on_response_complete(self) -> None:
        """Go on with the next request, say the last words, or wait for the rest of a body that is answered already."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._refusal is not None:
            if self._is_answered:
                self._say_last_words(self._refusal)
        elif self._stage == "body":
            self._unset_keepalive_if_required()
            self._watch()

    # ---- deadlines ----

    @property
    def _is_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        """Set a deadline if the client owes bytes, and none if not."""
        if self._stage == "idle":
            self._disarm()
            if self._is_answered and self.timeout_keep_alive_task is None:  # the rest of an answered body has come
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
        elif self._overhead_bytes > MAX_OVERHEAD_BYTES:
            self._refuse(_headers_too_large() if self._stage == "head" else Problem("malformed", "Too much framing"))
        elif self._stage == "head" or self._is_answered:
            self._arm()
        else:
            self._disarm()

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._service.state.settings.receive_deadline_s, self._on_deadline)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_deadline(self) -> None:
        if self._stage == "head":
            self._refuse(Problem("timeout", "The headers did not come in time"))
        else:
            self.transport.abort()

    # ---- refusing ----

    def _refuse(self, problem: Problem) -> None:
        """Read no more; say why as soon as all that came before is answered, and close."""
        self._refusal = problem
        self._disarm()
        _log.info("connection_refused", code=problem.code, detail=problem.detail)
        if self._stage == "body":
            self._give_up_body(problem)
        elif self._is_answered:
            self._say_last_words(problem)

    def _give_up_body(self, problem: Problem) -> None:
        """Take back the request whose body is at fault: to its handler, the client has left."""
        if self._is_answered:
            self.transport.close()  # what is at fault is answered; an answer more would be taken for another's
            return
        if self.pipeline:
            self.pipeline.popleft()  # it had not begun; those before it are answered first
            return
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        if self.cycle.response_started:
            self.transport.abort()
        else:
            self._say_last_words(problem)

    def _say_last_words(self, problem: Problem) -> None:
        body = problem.body()
        headers: Iterable[tuple[bytes, bytes]] = [
            *self.server_state.default_headers,
            *self._service.state.epoch.headers,
            (b"x-request-id", secrets.token_hex(16).encode()),
            (b"content-type", MEDIA_TYPE),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        self.transport.write(
            b"".join([STATUS_LINE[problem.status], *(b"%s: %s\r\n" % each for each in headers), b"\r\n", body])
        )
        self.transport.write_eof()
        self.flow.resume_reading()
        self._timer = self.loop.call_later(LINGER_S, self.transport.abort)


def fault_of(version: str, url: bytes, headers: RawHeaders) -> Problem | None:
    """Say what is wrong with the head of a request; None if nothing is."""
    if len(headers) > MAX_HEADERS or len(url) + sum(map(len, chain.from_iterable(headers))) > MAX_HEADER_BYTES:
        return _headers_too_large()
    names = [name for name, _ in headers]
    hosts = names.count(b"host")
    if hosts > 1 or (hosts == 0 and version != "1.0"):
        return Problem("malformed", f"There must be one Host header, not {hosts}")
    if b"transfer-encoding" in names and (version != "1.1" or not _is_chunked(headers)):
        return Problem("malformed", "A Transfer-Encoding must be chunked, in HTTP/1.1")
    return None


def _is_chunked(headers: RawHeaders) -> bool:
    return [value.lower() for name, value in headers if name == b"transfer-encoding"] == [b"chunked"]


def _headers_too_large() -> Problem:
    return Problem("headers_too_large", f"At most {MAX_HEADERS} headers, and {MAX_HEADER_BYTES} bytes of them")
