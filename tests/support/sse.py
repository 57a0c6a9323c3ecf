"""A client of streams that knows nothing of ours: a socket, HTTP's chunks taken apart, frames read line by line.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

PATIENCE_S = 15.0


@dataclass(frozen=True)
class Frame:
    """A frame: what kind, its data decoded, its id; comments are of the kind `comment`, `retry` has a number."""

    kind: str
    data: Any = None
    id: str | None = None

    @property
    def position(self) -> int:
        """The position that its data speaks of."""
        return int(self.data["position"])


class Ended(Exception):  # noqa: N818 - no failure: the server ended the body as HTTP has it
    """The stream has ended, whole."""


class Cut(Exception):  # noqa: N818
    """The connection has ended in the middle of a body."""


class Stream:
    """One connection, and the stream that is answered on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self._text = b""
        self._has_ended = False

    async def begin(self) -> None:
        """Read the head."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        self.status = int(line.split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}

    def take_little(self, size_bytes: int) -> None:
        """Have the kernel take little from now on of what is not read."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size_bytes)

    async def read_problem(self) -> Any:
        """Read the body of a refusal."""
        async with asyncio.timeout(PATIENCE_S):
            return msgspec.json.decode(await self.reader.readexactly(int(self.headers["content-length"])))

    async def frame(self, timeout_s: float = PATIENCE_S) -> Frame:
        """Read the next frame. Raises Ended, Cut, TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while b"\n\n" not in self._text:
                await self._read_chunk()
        text, _, self._text = self._text.partition(b"\n\n")
        return parse_frame(text.decode())

    async def next(self, *kinds: str, timeout_s: float = PATIENCE_S) -> Frame:
        """Read on to the next frame of these kinds."""
        while True:
            frame = await self.frame(timeout_s)
            if frame.kind in kinds:
                return frame

    async def events_to(self, position: int, timeout_s: float = PATIENCE_S) -> list[Frame]:
        """Read until a frame's id says that all up to a position was told; give the events."""
        events = []
        async with asyncio.timeout(timeout_s):
            while True:
                frame = await self.frame()
                if frame.kind == "event":
                    events.append(frame)
                if frame.id is not None and int(frame.id.partition("-")[2]) >= position:
                    return events

    async def rest(self, timeout_s: float = PATIENCE_S) -> list[Frame]:
        """Read to the clean end of the stream."""
        frames = []
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    frames.append(await self.frame())
        except Ended:
            return frames

    async def _read_chunk(self) -> None:
        if self._has_ended:
            raise Ended
        try:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Cut from None
        self.body += data
        self._text += data
        if not size:
            self._has_ended = True
            raise Ended


def parse_frame(text: str) -> Frame:
    """Take a frame apart; raises ValueError for a line that no stream of ours may have."""
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        name, colon, value = line.partition(":")
        if not colon or name in fields:
            raise ValueError(line)
        fields[name] = value.removeprefix(" ")
    if fields.keys() == {""}:
        return Frame("comment")
    if fields.keys() == {"retry"}:
        return Frame("retry", int(fields["retry"]))
    if not {"event", "data"} <= fields.keys() <= {"event", "data", "id"}:
        raise ValueError(text)
    return Frame(fields["event"], msgspec.json.decode(fields["data"]), fields.get("id"))


async def connect(
    url: str, path: str, token: str | None, headers: Mapping[str, str] | None = None, **params: object
) -> Stream:
    """Ask for a stream, and read the head of the answer."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    target = path + (f"?{urlencode(params)}" if params else "")
    sent = {"Host": "localhost", "Accept": "text/event-stream", **(headers or {})}
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
    writer.write("\r\n".join(lines).encode("latin-1"))
    stream = Stream(reader, writer)
    await stream.begin()
    return stream


@asynccontextmanager
async def streamed(
    url: str, token: str | None, path: str = "/v1/events", headers: Mapping[str, str] | None = None, **params: object
) -> AsyncIterator[Stream]:
    """Lend a stream; its connection is cut at the end, if it is still there."""
    stream = await connect(url, path, token, headers, **params)
    try:
        yield stream
    finally:
        stream.writer.transport.abort()
