"""The command service for its tests: any number of replicas within the test's process, on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import count
from typing import Any

import aiohttp
import msgspec

from keelson.access import Grants, Identity
from keelson.command.app import NAME, open_resources
from keelson.command.decide import Decider
from keelson.command.routes import OPERATIONS, ROUTES, TOKENLESS
from keelson.command.settings import CommandSettings
from keelson.events import Actor, Envelope
from keelson.events.ids import Position
from keelson.log.database import Connection, connect
from keelson.log.read import read_page
from keelson.service.app import Application, create_app
from keelson.service.authentication import OPERATOR, BearerTokens
from keelson.service.credentials import Caller
from keelson.service.server import Server
from support.database import Database
from support.keys import SEALING
from support.waiting import eventually, free_port

TOKEN = "the-operator-of-the-tests"
OTHER_TOKEN = "somebody-else-in-the-tests"
CALLERS = {
    TOKEN: OPERATOR,
    OTHER_TOKEN: Caller(Identity(Actor("principal", "principal_1"), "operator"), Grants(operator=True)),
}
IMAGE = "registry.example/shop@sha256:" + "0" * 64


class Tokens(BearerTokens):
    """Knows two operators by their tokens, beside what is in the vault: two actors who may send everything."""

    async def authenticate(self, authorization: str | None) -> Caller:
        """Give the token's caller."""
        caller = CALLERS.get((authorization or "").removeprefix("Bearer "))
        return caller if caller is not None else await super().authenticate(authorization)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def code(self) -> str:
        """The problem's code."""
        assert self.headers["Content-Type"] == "application/problem+json", self.body
        assert self.body["status"] == self.status
        return str(self.body["code"])

    @property
    def result(self) -> Any:
        """A command's result."""
        assert self.status == 200, self.body
        return self.body["result"]


@dataclass(frozen=True)
class Replica:
    """One replica of the service, and a way to talk to it."""

    app: Application
    url: str
    _session: aiohttp.ClientSession

    @property
    def decider(self) -> Decider:
        """What decides in there: for planting bugs."""
        decider: Decider = self.app.state.decider
        return decider

    async def send(
        self, method: str, path: str, *, token: str | None = TOKEN, headers: Any = None, body: bytes | None = None
    ) -> Answer:
        """Send anything."""
        sent = [("Authorization", f"Bearer {token}")] if token else []
        sent += list(headers.items() if isinstance(headers, Mapping) else headers or ())
        data = BytesIO(body) if body else None
        async with self._session.request(method, self.url + path, headers=sent, data=data) as response:
            content = await response.read()
            is_json = response.headers.get("Content-Type", "").endswith("json")
            return Answer(response.status, response.headers, msgspec.json.decode(content) if is_json else content)

    async def command(self, name: str, /, *, token: str = TOKEN, headers: Any = None, **data: Any) -> Answer:
        """Send a command with a reason, or as its headers say."""
        return await self.send_as(token, name, headers=headers, **data)

    async def send_as(self, bearer: str | None, name: str, /, *, headers: Any = None, **data: Any) -> Answer:
        """Send a command by a credential, or by none; its fields may have any names, `token` too."""
        return await self.send(
            "POST",
            f"/v1/commands/{name}",
            token=bearer,
            headers={"Content-Type": "application/json", "Keelson-Reason": "a test", **(headers or {})},
            body=msgspec.json.encode(data),
        )

    async def bundle(self, *commands: Mapping[str, Any], token: str = TOKEN, headers: Any = None) -> Answer:
        """Send commands as one, with a reason, or as its headers say."""
        return await self.send(
            "POST",
            "/v1/commands",
            token=token,
            headers={"Content-Type": "application/json", "Keelson-Reason": "a test", **(headers or {})},
            body=msgspec.json.encode({"commands": commands}),
        )

    async def create(self, name: str, /, **data: Any) -> str:
        """Send a command that creates, and give the id of what it made."""
        answer = await self.command(f"{name}.create", **data)
        return str(answer.result[f"{name}_id"])


@dataclass
class World:
    """A database, what is in its log, and replicas of the service on it."""

    database: Database
    log: Connection
    replicas: Sequence[Replica]
    _names: Any = field(default_factory=lambda: count(1))

    @property
    def replica(self) -> Replica:
        """The first replica."""
        return self.replicas[0]

    def new_name(self) -> str:
        """Give a name that nothing has."""
        return f"n{next(self._names)}"

    async def events(self, after: int = 0) -> list[Envelope]:
        """Give the log after a position."""
        return (await read_page(self.log, Position(after), 100_000)).envelopes

    async def head(self) -> int:
        """Give the head's position."""
        return (await read_page(self.log, Position(0), 1)).head

    async def epoch(self) -> str:
        """Give the epoch."""
        return (await read_page(self.log, Position(0), 1)).epoch

    async def create_org(self) -> str:
        """Make an organisation."""
        return await self.replica.create("org", name=self.new_name())

    async def create_project(self) -> str:
        """Make a project and what it needs."""
        return await self.replica.create("project", org_id=await self.create_org(), name=self.new_name())

    async def create_app(self) -> str:
        """Make an app and what it needs."""
        return await self.replica.create("app", project_id=await self.create_project(), name=self.new_name())

    async def create_env(self, app_id: str | None = None) -> str:
        """Make an environment and what it needs."""
        return await self.replica.create("env", app_id=app_id or await self.create_app(), name=self.new_name())

    async def create_release(self, app_id: str, *processes: str) -> str:
        """Make a release of these processes, or of web alone; each has the port http."""
        process = {"command": ["x"], "ports": [{"name": "http", "port": 8080}]}
        made = dict.fromkeys(processes or ("web",), process)
        return await self.replica.create("release", app_id=app_id, image=IMAGE, processes=made)

    async def create_running_env(self) -> tuple[str, str]:
        """Make an environment whose release has web and jobs; give it and a release that has web alone."""
        app_id = await self.create_app()
        env_id, release_id = await self.create_env(app_id), await self.create_release(app_id, "web", "jobs")
        await self.replica.create("deploy", env_id=env_id, release_id=release_id)
        return env_id, await self.create_release(app_id)


@asynccontextmanager
async def serving(database: Database, *, database_url: str | None = None, **settings: Any) -> AsyncIterator[Replica]:
    """Serve one replica on a free port, until the body ends; lend it once it works."""
    port = free_port()
    values = {
        "database_url": database_url or database.command_dsn,
        "port": port,
        "operator_token": TOKEN,
        "idempotency_secret": "the same on all replicas",
        **SEALING,
        **settings,
    }
    command_settings = CommandSettings(**values)
    app = create_app(
        name=NAME,
        settings=command_settings,
        routes=ROUTES,
        authenticator=Tokens(NAME),
        lifespan=open_resources,
        operations=OPERATIONS,
        tokenless=TOKENLESS,
    )
    server = Server(app, command_settings)
    task = asyncio.create_task(server.serve())
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await eventually(lambda: server.started and app.lifecycle.phase == "serving")
            yield Replica(app, f"http://127.0.0.1:{port}", session)
    finally:
        server.stop()
        await task
        assert app.lifecycle.failure is None


@asynccontextmanager
async def open_world(database: Database, *, replicas: int = 1, **settings: Any) -> AsyncIterator[World]:
    """Serve replicas on a fresh database."""
    async with AsyncExitStack() as stack:
        log = await connect(database.owner_dsn, application_name="test")
        stack.push_async_callback(log.close)
        served = [await stack.enter_async_context(serving(database, **settings)) for _ in range(replicas)]
        yield World(database, log, served)
