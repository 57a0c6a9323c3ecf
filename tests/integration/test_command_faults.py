"""The command service while the network and the database fail it: nothing twice, nothing lost, nothing unbounded."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from keelson.log import append
from keelson.log.database import Connection, connect
from keelson.log.decision import Decision
from keelson.log.group import arguments
from support.command_world import TOKEN, Replica, World, open_world
from support.database import Database
from support.proxy import Proxy, proxied
from support.specs import ORG
from support.waiting import eventually

# Short enough to wait for, long enough for a slow machine.
COMMAND_TIMEOUT_S = 1.5
LEEWAY_S = 5.0
IMPATIENT = {
    "command_timeout_s": COMMAND_TIMEOUT_S,
    "statement_timeout_s": 0.5,
    "acquire_timeout_s": 0.5,
    "pool_size": 2,
}


@dataclass
class Faulty:
    """A world whose one replica reaches the database through a proxy."""

    world: World
    proxy: Proxy
    admin: Connection

    @property
    def replica(self) -> Replica:
        """The replica."""
        return self.world.replica

    async def names(self) -> list[str]:
        """Give the names of the organisations that were created, in order."""
        created = [event.payload for event in await self.world.events() if event.type == "org.created"]
        return [msgspec.json.decode(payload)["name"] for payload in created]

    async def is_created(self, name: str) -> bool:
        """Say whether an organisation was created under a name."""
        return name in await self.names()

    async def appends_wait(self, at_least: int = 1) -> bool:
        """Say whether so many appends wait for the head in the server."""
        waiting: int = await self.admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'keelson-command-append'"
            " AND datname = current_database() AND wait_event_type = 'Lock'"
        )
        return waiting >= at_least

    async def create_until_done(self, name: str) -> None:
        """Create an organisation, again and again while the service cannot."""

        async def done() -> bool:
            answer = await self.replica.command("org.create", headers={"Idempotency-Key": name}, name=name)
            assert answer.status in {200, 503}
            return answer.status == 200

        await eventually(done, 20)


@asynccontextmanager
async def open_faulty(database: Database, **settings: Any) -> AsyncIterator[Faulty]:
    async with (
        proxied(database.command_dsn) as proxy,
        open_world(database, database_url=proxy.url(database.command_dsn), **settings) as world,
    ):
        # The first append makes the plans: what is measured and cut afterwards is an append alone.
        await world.replica.create("org", name="first")
        admin = await connect(database.admin_dsn, application_name="test-admin")
        try:
            yield Faulty(world, proxy, admin)
        finally:
            await admin.close()


@pytest.fixture
async def faulty(database: Database) -> AsyncIterator[Faulty]:
    async with open_faulty(database) as faulty:
        yield faulty


@pytest.fixture
async def impatient(database: Database) -> AsyncIterator[Faulty]:
    async with open_faulty(database, **IMPATIENT) as faulty:
        yield faulty


@asynccontextmanager
async def head_locked(database: Database) -> AsyncIterator[None]:
    """Hold the log's head, as an append does that hangs."""
    connection = await connect(database.owner_dsn, application_name="test-lock")
    try:
        async with connection.transaction():
            await connection.execute("SELECT FROM log.head FOR UPDATE")
            yield
    finally:
        await connection.close()


# F6: the reply to COMMIT is lost.


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "key"}])
async def test_f6_a_lost_reply_to_commit_is_asked_for_again(
    database: Database, faulty: Faulty, headers: dict[str, str]
) -> None:
    async with head_locked(database):
        asked = asyncio.create_task(faulty.replica.command("org.create", headers=headers, name="acme"))
        await eventually(faulty.appends_wait)
        faulty.proxy.to_client.hold()
    await eventually(lambda: faulty.is_created("acme"))
    await eventually(lambda: faulty.proxy.to_client.held_bytes)
    faulty.proxy.cut()
    faulty.proxy.to_client.release()
    answer = await asked
    assert answer.status == 200
    assert await faulty.names() == ["first", "acme"]
    (event,) = answer.body["events"]
    assert event["position"] == answer.body["position"] == await faulty.world.head()
    assert event["aggregate_id"] == answer.result["org_id"] == (await faulty.world.events(2))[0].aggregate_id
    # And the service goes on as if nothing had been.
    assert (await faulty.replica.command("org.rename", org_id=answer.result["org_id"], name="b")).status == 200


async def a_commit_in_flight_is_not_missed(database: Database, faulty: Faulty) -> None:
    # The append waits in the server when its connection dies: a look-up of its key would not find it yet.
    async with head_locked(database):
        asked = asyncio.create_task(faulty.replica.command("org.create", name="acme"))
        await eventually(faulty.appends_wait)
        faulty.proxy.cut_clients()
        await eventually(lambda: faulty.appends_wait(2))
    assert (await asked).status == 200
    assert await faulty.names() == ["first", "acme"]


async def test_f6_a_commit_in_flight_is_not_missed(database: Database, faulty: Faulty) -> None:
    await a_commit_in_flight_is_not_missed(database, faulty)


async def test_f6_another_key_for_the_second_try_is_caught(
    database: Database, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = count()

    def forget_keys(epoch: str, decisions: list[Decision]) -> list[Any]:
        number = next(tries)
        renamed = [
            msgspec.structs.replace(each, key=each.key._replace(key=f"{each.key.key}-{number}")) for each in decisions
        ]
        return arguments(epoch, renamed)

    monkeypatch.setattr(append, "arguments", forget_keys)
    with pytest.raises(AssertionError):
        await a_commit_in_flight_is_not_missed(database, faulty)


async def test_f6_an_append_that_arrives_late_is_not_done_twice(faulty: Faulty) -> None:
    """The network delivers the first append after the second one has been answered."""
    faulty.proxy.to_server.hold()
    asked = asyncio.create_task(faulty.replica.command("org.create", name="acme"))
    await eventually(lambda: faulty.proxy.to_server.held_bytes)
    late = faulty.proxy.connections
    faulty.proxy.cut_clients()
    deliver = faulty.proxy.to_server.strand()
    assert (await asked).status == 200
    deliver()
    await eventually(lambda: not late & faulty.proxy.connections)
    assert await faulty.names() == ["first", "acme"]


async def test_f6_what_is_in_doubt_when_its_epoch_ends_means_503(database: Database) -> None:
    """Nothing is promised: it may be in the log, but to decide it again might do it twice."""
    async with open_faulty(database, command_timeout_s=30, statement_timeout_s=20) as faulty:
        faulty.proxy.to_client.hold()
        asked = asyncio.create_task(faulty.replica.command("org.create", name="acme"))
        await eventually(lambda: faulty.is_created("acme"))
        await faulty.world.log.execute("SELECT log.begin_epoch_v1('later', 'operator', 'system', 'o', 'why', 'r')")
        faulty.proxy.cut()
        faulty.proxy.to_client.release()
        answer = await asked
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "unavailable", "1")
        await faulty.create_until_done("other")
        assert await faulty.names() == ["first", "acme", "other"]


# F5, F8, F20, F39: the database hangs, is away, is silent, is too slow.


async def test_f5_a_head_that_is_held_means_503_in_time_and_a_repeat_is_safe(
    database: Database, impatient: Faulty
) -> None:
    key = {"Idempotency-Key": "key"}
    async with head_locked(database):
        started = time.monotonic()
        answer = await impatient.replica.command("org.create", headers=key, name="acme")
        assert (answer.status, answer.code) == (503, "unavailable")
        assert answer.headers["Retry-After"] == "1"
        assert time.monotonic() - started < COMMAND_TIMEOUT_S + LEEWAY_S
        # What appends nothing is answered meanwhile.
        refused = await impatient.replica.command("project.create", org_id=ORG, name="x")
        assert refused.code == "not_found"
    answer = await impatient.replica.command("org.create", headers=key, name="acme")
    assert answer.status == 200
    assert await impatient.names() == ["first", "acme"]


async def test_f8_while_the_database_is_away_commands_get_503_and_then_go_on(impatient: Faulty) -> None:
    impatient.proxy.refuses = True
    impatient.proxy.cut()
    for headers in ({}, {"Idempotency-Key": "key"}):
        answer = await impatient.replica.command("org.create", headers=headers, name="acme")
        assert (answer.status, answer.code) == (503, "unavailable")
    ready = await impatient.replica.send("GET", "/readyz", token=None)
    assert (ready.status, ready.body["checks"]["database"]) == (503, "cannot be reached")
    assert (await impatient.replica.send("GET", "/healthz", token=None)).status == 200
    impatient.proxy.refuses = False
    await impatient.create_until_done("acme")
    assert await impatient.names() == ["first", "acme"]


async def test_f20_a_black_hole_means_503_in_time(impatient: Faulty) -> None:
    impatient.proxy.to_client.swallow()
    started = time.monotonic()
    answer = await impatient.replica.command("org.create", name="acme")
    assert (answer.status, answer.code) == (503, "unavailable")
    assert time.monotonic() - started < COMMAND_TIMEOUT_S + LEEWAY_S
    impatient.proxy.to_client.release()
    await impatient.create_until_done("other")
    # Nothing was promised of the first one; it may have been appended, but not twice.
    assert await impatient.names() in (["first", "other"], ["first", "acme", "other"])


async def test_f39_queries_that_are_too_slow_mean_503_and_the_process_is_still_up(
    database: Database, impatient: Faulty
) -> None:
    blocker = await connect(database.owner_dsn, application_name="test-lock")
    try:
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE log.idempotency_keys IN ACCESS EXCLUSIVE MODE")
            commands = [
                impatient.replica.command("org.create", headers={"Idempotency-Key": f"org-{n}"}, name=f"org-{n}")
                for n in range(10)
            ]
            answers = await asyncio.gather(*commands)
            assert {(answer.status, answer.code) for answer in answers} == {(503, "unavailable")}
            assert (await impatient.replica.send("GET", "/healthz", token=None)).status == 200
    finally:
        await blocker.close()
    # Some may have been on their way to the log: with its key, each can be repeated, and is done once.
    for n in range(10):
        await impatient.create_until_done(f"org-{n}")
    assert sorted(await impatient.names()) == ["first", *(f"org-{n}" for n in range(10))]


# F40: the client goes away in mid-command.


async def test_f40_a_client_that_goes_away_leaves_nothing_half_done(database: Database, faulty: Faulty) -> None:
    body = msgspec.json.encode({"name": "acme"})
    head = [
        "POST /v1/commands/org.create HTTP/1.1",
        "Host: test",
        f"Authorization: Bearer {TOKEN}",
        "Content-Type: application/json",
        "Idempotency-Key: key",
        f"Content-Length: {len(body)}",
    ]
    where = urlsplit(faulty.replica.url)
    async with head_locked(database):
        _, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        await eventually(faulty.appends_wait)
        writer.transport.abort()
        await writer.wait_closed()
    await eventually(lambda: faulty.is_created("acme"))
    repeated = await faulty.replica.command("org.create", headers={"Idempotency-Key": "key"}, name="acme")
    assert repeated.status == 200
    assert await faulty.names() == ["first", "acme"]
    pool = faulty.replica.app.state.pool
    await eventually(lambda: pool.idle == pool.size)


# F26: another epoch.


async def test_f26_in_another_epoch_commands_go_on_on_what_the_log_says(database: Database) -> None:
    async with open_world(database, replicas=2) as world:
        first, second = world.replicas
        org_id = await world.create_org()
        renamed = await second.command("org.rename", org_id=org_id, name="acme")
        await world.log.execute("SELECT log.begin_epoch_v1('later', 'operator', 'system', 'operator', 'why', 'r')")
        changed = await first.command("org.rename", org_id=org_id, name="umbrella")
        unchanged = await second.command("org.rename", org_id=org_id, name="umbrella")
        assert (changed.status, unchanged.status) == (200, 200)
        assert (changed.body["changed"], unchanged.body["changed"]) == (True, False)
        assert changed.headers["Keelson-Epoch"] == unchanged.headers["Keelson-Epoch"] == "later"
        assert renamed.headers["Keelson-Epoch"] != "later"
