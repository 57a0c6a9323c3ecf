"""One request and its answer, as the boundary sees them: limits on what comes in, headers on what goes out."""

import asyncio
from typing import Final

from starlette.types import Message, Receive, Scope, Send

from keelson.service.epoch import Epoch
from keelson.service.headers import RawHeaders
from keelson.service.problems import MEDIA_TYPE, Problem

MAX_BODY_BYTES: Final = 1024 * 1024
# An unread body of no more than that is read and thrown away by the server, and the connection lives on: closing it
# at once would reset it, and the client might lose the answer.
MAX_DISCARDED_BYTES: Final = 16 * 1024 * 1024

CLIENT_LEFT = 499


class Exchange:
    """Wraps the server's receive and send for one request; `status` is CLIENT_LEFT until an answer begins."""

    __slots__ = (
        "_body_bytes",
        "_body_deadline_s",
        "_close",
        "_deadline",
        "_epoch",
        "_headers",
        "_receive",
        "_send",
        "body_ended",
        "request_id",
        "status",
    )

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, request_id: str, epoch: Epoch, body_deadline_s: float
    ) -> None:
        self._receive = receive
        self._send = send
        self._epoch = epoch
        self._headers: RawHeaders = scope["headers"]
        self._close = False
        self._body_deadline_s = body_deadline_s
        self._deadline: float | None = None
        self._body_bytes = 0
        self.body_ended = False
        self.request_id = request_id
        self.status = CLIENT_LEFT

    @property
    def begun(self) -> bool:
        """Whether an answer has begun, and no other can be given."""
        return self.status != CLIENT_LEFT

    async def receive(self) -> Message:
        """Receive the next part of the body; raises Problem `too_large`, or `timeout` if all of it takes too long."""
        if self.body_ended:
            return await self._receive()
        message = self._receive_at_once() or await self._receive_in_time()
        if message["type"] == "http.request":
            self._body_bytes += len(message.get("body", b""))
            self.body_ended = not message.get("more_body", False)
            require_body_size(self._body_bytes)
        return message

    def _receive_at_once(self) -> Message | None:
        """Take what has arrived already, as most bodies have, together with their headers; None if it has not.

        A timer is a tenth of a small request (13 of 130 microseconds, uvloop on CPython 3.11); so it is set only for
        what must be waited for. A receive that is given up has taken nothing: servers must bear that, as they bear the
        cancellation of one.
        """
        receiving = self._receive().__await__()
        try:
            next(receiving)
        except StopIteration as arrived:
            message: Message = arrived.value
            return message
        receiving.close()
        return None

    async def _receive_in_time(self) -> Message:
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._body_deadline_s
        deadline = asyncio.timeout_at(self._deadline)
        try:
            async with deadline:
                return await self._receive()
        except TimeoutError:
            if not deadline.expired():
                raise
            self._close = True
            raise Problem("timeout", f"The body did not come within {self._body_deadline_s:g} s") from None

    async def send(self, message: Message) -> None:
        """Send a part of the answer; its start gets the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message["headers"], (b"x-request-id", self.request_id.encode("ascii")), *self._epoch.headers]
            if self._close or (not self.body_ended and leaves_much_unread(self._headers)):
                headers.append((b"connection", b"close"))
            message = {"type": "http.response.start", "status": self.status, "headers": headers}
        await self._send(message)

    async def refuse(self, problem: Problem) -> None:
        """Answer with a problem."""
        body = problem.body()
        headers = [(b"content-type", MEDIA_TYPE), (b"content-length", b"%d" % len(body))]
        headers += [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in problem.headers.items()]
        await self.send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def require_body_size(size_bytes: int) -> None:
    """Raise Problem `too_large` for a body of that size."""
    if size_bytes > MAX_BODY_BYTES:
        raise Problem("too_large", f"The body must not exceed {MAX_BODY_BYTES} bytes")


def leaves_much_unread(headers: RawHeaders) -> bool:
    """Say whether these headers announce a body that is longer than the server should throw away, or of any length."""
    for name, value in headers:
        if name == b"transfer-encoding" or (name == b"content-length" and int(value) > MAX_DISCARDED_BYTES):
            return True
    return False
