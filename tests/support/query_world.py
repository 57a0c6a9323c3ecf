"""A log and views for the query service's tests, and the service itself, served within the test's process.

The log is written as its owner, who may insert, with whatever times a test wants; the views by the projector's own
functions, when a test says so and no earlier.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import msgspec

from keelson.events import Envelope, Event, Ids
from keelson.events.app import AppCreated
from keelson.events.env import EnvCreated
from keelson.events.ids import AggregateId, Position, Seq
from keelson.events.org import OrgCreated
from keelson.events.project import ProjectCreated
from keelson.events.registry import encode
from keelson.log.database import Connection, connect
from keelson.log.read import read_head
from keelson.log.tail import LOG_CHANNEL
from keelson.projector.checkpoints import begin, move, read_checkpoint
from keelson.projector.folding import fold_batch
from keelson.projector.pages import read_batch
from keelson.projector.writer import write_rows
from keelson.query.app import build_app
from keelson.query.settings import QuerySettings
from keelson.service.app import Application
from keelson.service.checkpoints import CHANNEL
from keelson.service.server import Server
from keelson.views import PROJECTIONS
from support.database import Database
from support.waiting import eventually, free_port

TOKEN = "a-token-of-the-tests"


def make_id(prefix: str, number: int) -> AggregateId:
    """Give an id by number; ids order as their numbers do."""
    return AggregateId(f"{prefix}_{number:026d}")


# What stands in an organisation, and in nothing of it.
_OF_AN_ORG = ("principal",)

ORG, PROJECT, APP, ENV, NODE = (make_id(prefix, 1) for prefix in ("org", "project", "app", "env", "node"))
IDS = {
    "org": Ids(org_id=ORG),
    "project": Ids(org_id=ORG, project_id=PROJECT),
    "app": Ids(org_id=ORG, project_id=PROJECT, app_id=APP),
    "env": Ids(org_id=ORG, project_id=PROJECT, app_id=APP, env_id=ENV),
    "node": Ids(node_id=NODE),
}
# Of an instance in the base's environment, on the first node.
INSTANCE_IDS = msgspec.structs.replace(IDS["env"], node_id=NODE)


@dataclass
class World:
    """One database, its log and its views."""

    owner: Connection
    projector: Connection
    epoch: str
    began_at: datetime
    head: int
    _seqs: dict[str, int] = field(default_factory=dict)

    async def append(
        self,
        *events: tuple[AggregateId, Event],
        ids: Ids | None = None,
        recorded_at: datetime | None = None,
        announced: bool = True,
        **context: Any,
    ) -> int:
        """Append the events as one command; give the last one's position. Times default to a second per position."""
        command_id = f"command_{self.head + 1}"
        envelopes = []
        for index, (aggregate_id, event) in enumerate(events, start=1):
            self.head += 1
            envelope = Envelope(
                position=Position(self.head),
                aggregate_id=aggregate_id,
                seq=Seq(self._next_seq(aggregate_id)),
                type=event.event_type,
                version=event.event_version,
                command_id=command_id,
                command_end=index == len(events),
                recorded_at=recorded_at or self.time_of(self.head),
                payload=encode(event),
                **{"actor_type": "system", "actor_id": "operator", "request_id": "r", **context},
                **msgspec.structs.asdict(ids if ids is not None else _ids_of(aggregate_id)),
            )
            envelopes.append(envelope)
        async with self.owner.transaction():
            for envelope in envelopes:
                await self.insert(envelope)
        if announced:
            await self.announce()
        return self.head

    async def announce(self) -> None:
        """Notify who listens where the head is, as an append does."""
        await self.owner.execute("SELECT pg_notify($1, $2)", LOG_CHANNEL, str(self.head))

    def time_of(self, position: int) -> datetime:
        """Give the time at which an event is recorded unless a test says otherwise."""
        return self.began_at + timedelta(seconds=position)

    async def insert(self, envelope: Envelope) -> None:
        """Insert an event just as it is, and move the head there."""
        self.head = envelope.position
        row = msgspec.structs.asdict(envelope)
        places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
        async with self.owner.transaction():
            await self.owner.execute(
                f"INSERT INTO log.events ({', '.join(row)}) VALUES ({places})",  # noqa: S608 - the struct's own names
                *row.values(),
            )
            await self.owner.execute(
                "UPDATE log.head SET position = $1, recorded_at = $2", envelope.position, envelope.recorded_at
            )

    def forget_seq(self, aggregate_id: str) -> None:
        """Count an aggregate's last event as never appended."""
        self._seqs[aggregate_id] -= 1

    def _next_seq(self, aggregate_id: str) -> int:
        self._seqs[aggregate_id] = self._seqs.get(aggregate_id, 0) + 1
        return self._seqs[aggregate_id]

    async def append_base(self) -> None:
        """Append an organisation, a project, an app and an environment."""
        await self.append((ORG, OrgCreated(name="acme")))
        await self.append((PROJECT, ProjectCreated(name="web")))
        await self.append((APP, AppCreated(name="shop")))
        await self.append((ENV, EnvCreated(name="production")))

    async def begin_views(self) -> None:
        """Make empty views, as the projector does at its first start."""
        for projection in PROJECTIONS.values():
            await begin(self.projector, projection)

    async def project(self, *names: str, announce: bool = True) -> None:
        """Apply the rest of the log to some projections (by default all), in one transaction each, and announce it."""
        for projection in (PROJECTIONS[name] for name in names or PROJECTIONS):
            checkpoint = await read_checkpoint(self.projector, projection.name)
            assert checkpoint is not None
            batch = await read_batch(self.projector, checkpoint.position, 100_000)
            folded = fold_batch(projection, batch, frozenset())
            assert folded.stop is None
            async with self.projector.transaction():
                await move(self.projector, projection, batch, 0.0)
                await write_rows(self.projector, folded.fold)
                if announce:
                    await self.projector.execute("SELECT pg_notify($1, $2)", CHANNEL, f"{projection.name} {batch.end}")


def _ids_of(aggregate_id: str) -> Ids:
    """Give the ids of the base's entities; of one that has the same parents, with its own."""
    prefix = aggregate_id.partition("_")[0]
    if prefix == "instance":
        return INSTANCE_IDS
    parents = "env" if prefix in ("deploy", "route", "secret") else "org" if prefix in _OF_AN_ORG else "app"
    own = IDS.get(prefix, IDS[parents])
    return msgspec.structs.replace(own, **({f"{prefix}_id": aggregate_id} if prefix in IDS else {}))


@asynccontextmanager
async def open_world(database: Database) -> AsyncIterator[World]:
    """Open a world on a fresh database, its views empty and its log with the first epoch alone."""
    async with AsyncExitStack() as stack:
        owner = await connect(database.owner_dsn, application_name="test-owner")
        stack.push_async_callback(owner.close)
        projector = await connect(database.projector_dsn, application_name="test-projector")
        stack.push_async_callback(projector.close)
        head = await read_head(owner)
        world = World(owner, projector, head.epoch, head.recorded_at, head.position)
        await world.begin_views()
        yield world


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def code(self) -> str:
        """The problem's code."""
        assert self.headers["Content-Type"] == "application/problem+json"
        return str(self.body["code"])


class Reader:
    """Reads from a served query service, as the operator unless a test says otherwise."""

    def __init__(self, session: aiohttp.ClientSession, url: str, server: Server, app: Application) -> None:
        self._session = session
        self.url = url
        self.server = server
        self.app = app

    async def get(self, path: str, *, token: str | None = TOKEN, headers: Any = None, **params: Any) -> Answer:
        """GET a path; the answer's body is decoded."""
        authorization = {"Authorization": f"Bearer {token}"} if token else {}
        text = {name: str(value) for name, value in params.items()}
        async with self._session.get(self.url + path, params=text, headers=authorization | (headers or {})) as response:
            body = await response.read()
            is_json = response.headers.get("Content-Type", "").endswith("json")
            return Answer(response.status, response.headers, msgspec.json.decode(body) if is_json else body)

    async def get_all(self, path: str, **params: Any) -> list[Any]:
        """Read all pages of a collection, each by the cursor of the one before."""
        items: list[Any] = []
        while True:
            page = await self.get(path, **params)
            assert page.status == 200, page.body
            items += page.body["items"]
            if page.body["next"] is None:
                return items
            params["cursor"] = page.body["next"]


@asynccontextmanager
async def served(database: Database, **settings: Any) -> AsyncIterator[Reader]:
    """Serve the query service on a free port, within this process; lend a reader once it answers."""
    port = free_port()
    values = {"database_url": database.query_dsn, "port": port, "operator_token": TOKEN, **settings}
    app = build_app(QuerySettings(**values))
    server = Server(app, app.state.settings)
    serving = asyncio.create_task(server.serve())
    try:
        async with aiohttp.ClientSession() as session:
            await eventually(lambda: server.started and app.lifecycle.phase == "serving" and app.state.epoch.name)
            yield Reader(session, f"http://127.0.0.1:{port}", server, app)
    finally:
        server.stop()
        await serving
