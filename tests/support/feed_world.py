"""A log for the change feed's tests: commands of many shapes, credentials that end, epochs, a log that is put back.

It is written as the append function writes it, so that commands are whole and readers are notified; and what it was in
every epoch is kept, for the judge.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from random import Random
from time import monotonic
from typing import NamedTuple

import msgspec

from keelson.access.tokens import hash_token, new_token
from keelson.events import Event, Ids
from keelson.events.env import EnvConfigSet
from keelson.events.ids import AggregateId
from keelson.events.instance import InstanceStatusChanged
from keelson.events.node import NodeCapacitySet
from keelson.events.org import OrgCreated
from keelson.events.principal import PrincipalCreated, PrincipalCredentialIssued, PrincipalCredentialRevoked
from keelson.log.database import Connection
from keelson.log.decision import Context, CredentialRow, Done
from support.database import Database
from support.decisions import OPERATOR, an_event, decide, made_id
from support.feed_judge import Epoch
from support.feed_judge import Event as Row
from support.log import append_group, begin_epoch, connected, read_epoch

ORGS = tuple(made_id("org", number) for number in range(1, 4))
ENVS = tuple(
    Ids(
        org_id=org_id,
        project_id=made_id("project", place),
        app_id=made_id("app", place),
        env_id=made_id("env", 10 * place + number),
    )
    for place, org_id in enumerate(ORGS, start=1)
    for number in range(2)
)
NODES = tuple(made_id("node", number) for number in range(1, 3))
CORRELATIONS = ("morning", "evening")


class Credential(NamedTuple):
    """A credential of a principal that may read the log of its organisation."""

    token: str
    credential_id: str
    principal_id: AggregateId
    org_id: str


class FeedWorld:
    """A log that is written by one at a time; `epochs` is what it was, and `head` where it is."""

    def __init__(self, connection: Connection, epoch: str) -> None:
        self._connection = connection
        self._seqs: Counter[str] = Counter()
        self._one_at_a_time = asyncio.Lock()
        self._began_at = monotonic()
        self._past: list[Epoch] = []
        self._kept = 0
        self.epoch = epoch
        self.head = 0

    @property
    def cursor(self) -> str:
        """The head's cursor."""
        return f"{self.epoch}-{self.head}"

    async def begin(self) -> None:
        """Append the organisations, which no log that is put back loses."""
        for number, org_id in enumerate(ORGS):
            await self.append([(org_id, Ids(org_id=org_id), OrgCreated(name=f"org-{number}"))])

    async def append(
        self,
        events: Sequence[tuple[AggregateId, Ids, Event]],
        credential: CredentialRow | None = None,
        correlation_id: str | None = None,
    ) -> int:
        """Append one command; give its last position."""
        async with self._one_at_a_time:
            made = []
            for aggregate_id, ids, event in events:
                self._seqs[aggregate_id] += 1
                made.append(an_event(aggregate_id, self._seqs[aggregate_id], event, **_named(ids)))
            context = Context(actor=OPERATOR, request_id=f"request-{self.head % 5}", correlation_id=correlation_id)
            credentials = [credential] if credential is not None else []
            decision = decide(self.epoch, *made, credentials=credentials, context=context)
            [outcome] = await append_group(self._connection, decision)
            assert isinstance(outcome, Done), outcome
            self.head = outcome.position
            return self.head

    async def append_at_random(self, random: Random) -> None:
        """Append a command of some events of some organisations, in any order, now and then a large one."""
        count = random.choice((1, 1, 2, 3, 6))
        events = [_any_event(random) for _ in range(count)]
        await self.append(events, correlation_id=random.choice((None, *CORRELATIONS)))

    async def issue(self, org_id: str) -> Credential:
        """Make a principal that may read its organisation's log, and give it a credential."""
        token, credential_id, principal_id = new_token(), made_id("credential"), made_id("principal")
        row = CredentialRow(credential_id, hash_token(token), "principal", principal_id, principal_id)
        ids = Ids(org_id=org_id)
        created = PrincipalCreated(name=principal_id.replace("_", "-"), scopes=("audit:read",))
        issued = PrincipalCredentialIssued(credential_id=credential_id)
        await self.append([(principal_id, ids, created), (principal_id, ids, issued)], row)
        self._kept = self.head
        return Credential(token, credential_id, principal_id, org_id)

    async def revoke(self, credential: Credential) -> datetime:
        """Revoke a credential; give when that was recorded."""
        row = CredentialRow(credential.credential_id, None, None, None, None)
        revoked = PrincipalCredentialRevoked(credential_id=credential.credential_id)
        position = await self.append([(credential.principal_id, Ids(org_id=credential.org_id), revoked)], row)
        async with self._one_at_a_time:
            sql = "SELECT recorded_at FROM log.events WHERE position = $1"
            recorded_at: datetime = await self._connection.fetchval(sql, position)
        return recorded_at

    async def begin_epoch(self, name: str, *, lost: int = 0) -> None:
        """Begin an epoch; so many of the last events are lost, rather the whole of their commands, as by a restore."""
        async with self._one_at_a_time, self._connection.transaction():
            await self._connection.execute("SELECT FROM log.head FOR UPDATE")
            log = await self._read()
            began_at, ended_at, self._began_at = self._began_at, monotonic(), monotonic()
            self._past.append(Epoch(self.epoch, log, began_at, ended_at))
            if lost:
                await self._put_back(log, lost)
            await begin_epoch(self._connection, name)
            self.epoch = name
            self.head = await self._connection.fetchval("SELECT position FROM log.head")
        # Until now nobody else could see it.
        self._past[-1].ended_at = monotonic()

    async def _put_back(self, log: Sequence[Row], lost: int) -> None:
        """Do what a restore of an older state does, but for the outage."""
        ends = [row["position"] for row in log if row["command_end"]]
        kept = max([self._kept, *(end for end in ends if end <= len(log) - lost)])
        await self._connection.execute("ALTER TABLE log.events DISABLE TRIGGER append_only")
        await self._connection.execute("DELETE FROM log.events WHERE position > $1", kept)
        await self._connection.execute("ALTER TABLE log.events ENABLE TRIGGER append_only")
        await self._connection.execute("UPDATE log.head SET position = $1", kept)
        self._seqs = Counter(row["aggregate_id"] for row in log if row["position"] <= kept)

    async def epochs(self) -> list[Epoch]:
        """Give every epoch, the last as it is now."""
        async with self._one_at_a_time:
            return [*self._past, Epoch(self.epoch, await self._read(), self._began_at)]

    async def _read(self) -> list[Row]:
        return [dict(row) for row in await self._connection.fetch("SELECT * FROM log.events ORDER BY position")]

    async def cut_readers(self) -> None:
        """End every session of the query service in the database, its listeners among them."""
        async with self._one_at_a_time:
            sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'keelson-query%'"
            await self._connection.execute(sql)


def _named(ids: Ids) -> dict[str, str]:
    return {name: value for name, value in msgspec.structs.asdict(ids).items() if value is not None}


def _any_event(random: Random) -> tuple[AggregateId, Ids, Event]:
    env, node_id = random.choice(ENVS), random.choice(NODES)
    match random.random():
        case chance if chance < 0.7:
            text = "x" * random.choice((1, 10, 500, 3000))
            return AggregateId(env.env_id or ""), env, EnvConfigSet(variables={"TEXT": text})
        case chance if chance < 0.85:
            ids = msgspec.structs.replace(env, node_id=node_id)
            instance_id = made_id("instance", int((env.env_id or "_0").rpartition("_")[2]))
            return instance_id, ids, InstanceStatusChanged(status="booting")
        case _:
            capacity = NodeCapacitySet(cpu_millis=random.randrange(1, 9), memory_bytes=1)
            return node_id, Ids(node_id=node_id), capacity


@asynccontextmanager
async def open_feed_world(database: Database) -> AsyncIterator[FeedWorld]:
    """Lend a world on a fresh database."""
    async with connected(database.admin_dsn) as connection:
        world = FeedWorld(connection, await read_epoch(connection))
        await world.begin()
        yield world
