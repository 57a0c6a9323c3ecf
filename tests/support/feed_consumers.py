"""Consumers of the change feed, each keeping a history of all that it was told: streams, pages, and our own client.

A stream and a page are read off the socket by code of the tests; the client by `keelson.client`. Each goes on from what
it was told, as the contract lets it: from its last cursor, now and then from an earlier one, from the beginning, or
from one of an epoch that is over.
"""

import asyncio
import json
import socket
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from random import Random
from time import monotonic
from typing import Any, Protocol
from urllib.parse import urlencode

import httptools
import msgspec

from keelson.client import Client, ProblemError
from keelson.client.stream import Bookmark, Change, Resync
from support.feed_judge import Consumer, Session, Told
from support.frames import Frame, FrameReader

# A stream that has said nothing for so long is taken for dead, as a client of ours would; comments come in between.
IDLE_S = 3.0
# What a slow reader's socket holds: little, so that whoever writes to it feels it.
_SMALL_BUFFER = 4096
_PIECE = 1500


class Listener(Protocol):
    """Somebody who listens until stopped, and whose history is kept."""

    consumer: Consumer

    async def run(self) -> None:
        """Listen, for ever or until refused for good."""

    @property
    def cursor(self) -> str | None:
        """The last cursor that it was told."""


@dataclass
class Ask:
    """How a listener asks: to which of these ports, as whom, by which chance; `calm` is set when it is to behave."""

    port: Callable[[], int]
    direct_port: Callable[[], int]
    token: str
    random: Random
    calm: Callable[[], bool] = lambda: False

    def likes(self, chance: float) -> bool:
        """Say whether it does this time what it does with this chance."""
        return not self.calm() and self.random.random() < chance


@dataclass
class _Listening:
    consumer: Consumer
    ask: Ask
    cursors: list[str] = field(default_factory=list)
    # Those of epochs that are over.
    stale: list[str] = field(default_factory=list)
    is_refused: bool = False

    @property
    def cursor(self) -> str | None:
        """The last cursor that it was told."""
        return self.cursors[-1] if self.cursors else None

    def begin(self) -> Session:
        """Begin a session where it left off, or, once in a while, elsewhere."""
        return self.begin_at(self._choose_start())

    def begin_at(self, start: str | None) -> Session:
        """Begin a session there."""
        session = Session(start, monotonic())
        self.consumer.sessions.append(session)
        return session

    def _choose_start(self) -> str | None:
        if self.stale and self.ask.likes(0.05):
            return self.ask.random.choice(self.stale)
        if self.cursors and self.ask.likes(0.15):
            return self.ask.random.choice(self.cursors)
        return None if self.ask.likes(0.05) else self.cursor

    def end(self, session: Session) -> None:
        """Note how a session ended; what was lost with its epoch is begun anew."""
        session.ended_at = monotonic()
        if session.status == 410 or any(told.kind == "resync" for told in session.told):
            if session.start == self.cursor or session.status == 200:
                self.stale += self.cursors
                self.cursors.clear()
        elif session.status in (401, 403):
            self.is_refused = True

    def hear(self, session: Session, told: Told) -> None:
        """Keep what was told."""
        session.told.append(told)
        if told.cursor is not None:
            self.cursors.append(told.cursor)

    async def rest(self) -> None:
        """Wait a moment, as whoever connects again should."""
        await asyncio.sleep(self.ask.random.uniform(0.0, 0.1))


class Streamer(_Listening):
    """Reads the stream off a socket."""

    async def run(self) -> None:
        """Listen until refused for good; now and then twice at once, or so slowly that others would be held back."""
        while not self.is_refused:
            copies = 2 if self.ask.likes(0.1) else 1
            await asyncio.gather(*(self._listen(self.begin()) for _ in range(copies)))
            await self.rest()

    async def _listen(self, session: Session) -> None:
        is_slow = self.ask.likes(0.2)
        answer = Answer(lambda frame: self.hear(session, told_by(frame)))
        try:
            await self._read(session, answer, is_slow=is_slow)
        except (OSError, TimeoutError):
            pass
        finally:
            session.status, session.epoch = answer.status, answer.headers.get("keelson-epoch")
            self.end(session)

    async def _read(self, session: Session, answer: "Answer", *, is_slow: bool) -> None:
        await read_stream(self.ask, "/v1/events", session.start, self.consumer.wanted, answer, is_slow=is_slow)


async def read_stream(
    ask: Ask, path: str, start: str | None, wanted: Mapping[str, str], answer: "Answer", *, is_slow: bool
) -> None:
    """Ask for a stream and read it to its end. Raises OSError, TimeoutError and FrameError.

    Who is slow has no proxy between, whose buffers would be read at once; and once it is calm, it leaves.
    """
    port = ask.direct_port() if is_slow else ask.port()
    reader, writer = await _connect(port, is_slow=is_slow)
    try:
        writer.write(_request(path, start, wanted, ask))
        while not answer.is_over and not (is_slow and ask.calm()):
            if is_slow and ask.likes(0.3):
                await asyncio.sleep(ask.random.uniform(0.1, 0.8))
            async with asyncio.timeout(IDLE_S):
                data = await reader.read(_PIECE)
            if not data:
                return
            answer.feed(data)
    finally:
        writer.transport.abort()


async def _connect(port: int, *, is_slow: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    connection = socket.socket()
    connection.setblocking(False)
    if is_slow:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
    try:
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        return await asyncio.open_connection(sock=connection, limit=_SMALL_BUFFER)
    except BaseException:
        connection.close()
        raise


def _request(path: str, start: str | None, wanted: Mapping[str, str], ask: Ask) -> bytes:
    """Write the request; the cursor goes into the header or among the parameters, which is the same."""
    by_header = start is not None and "-" in start and ask.random.random() < 0.5
    parameters = dict(wanted) if start is None or by_header else {**wanted, "after": start}
    lines = [
        f"GET {path}?{urlencode(parameters)} HTTP/1.1",
        "Host: 127.0.0.1",
        "Accept: text/event-stream",
        f"Authorization: Bearer {ask.token}",
    ]
    if by_header:
        lines.append(f"Last-Event-ID: {start}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Answer:
    """An answer as it comes in: status, headers, and, if it is a stream, its frames."""

    def __init__(self, hear: Callable[[Frame], None]) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_over = False
        self.body = b""
        self._hear = hear
        self._frames = FrameReader()
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take what came. Raises FrameError for what no stream of ours says."""
        self._parser.feed_data(data)
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            said, self.body = self.body, b""
            for frame in self._frames.feed(said):
                if frame.kind not in ("comment", "retry"):
                    self._hear(frame)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self.headers[name.decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        """Take the status."""
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Keep it, until it is known what it is."""
        self.body += body

    def on_message_complete(self) -> None:
        """Note the end, which a stream has too."""
        self.is_over = True


def told_by(frame: Frame) -> Told:
    """Give what a frame says."""
    return Told(frame.kind, frame.id, json.loads(frame.data))


class Pager(_Listening):
    """Reads pages, and waits for the next by long poll."""

    async def run(self) -> None:
        """Read on until refused for good."""
        while not self.is_refused:
            session = self.begin()
            with suppress(OSError, TimeoutError):
                await self._page(session)
            self.end(session)
            await self.rest()

    async def _page(self, session: Session) -> None:
        parameters = {**self.consumer.wanted, "limit": str(self.ask.random.choice((1, 3, 50)))}
        parameters |= {"wait": "1"} if self.ask.likes(0.7) else {}
        parameters |= {} if session.start is None else {"after": session.start}
        status, body = await _get(self.ask, f"/v1/events?{urlencode(parameters)}")
        session.status = status
        if status == 200:
            for told in told_by_page(body):
                self.hear(session, told)


def told_by_page(page: Mapping[str, Any]) -> list[Told]:
    """Give what a page says, as a stream would: the last of a command's events gives a cursor, `next` is a bookmark."""
    epoch, _, position = page["next"].rpartition("-")
    items = page["items"]
    lasts = {item["command_id"]: item["position"] for item in items}
    told = [
        Told("event", f"{epoch}-{item['position']}" if item["position"] in lasts.values() else None, item)
        for item in items
    ]
    return [*told, Told("bookmark", page["next"], {"position": int(position)})]


async def _get(ask: Ask, path: str) -> tuple[int, Any]:
    """Get a path, by a connection of its own that ends with the answer. Raises OSError for half an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", ask.port())
    try:
        head = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer {ask.token}\r\n\r\n"
        )
        writer.write(head.encode())
        async with asyncio.timeout(IDLE_S):
            content = await reader.read(-1)
    finally:
        writer.transport.abort()
    return _read_answer(content)


def _read_answer(content: bytes) -> tuple[int, Any]:
    answer = Answer(lambda _frame: None)
    answer.feed(content)
    if not answer.is_over:
        raise ConnectionResetError("half an answer")
    return answer.status, json.loads(answer.body)


class Follower(_Listening):
    """Follows by our own client, which connects again by itself; begun anew now and then, as programs are."""

    def __init__(self, consumer: Consumer, ask: Ask, client: Client) -> None:
        super().__init__(consumer, ask)
        self._client = client

    async def run(self) -> None:
        """Follow until refused for good."""
        while not self.is_refused:
            session = self.begin()
            with suppress(TimeoutError):
                await self._follow(session)
            await self.rest()

    async def _follow(self, session: Session) -> None:
        lasts_s = None if self.ask.calm() else self.ask.random.uniform(0.5, 3.0)
        filters: Any = self.consumer.wanted
        try:
            async with asyncio.timeout(lasts_s), aclosing(self._client.follow_events(session.start, **filters)) as feed:
                async for item in feed:
                    session.status = 200
                    session = self._take(session, item)
        except ProblemError as problem:
            session.status = problem.status
        finally:
            self.end(session)

    def _take(self, session: Session, item: Change | Bookmark | Resync) -> Session:
        """Keep what came; after a resync all begins anew, in a session of its own."""
        match item:
            case Change():
                self.hear(session, Told("event", item.cursor, msgspec.to_builtins(item.event)))
            case Bookmark():
                self.hear(session, Told("bookmark", item.cursor, {"position": item.position}))
            case Resync():
                self.hear(session, Told("resync", None, {"epoch": item.epoch}))
                self.end(session)
                return self.begin_at(None)
        return session
