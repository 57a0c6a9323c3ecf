"""A server that stops."""

import asyncio
import socket

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from keelson.service.connection import Connection
from keelson.service.json import JsonResponse
from keelson.service.server import Server
from support.waiting import eventually
from unit.service.asgi import TOKEN, make_app


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
