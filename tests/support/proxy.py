"""A TCP proxy that misbehaves as networks do: it cuts, delays, holds and swallows, per direction.

async with proxied(dsn) as proxy:
    service = start(proxy.url(dsn))
    proxy.to_client.hold()          # what the server says from now on is kept back …
    await eventually(committed)
    proxy.cut()                     # … and lost: a reply to COMMIT that never came (F6)
    proxy.to_client.release()

Where each connection is to fare in its own way, `proxy.fate` says how: where it leads, and when it is cut.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple
from urllib.parse import urlsplit

_CHUNK_BYTES = 64 * 1024

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Direction:
    """One direction of every connection: what is done with bytes on their way. They flow unless told otherwise."""

    def __init__(self, *, cut_after_bytes: int | None = None, resets: bool = True) -> None:
        """Carry all; or so many bytes and not one more, and then end by a reset, or by an orderly end."""
        self.resets = resets
        self.delay_s = 0.0
        self.held_bytes = 0
        self.swallowed_bytes = 0
        self._left_bytes = cut_after_bytes
        self._swallows = False
        self._flows = asyncio.Event()
        self._flows.set()

    def hold(self) -> None:
        """Keep everything back, until `release`."""
        self._flows.clear()

    def swallow(self) -> None:
        """Lose everything silently, until `release`: a black hole, whose ends believe in each other."""
        self._swallows = True

    def release(self) -> None:
        """Let everything flow again, what was held back first; what was swallowed is lost."""
        self._swallows = False
        self._flows.set()

    def strand(self) -> Callable[[], None]:
        """Let flow what comes from now on, but not what is held back: give what releases that, later."""
        held, self._flows = self._flows, asyncio.Event()
        self._flows.set()
        return held.set

    async def carry(self, data: bytes) -> bytes:
        """Take bytes and give what comes out at the other end, when it does."""
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if not self._flows.is_set():
            self.held_bytes += len(data)
            try:
                await self._flows.wait()
            finally:
                self.held_bytes -= len(data)
        if self._swallows:
            self.swallowed_bytes += len(data)
            return b""
        if self._left_bytes is not None:
            data = data[: self._left_bytes]
            self._left_bytes -= len(data)
        return data

    @property
    def is_spent(self) -> bool:
        """Whether it carries nothing any more, and its connections are to end."""
        return self._left_bytes == 0


class Fate(NamedTuple):
    """Where one connection leads, and what is done with what it is told."""

    target: tuple[str, int]
    to_client: Direction


class _SpentError(Exception):
    """One connection has carried all that it was to carry."""


class _Link:
    """One connection through the proxy: the streams of both sides, and a pump each way."""

    def __init__(self, client: _Streams, server: _Streams) -> None:
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server

    async def run(self, to_server: Direction, to_client: Direction) -> None:
        """Carry bytes both ways until both sides are done, or one is cut off."""
        try:
            await self._carry(to_server, to_client)
        except asyncio.CancelledError:
            _reset(self._to_client)
            _reset(self._to_server)
            raise
        finally:
            self._to_client.close()
            self._to_server.close()
            for writer in (self._to_client, self._to_server):
                with suppress(ConnectionError):
                    await writer.wait_closed()

    async def _carry(self, to_server: Direction, to_client: Direction) -> None:
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(_pump(self._from_client, to_server, self._to_server))
                pumps.create_task(_pump(self._from_server, to_client, self._to_client))
        except* _SpentError:
            _reset(self._to_server)
            if to_client.resets:
                _reset(self._to_client)

    def cut_client(self) -> None:
        """Reset the client's side; what is on its way to the server still arrives there."""
        _reset(self._to_client)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close at once, and tell the peer by a reset instead of an orderly end."""
    if not writer.transport.is_closing():
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, direction: Direction, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(await direction.carry(data))
            await writer.drain()
            if direction.is_spent:
                raise _SpentError
    # One side has ended: the other is told when all that it said has been passed on.
    with suppress(OSError):
        writer.write_eof()


class Proxy:
    """Listens on a free port of its own and connects each client to the server."""

    def __init__(self, host: str, port: int, links: asyncio.TaskGroup) -> None:
        self._tasks = links
        self._links: dict[asyncio.Task[None], _Link] = {}
        self.to_server = Direction()
        self.to_client = Direction()
        self.fate: Callable[[], Fate] = lambda: Fate((host, port), self.to_client)
        self.refuses = False
        self.port = 0
        self.accepted = 0

    def url(self, dsn: str) -> str:
        """Give a DSN, or any URL, that leads through the proxy."""
        parts = urlsplit(dsn)
        credentials, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self.port}").geturl()

    @property
    def connections(self) -> AbstractSet[object]:
        """Give a token of each connection that is open, on either side."""
        return set(self._links)

    def cut(self) -> None:
        """Reset every connection on both sides; what was on its way is lost."""
        for task in list(self._links):
            task.cancel()

    def cut_clients(self) -> None:
        """Reset the clients' side only: what they sent still reaches the server, if need be after `release`."""
        for link in self._links.values():
            link.cut_client()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection; it is reset at once while `refuses` is set, or if the server is away."""
        self.accepted += 1
        if self.refuses:
            _reset(writer)
        else:
            self._tasks.create_task(self._serve((reader, writer)))

    async def _serve(self, client: _Streams) -> None:
        task = asyncio.current_task()
        assert task is not None
        fate = self.fate()
        try:
            link = _Link(client, await asyncio.open_connection(*fate.target))
        except OSError:
            _reset(client[1])
            return
        self._links[task] = link
        try:
            await link.run(self.to_server, fate.to_client)
        finally:
            del self._links[task]


@asynccontextmanager
async def running_proxy(host: str, port: int) -> AsyncIterator[Proxy]:
    """Lend a proxy in front of a server; every connection through it is reset afterwards."""
    async with asyncio.TaskGroup() as links:
        proxy = Proxy(host, port, links)
        listener = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
        proxy.port = listener.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            listener.close()
            proxy.cut()


@asynccontextmanager
async def proxied(dsn: str) -> AsyncIterator[Proxy]:
    """Lend a proxy in front of the server of a DSN; `proxy.url(dsn)` leads through it."""
    parts = urlsplit(dsn)
    assert parts.hostname is not None
    assert parts.port is not None
    async with running_proxy(parts.hostname, parts.port) as proxy:
        yield proxy
