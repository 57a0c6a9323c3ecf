"""Services within the test's process: applications that run, and requests put to them without a socket."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from keelson.service.app import Application, create_app
from keelson.service.authentication import Authenticator, BearerTokens
from keelson.service.health import Check
from keelson.service.json import JsonResponse
from keelson.service.settings import Settings
from support.waiting import eventually

TOKEN = "operator-token-of-a-test"

Header = tuple[str, str]


class Answer(NamedTuple):
    """What the application sent."""

    status: int
    headers: list[Header]
    body: bytes

    def header(self, name: str) -> str | None:
        """Give a header's value; fails if it is repeated."""
        found = [value for each, value in self.headers if each == name.lower()]
        assert len(found) <= 1, f"{name} stands {len(found)} times"
        return found[0] if found else None

    @property
    def json(self) -> Any:
        """The decoded body."""
        return msgspec.json.decode(self.body)

    @property
    def problem(self) -> tuple[int, str]:
        """Its status and code; fails if it is no problem."""
        assert self.header("content-type") == "application/problem+json"
        assert self.json["status"] == self.status
        return self.status, self.json["code"]


class Silence(Exception):  # noqa: N818 - not a failure by itself
    """The application sent no answer."""


async def ask(
    app: ASGIApp,
    method: str,
    path: str,
    *headers: Header,
    body: Sequence[bytes] = (b"",),
    token: str | None = TOKEN,
    leaves: bool = False,
    stalls: bool = False,
) -> Answer:
    """Put a request to an application.

    `body` are the parts in which it arrives; after them the client `leaves`, `stalls`, or has sent all.
    """
    parts: list[Message] = [{"type": "http.request", "body": part, "more_body": True} for part in body]
    if not (leaves or stalls):
        parts[-1]["more_body"] = False
    sent: list[Message] = []

    async def receive() -> Message:
        if parts:
            return parts.pop(0)
        if stalls:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(_scope(method, path, headers, token), receive, send)
    return _answer(sent)


def _scope(method: str, path: str, headers: Sequence[Header], token: str | None) -> dict[str, Any]:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    if token is not None:
        raw.append((b"authorization", f"Bearer {token}".encode()))
    plain, _, query = path.partition("?")
    return {
        "type": "http",
        "method": method,
        "path": plain,
        "root_path": "",
        "query_string": query.encode(),
        "headers": raw,
    }


def _answer(sent: list[Message]) -> Answer:
    if not sent:
        raise Silence
    start, *parts = sent
    headers = [(name.decode(), value.decode("latin-1")) for name, value in start["headers"]]
    return Answer(start["status"], headers, b"".join(part.get("body", b"") for part in parts))


def settings(**overrides: Any) -> Settings:
    """Give settings that name no real database."""
    fields: dict[str, Any] = {"database_url": "postgresql://nobody@localhost/none", "port": 0, "operator_token": TOKEN}
    return Settings(**fields | overrides)


@asynccontextmanager
async def no_resources(app: Application) -> AsyncIterator[None]:
    app.state.epoch.learn("first")
    yield


async def echo(request: Request) -> Response:
    body = await request.body()
    state = request.state
    return JsonResponse({"size": len(body), "actor": state.caller.identity.actor, "request_id": state.request_id})


def make_app(
    *routes: Route,
    lifespan: Callable[[Application], AbstractAsyncContextManager[None]] = no_resources,
    readiness: Mapping[str, Check] | None = None,
    authenticator: Authenticator | None = None,
    body_deadline_s: float = 10.0,
    rate_limit_per_s: float = 0.0,
    rate_burst: int = 1,
    **options: Any,
) -> Application:
    """Make an application with these routes beside /echo, which reads the body and tells the actor."""
    echoes = [Route("/echo", echo, methods=["POST"]), Route("/echo", echo, methods=["GET"])]
    return create_app(
        name="test",
        settings=settings(body_deadline_s=body_deadline_s, rate_limit_per_s=rate_limit_per_s, rate_burst=rate_burst),
        routes=[*echoes, *routes],
        authenticator=authenticator or BearerTokens("test", TOKEN),
        lifespan=lifespan,
        readiness=readiness or {},
        **options,
    )


@asynccontextmanager
async def running(app: Application) -> AsyncIterator[Application]:
    """Run the application's lifespan, and begin when it serves."""
    async with app.router.lifespan_context(app):
        await eventually(lambda: app.lifecycle.answers)
        yield app
