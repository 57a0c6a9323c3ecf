"""A server that stops."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from keelson.service import server as server_module
from keelson.service.connection import Connection
from keelson.service.json import JsonResponse
from keelson.service.server import Server
from support.waiting import eventually
from unit.service.asgi import TOKEN, make_app

ANSWER_BYTES = 200_000


@asynccontextmanager
async def stopping(client: socket.socket) -> AsyncIterator[asyncio.Task[None]]:
    """Let a server that sends little at once answer a client at length, and stop it; lend what ends when it has."""

    async def at_length(_request: Request) -> Response:
        return Response(b"x" * ANSWER_BYTES)

    app = make_app(Route("/length", at_length))
    server = Server(app, app.state.settings)
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started and app.lifecycle.answers)
    [listening] = server.servers[0].sockets
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, listening.getsockname())
    await loop.sock_sendall(
        client, f"GET /length HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    )
    assert (await loop.sock_recv(client, 12)) == b"HTTP/1.1 200"
    server.stop()
    yield serving
    await serving


async def test_f33_a_client_that_takes_nothing_of_its_answer_does_not_hold_a_server_that_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "STALLED_S", 0.3)
    with socket.socket() as client:
        async with stopping(client) as serving, asyncio.timeout(5):
            await serving


async def test_f33_a_client_that_takes_its_answer_slowly_gets_all_of_it_from_a_server_that_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes longer for all of it than a client may take nothing."""
    monkeypatch.setattr(server_module, "STALLED_S", 1.0)
    loop, taken = asyncio.get_running_loop(), b""
    with socket.socket() as client:
        async with stopping(client) as serving:
            began = loop.time()
            while part := await loop.sock_recv(client, 2000):
                taken += part
                await asyncio.sleep(0.03)
            await serving
            assert loop.time() - began > 2 * server_module.STALLED_S
    assert taken.count(b"x") >= ANSWER_BYTES


async def test_f33_a_connection_that_is_made_when_all_others_were_told_to_end_is_told_too() -> None:
    """It was accepted just before, and its client says nothing: the server would wait for it until it leaves."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_request: Request) -> Response:
        asked.set()
        await go_on.wait()
        return JsonResponse({})

    app = make_app(Route("/slow", slow))
    server = Server(app, app.state.settings)
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started and app.lifecycle.answers)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /slow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    await asked.wait()

    server.stop()
    await eventually(lambda: not server.servers[0].is_serving())
    late, accepted = socket.socketpair()
    with late:
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: Connection(server.config, server.server_state, server.lifespan.state), accepted
        )
        go_on.set()
        async with asyncio.timeout(5):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            await serving
        assert late.recv(1) == b""
    writer.close()
