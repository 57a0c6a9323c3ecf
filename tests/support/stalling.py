"""Clients that ask for a stream and take nothing, or a little now and then, of what they are told."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.query_world import TOKEN, Reader

# The smallest buffers that the kernel gives, about: what is told fills a service's own buffers soon.
SMALL_BUFFER_BYTES = 4096


@asynccontextmanager
async def never_reading(reader: Reader, *, after: int, token: str = TOKEN) -> AsyncIterator[socket.socket]:
    """Ask for a stream, by a socket that takes little and is never read."""
    port = int(reader.url.rpartition(":")[2])
    lines = [
        f"GET /v1/events?after={after} HTTP/1.1",
        "Host: localhost",
        "Accept: text/event-stream",
        f"Authorization: Bearer {token}",
    ]
    async with asking(port, "\r\n".join(lines) + "\r\n\r\n") as idle:
        yield idle


@asynccontextmanager
async def asking(port: int, request: str) -> AsyncIterator[socket.socket]:
    """Send a request by a socket that takes little; it is read by whoever asked, or by nobody."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, request.encode())
        yield client


def buffered(reader: Reader) -> int:
    """Give the bytes that wait for the client that has most of them."""
    sizes = [each.transport.get_write_buffer_size() for each in reader.server.server_state.connections]
    return max(sizes, default=0)


def sleeping(reader: Reader) -> int:
    """Give how many streams sleep until something that matches happens."""
    return sum(len(interest.sleepers) for interest in reader.app.state.feed.hub._interests)
