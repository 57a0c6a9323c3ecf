"""Services behind PgBouncer: sessions must be their own; a listener that has none costs a poll, no more (F21)."""

import asyncio
import os
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keelson.client import Client
from keelson.log.database import open_pool
from keelson.log.listen import Listener
from keelson.log.pooling import shares_sessions
from keelson.log.tail import LOG_CHANNEL
from keelson.service.lifecycle import background
from support.database import Cluster, Database
from support.keys import DIGEST_KEY, SECRET_KEYS
from support.log import connected
from support.pgbouncer import PROGRAM, running_pgbouncer
from support.programs import needs
from support.projecting import assert_views_equal_fold, caught_up, pooled
from support.stack import Stack, running_stack
from support.waiting import eventually, free_port

pytestmark = needs(PROGRAM, "the services run behind it")

SERVICES = ("command", "projector", "query")
REFUSED = (
    "keelson: KEELSON_DATABASE_URL leads through a pooler that lends sessions by transaction or statement; "
    "Keelson needs sessions of its own: connect directly, or pool by session\n"
)
# What docs/operations.md states; asserted three times over, since a machine may be busy.
VIEW_WITHIN_S = 1.0
ANSWER_WITHIN_S = 2.0
PATIENCE = 3


def dsn_of(database: Database, service: str) -> str:
    dsn: str = getattr(database, f"{service}_dsn")
    return dsn


async def run_to_its_end(service: str, dsn: str, *arguments: str) -> tuple[int | None, str]:
    """Run a service, or a command of its, that shall end by itself; give its exit code and what it says of it."""
    settings = {
        "DATABASE_URL": dsn,
        "PORT": str(free_port()),
        "OPERATOR_TOKEN": "the-operators-token",
        "IDEMPOTENCY_SECRET": "a-secret-of-the-test",
        "SECRET_KEYS": SECRET_KEYS,
        "DIGEST_KEY": DIGEST_KEY,
    }
    environ = os.environ | {f"KEELSON_{name}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"keelson.{service}", *arguments, env=environ, stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(30):
            _, said = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    return process.returncode, said.decode()


@asynccontextmanager
async def busy(dsn: str, clients: int) -> AsyncIterator[None]:
    """Have so many others use a pool, a transaction after another, each with a connection of its own now and then."""

    async def work() -> None:
        while True:
            async with connected(dsn) as connection:
                for _ in range(20):
                    await connection.execute("BEGIN; SELECT pg_sleep(0.001); COMMIT")

    async with background(*(work() for _ in range(clients))):
        yield


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("service", SERVICES)
async def test_f21_a_service_behind_a_pooler_that_lends_sessions_refuses_to_start(
    cluster: Cluster, database: Database, service: str, mode: str
) -> None:
    async with running_pgbouncer(cluster, database) as pooler:
        ended = await run_to_its_end(service, pooler.through(dsn_of(database, service), mode))
    assert ended == (2, REFUSED)


async def test_f21_an_operators_command_refuses_such_a_pooler_too(cluster: Cluster, database: Database) -> None:
    async with running_pgbouncer(cluster, database) as pooler:
        ended = await run_to_its_end("projector", pooler.through(database.projector_dsn, "transaction"), "verify")
    assert ended == (1, REFUSED)


@pytest.mark.parametrize("arguments", [["migrate"], ["claims", "verify"], ["epoch", "new", "--reason", "a test"]])
async def test_f21_the_command_line_works_in_sessions_of_its_own_alone(
    cluster: Cluster, database: Database, arguments: list[str]
) -> None:
    """What it prepares under a name may be another's statement in the next session that it is lent."""
    async with running_pgbouncer(cluster, database) as pooler:
        refused, done = [
            await run_to_its_end("cli", pooler.through(database.owner_dsn, mode), *arguments)
            for mode in ("transaction", "session")
        ]
        async with connected(database.owner_dsn) as owner:
            epochs = await owner.fetchval("SELECT count(*) FROM log.events WHERE type = 'platform.epoch_began'")
    assert refused == (2, REFUSED)
    assert done == (0, "")
    assert epochs == (2 if "epoch" in arguments else 1)


@pytest.mark.parametrize("clients", [0, 3, 12])
@pytest.mark.parametrize("in_turn", [0, 1])
async def test_f21_a_pooler_that_lends_sessions_is_told_whoever_else_uses_it(
    cluster: Cluster, database: Database, in_turn: int, clients: int
) -> None:
    """Sessions that were used last, or those that were not, come first; there are fewer than clients."""
    settings = {"server_round_robin": in_turn, "default_pool_size": 8}
    async with running_pgbouncer(cluster, database, **settings) as pooler:
        lent, owned = (pooler.through(database.query_dsn, mode) for mode in ("transaction", "session"))
        async with busy(lent, clients):
            for _ in range(5):
                assert await shares_sessions(lent)
                assert not await shares_sessions(owned)
                assert not await shares_sessions(database.query_dsn)


async def test_f21_a_pooled_session_has_the_settings_of_its_own_alone(cluster: Cluster, database: Database) -> None:
    """PgBouncer takes few settings at the start of a connection; ours come after it, and leave with it."""
    async with running_pgbouncer(cluster, database, default_pool_size=1) as pooler:
        dsn = pooler.through(database.query_dsn, "session")
        pool = await open_pool(dsn, application_name="ours", statement_timeout_s=7.0, lock_timeout="1234")
        for _ in range(2):
            assert await pool.fetchval("SHOW statement_timeout") == "7s"
            assert await pool.fetchval("SHOW lock_timeout") == "1234ms"
            assert await pool.fetchval("SHOW application_name") == "ours"
        session = await pool.fetchval("SELECT pg_backend_pid()")
        await pool.close()
        async with connected(dsn) as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") == session
            assert await connection.fetchval("SHOW lock_timeout") == "0"


async def test_f21_session_pooling_carries_everything(cluster: Cluster, database: Database, tmp_path: Path) -> None:
    """The projector would poll too late: it hears of each event through the pooler."""
    async with running_pgbouncer(cluster, database, default_pool_size=40) as pooler:
        dsns = {f"{service}_dsn": pooler.through(dsn_of(database, service), "session") for service in SERVICES}
        pooled_database = replace(database, **dsns)
        async with (
            running_stack(cluster, pooled_database, tmp_path, poll_interval_s=60) as stack,
            client_of(stack) as client,
            pooled(database.projector_dsn) as pool,
        ):
            for number in range(20):
                created = await client.org.create(name=f"org-{number}", wait_s=10)
                assert created.projected
                org_id = created.result.org_id
                renamed = await client.org.rename(org_id=org_id, name=f"renamed-{number}")
                row = await client.orgs.get(org_id, min_position=renamed.position)
                assert (row.name, row.resource_version) == (f"renamed-{number}", 2)
            assert await caught_up(pool) == renamed.position
            await assert_views_equal_fold(pool)


async def test_f21_a_listener_whose_session_is_lent_hears_nothing_and_stays(
    cluster: Cluster, database: Database
) -> None:
    """The fault itself: LISTEN is done, and forgotten; the probe keeps working on whatever session it gets."""
    async with running_pgbouncer(cluster, database, default_pool_size=8) as pooler:
        dsn = pooler.through(database.query_dsn, "transaction")
        heard: list[str] = []
        deaf = Listener(dsn, LOG_CHANNEL, probe_interval_s=0.05)
        deaf.subscribe(heard.append)
        async with busy(dsn, 8), background(deaf.run()), connected(database.admin_dsn) as admin:
            await eventually(lambda: deaf.connected)
            for position in range(200):
                await admin.execute(f"SELECT pg_notify('{LOG_CHANNEL}', '{position}')")
                await asyncio.sleep(0.005)  # probes go on meanwhile
            assert deaf.connected
        assert heard[0] == ""
        assert len(heard) < 100
        assert heard.count("") == 1


async def test_f21_with_the_listener_behind_transaction_pooling_the_poll_bounds_every_wait(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    async with running_pgbouncer(cluster, database, default_pool_size=8) as pooler:
        lent = pooler.through(database.query_dsn, "transaction")
        async with (
            running_stack(cluster, database, tmp_path, listen_database_url=lent) as stack,
            client_of(stack) as client,
            busy(lent, 4),
        ):
            for number in range(3):
                await write_and_read(client, f"org-{number}")
            await stack.wait_until_ready()
            logs = {each.name: events_of(each.log) for each in stack}
    for name, events in logs.items():
        assert events.count("listener_deaf") == 1, name
        assert not {"listener_lost", "append_interrupted", "projection_waits", "request_failed"}.intersection(events)


def events_of(log: Path) -> list[str]:
    return [msgspec.json.decode(line)["event"] for line in log.read_bytes().splitlines()]


def client_of(stack: Stack) -> Client:
    return Client(stack.commands[0].url, stack.queries[0].url, stack.operator_token)


async def write_and_read(client: Client, name: str) -> None:
    """Write, and see it within the bounds: by looking, by naming the position, and by waiting for the answer."""
    created = await client.org.create(name=name)
    began_at = time.monotonic()

    async def listed() -> list[Any]:
        return [row async for row in client.orgs.list(name=name)]

    assert await eventually(listed, 10)
    assert time.monotonic() - began_at < PATIENCE * VIEW_WITHIN_S

    org_id = created.result.org_id
    renamed = await client.org.rename(org_id=org_id, name=f"{name}-renamed")
    began_at = time.monotonic()
    row = await client.orgs.get(org_id, min_position=renamed.position)
    assert row.name == f"{name}-renamed"
    assert time.monotonic() - began_at < PATIENCE * ANSWER_WITHIN_S

    began_at = time.monotonic()
    waited = await client.org.rename(org_id=org_id, name=f"{name}-again", wait_s=10)
    assert waited.projected
    assert time.monotonic() - began_at < PATIENCE * ANSWER_WITHIN_S
