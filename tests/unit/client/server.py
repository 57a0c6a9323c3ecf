"""A server that answers as each test of the client says."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from keelson.client import Client

EPOCH = {"Keelson-Epoch": "e1"}

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Gives the replies that it was told to, one a request and the last one again and again, and keeps what came."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.requests: list[web.Request] = []
        self.bodies: list[Any] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Keep a request and give the next reply."""
        self.requests.append(request)
        self.bodies.append(await request.json() if request.can_read_body else None)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return await reply(request)

    def sent(self, header: str) -> list[str | None]:
        """Give a header's value in each request."""
        return [request.headers.get(header) for request in self.requests]

    @asynccontextmanager
    async def client(self, **settings: Any) -> AsyncIterator[Client]:
        """Serve, and give a client of it as both services."""
        runner = web.AppRunner(web.Application(), shutdown_timeout=0.1)
        runner.app.router.add_route("*", "/{path:.*}", self.handle)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            url = f"http://{host}:{port}/"
            async with Client(url, url, "token-of-a-test", **settings) as client:
                yield client
        finally:
            await runner.cleanup()


def answering(body: Any, status: int = 200, **headers: str) -> Reply:
    """Give a reply of JSON; names of headers have _ for -."""

    async def reply(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response(body, status=status, headers=EPOCH | named)

    return reply


def refusing(status: int, code: str) -> Reply:
    """Give a reply that is a problem."""
    return answering({"title": code, "status": status, "detail": f"it is {code}", "code": code}, status)
