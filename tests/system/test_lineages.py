"""F26 for real: a standby that lacks the last events is promoted, a base backup is recovered, under services that run.

Nobody types a command. The services are real processes, several of each, at an address that is given to another server.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from keelson.client import Client
from keelson.events import Envelope
from keelson.local.child import in_thread
from keelson.local.database import DATABASE
from keelson.log.read import read_head
from support.database import Cluster, Database, running_cluster
from support.log import assert_sound, connected, plant
from support.projecting import assert_views_equal_fold, caught_up, pooled
from support.proxy import Proxy, running_proxy
from support.stack import Stack, running_stack
from support.successors import addressed, archiving_cluster, follow, give_address, successor, take_backup
from support.waiting import eventually

SOON_S = 30.0


@pytest.fixture
def primary() -> Iterator[Cluster]:
    """Start a server to be replaced."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def archived() -> Iterator[tuple[Cluster, Path]]:
    """Start a server to be replaced, that archives its write-ahead log."""
    with archiving_cluster() as both:
        yield both


@dataclass
class Told:
    """What clients were told before the failover."""

    epoch: str = ""
    kept_org: str = ""
    kept_position: int = 0
    lost_cursor: str = ""
    lost_token: str = ""


@dataclass
class World:
    """Services, and the address by which they reach whichever server it leads to."""

    stack: Stack
    proxy: Proxy
    clients: list[Client]
    told: Told = field(default_factory=Told)

    async def live(self) -> None:
        """Append what the next server has too."""
        made = await self.clients[0].command("org.create", {"name": "kept"}, idempotency_key="kept", wait_s=10)
        renamed = await self.clients[1].command("org.rename", {"org_id": made.result["org_id"], "name": "kept-2"})
        self.told.epoch, self.told.kept_org = str(made.epoch), made.result["org_id"]
        self.told.kept_position = renamed.position

    async def lose(self) -> None:
        """Append what the next server lacks, all of it acknowledged, in the views, and seen by clients."""
        first, second = self.clients
        await second.command("org.rename", {"org_id": self.told.kept_org, "name": "lost-name"})
        await first.command("org.create", {"name": "lost"}, idempotency_key="lost")
        made = await first.command("principal.create", {"name": "lost", "scopes": ["operator"]}, reason="a test")
        issued = await first.command(
            "principal.issue_credential",
            {"principal_id": made.result["principal_id"]},
            reason="a test",
            wait_s=10,
        )
        self.told.lost_token = issued.result["token"]
        self.told.lost_cursor = f"{self.told.epoch}-{issued.position}"
        for query in range(len(self.stack.queries)):
            for path in ("/v1/events", "/v1/orgs"):
                assert await self.ask(query, path, min_position=self.told.lost_cursor) == 200
            assert await self.ask(query, "/v1/events", after=self.told.lost_cursor) == 200
            assert await self.ask(query, "/v1/orgs", token=self.told.lost_token) == 200

    async def ask(self, query: int, path: str, *, token: str | None = None, **parameters: str) -> int:
        """Ask a replica of query once; give the status, 0 if there was no answer."""
        headers = {"Authorization": f"Bearer {token or self.stack.operator_token}", "Prefer": "wait=1"}
        url = f"{self.stack.queries[query].url}{path}"
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session,
                session.get(url, headers=headers, params=parameters) as answer,
            ):
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return 0

    async def never_take_the_old_for_good(self) -> None:
        """Ask by what clients were told before, on and on, of all replicas: it is never answered as if nothing were."""
        asked: list[dict[str, str]] = [{"after": self.told.lost_cursor}, {"min_position": self.told.lost_cursor}]
        while True:
            for query in range(len(self.stack.queries)):
                for parameters in asked:
                    assert await self.ask(query, "/v1/events", **parameters) != 200, f"{parameters} was taken for good"
                assert await self.ask(query, "/v1/orgs", min_position=self.told.lost_cursor) != 200, "orgs were shown"

    async def is_expired(self) -> bool:
        """Whether all replicas answer 410 to all that is of the history that was lost."""
        for query in range(len(self.stack.queries)):
            found = {
                await self.ask(query, "/v1/events", after=self.told.lost_cursor),
                await self.ask(query, "/v1/events", min_position=self.told.lost_cursor),
                await self.ask(query, "/v1/orgs", min_position=self.told.lost_cursor),
                await self.ask(query, f"/v1/orgs/{self.told.kept_org}", min_position=self.told.lost_cursor),
                await self.ask(query, "/v1/activity", min_position=self.told.lost_cursor),
            }
            assert found == {410}, found
        return True


@asynccontextmanager
async def world_of(cluster: Cluster, logs: Path, *, replicas: int = 2) -> AsyncIterator[World]:
    """Run services at an address that leads to a server."""
    async with AsyncExitStack() as exits:
        proxy, database = await exits.enter_async_context(addressed(cluster.server, cluster.database(DATABASE)))
        stack = await exits.enter_async_context(
            running_stack(cluster, database, logs, commands=replicas, projectors=replicas, queries=replicas)
        )
        clients = []
        for n in range(2):
            command, query = stack.commands[n % len(stack.commands)], stack.queries[n % len(stack.queries)]
            clients.append(await exits.enter_async_context(Client(command.url, query.url, stack.operator_token)))
        yield World(stack, proxy, clients)


async def go_on(world: World, database: Database, cause: str) -> None:
    """Hold the services, on the server that took the other's place, to what they must be; they are told nothing."""
    told, (first, second) = world.told, world.clients
    await world.stack.wait_until_ready(timeout_s=SOON_S)
    await eventually(world.is_expired, SOON_S)
    for query in range(len(world.stack.queries)):
        assert await world.ask(query, "/v1/orgs", token=told.lost_token) == 401

    began = await _epoch_began(database)
    assert began.position == told.kept_position + 1
    payload = msgspec.json.decode(began.payload)
    assert payload == {
        "epoch": payload["epoch"],
        "previous": told.epoch,
        "forked_at": told.kept_position,
        "cause": cause,
    }
    assert began.reason is not None
    assert began.reason.startswith("timeline 00000001 became 00000002, found by keelson-")

    # What was kept is answered as it was; what was lost is done, for the first time, on what there is.
    kept = await first.command("org.create", {"name": "kept"}, idempotency_key="kept")
    assert (kept.epoch, kept.result["org_id"]) == (payload["epoch"], told.kept_org)
    renamed = await second.command("org.rename", {"org_id": told.kept_org, "name": "lost-name"})
    assert (renamed.changed, renamed.events[0].seq) == (True, 3)
    again = await first.command("org.create", {"name": "lost"}, idempotency_key="lost")
    assert again.changed
    # Beyond what the lost cursor named, so that it would be one with an empty page, or with others' events.
    while again.position < int(told.lost_cursor.partition("-")[2]) + 2:
        again = await second.command("org.create", {"name": f"more-{again.position}"}, wait_s=10)
    assert await world.is_expired()
    fresh = await first.get("/v1/orgs", min_position=f"{again.epoch}-{again.position}")
    assert {"lost-name", "lost"} <= {row["name"] for row in fresh.body["items"]}

    async with pooled(database.projector_dsn) as pool:
        assert await caught_up(pool) == again.position
        await assert_views_equal_fold(pool)
    assert (await _epoch_began(database)).position == began.position


async def _epoch_began(database: Database) -> Envelope:
    """Give the one event by which the second epoch began; the log is sound, and so are its claims."""
    async with connected(database.admin_dsn) as admin:
        [_, began] = [each for each in await assert_sound(admin) if each.type == "platform.epoch_began"]
    return began


async def promote_a_standby(cluster: Cluster, logs: Path, after: Callable[[World, Database], Awaitable[None]]) -> None:
    """Fail over to a real standby that was cut off before the last acknowledged events."""
    server = cluster.server
    backup = await take_backup(server, logs / "backup")
    async with world_of(cluster, logs) as world, running_proxy("127.0.0.1", server.port) as replication:
        with successor(server, backup, "standby", follow(server, replication.port)) as standby:
            await in_thread(standby.start)
            there = Cluster(standby, cluster.passwords).database(DATABASE)
            await world.live()
            await eventually(lambda: _has(there, world.told.kept_position), SOON_S)
            replication.refuses = True
            replication.cut()
            await world.lose()
            assert not await _has(there, world.told.kept_position + 1)

            await in_thread(server.kill)
            async with _watched(world):
                give_address(world.proxy, standby)
                # Until it is promoted, it is a standby: who writes says so, and who reads may.
                for command in world.stack.commands:
                    await eventually(lambda command=command: _says(command, "standby"), SOON_S)  # type: ignore[misc]
                await eventually(lambda: _reads(world), SOON_S)
                async with connected(there.admin_dsn) as admin:
                    assert await admin.fetchval("SELECT pg_is_in_recovery()")
                    assert await admin.fetchval("SELECT pg_promote()")
                await after(world, there)


async def recover_a_backup(
    cluster: Cluster,
    archive: Path,
    logs: Path,
    after: Callable[[World, Database], Awaitable[None]],
    *,
    watch: Callable[[World], AbstractAsyncContextManager[None]],
) -> None:
    """Put a log back to a place after its base backup, by recovering that with archived write-ahead log."""
    server = cluster.server
    async with world_of(cluster, logs) as world:
        backup = await take_backup(server, logs / "backup")
        await world.live()
        async with connected(cluster.database(DATABASE).admin_dsn) as admin:
            target = await admin.fetchval("SELECT pg_current_wal_insert_lsn()::text")
            await world.lose()
            await admin.execute("SELECT pg_switch_wal()")
        await in_thread(server.stop)
        settings = {
            "restore_command": f"cp {archive}/%f %p",
            "recovery_target_lsn": target,
            "recovery_target_action": "promote",
        }
        with successor(server, backup, "recovery", settings) as restored:
            async with watch(world):
                give_address(world.proxy, restored)
                await in_thread(restored.start)
                there = Cluster(restored, cluster.passwords).database(DATABASE)
                await after(world, there)


@asynccontextmanager
async def _watched(world: World) -> AsyncIterator[None]:
    """Have clients ask all along, from before the services reach the other server."""
    watching = asyncio.create_task(world.never_take_the_old_for_good())
    try:
        yield
    finally:
        watching.cancel()
        [ended] = await asyncio.gather(watching, return_exceptions=True)
        if isinstance(ended, Exception):
            raise ended


async def _has(database: Database, position: int) -> bool:
    async with connected(database.admin_dsn) as admin:
        return (await read_head(admin)).position >= position


async def _says(command: Any, what: str) -> bool:
    unreadiness = await command.read_unreadiness()
    return unreadiness is not None and what in str(unreadiness)


async def _reads(world: World) -> bool:
    return [await world.ask(query, "/v1/orgs") for query in range(len(world.stack.queries))] == [200, 200]


async def test_f26_a_standby_that_lacks_the_last_events_is_promoted(primary: Cluster, tmp_path: Path) -> None:
    await promote_a_standby(primary, tmp_path, lambda world, there: go_on(world, there, "promoted"))


async def test_f26_a_base_backup_is_recovered_to_a_place_in_the_past(
    archived: tuple[Cluster, Path], tmp_path: Path
) -> None:
    await recover_a_backup(*archived, tmp_path, lambda world, there: go_on(world, there, "promoted"), watch=_watched)


async def test_f26_planted_without_the_check_an_old_cursor_gets_an_empty_page(
    archived: tuple[Cluster, Path], tmp_path: Path
) -> None:
    """The function that everybody calls compares nothing: the whole of what was lost goes unnoticed."""
    cluster, archive = archived
    await plant(
        cluster.database(DATABASE).admin_dsn, "renew_epoch_v1", ("IF standby OR epoch IS NULL THEN", "IF true THEN")
    )

    async def refill(world: World, there: Database) -> None:
        await world.stack.wait_until_ready(timeout_s=SOON_S)
        lost = int(world.told.lost_cursor.partition("-")[2])
        position = 0
        while position < lost:
            made = await world.clients[0].command("org.create", {"name": f"other-{position}"})
            position = made.position
        assert await world.ask(0, "/v1/events", after=world.told.lost_cursor) == 200
        with pytest.raises(AssertionError, match="was taken for good"):
            await world.never_take_the_old_for_good()
        with pytest.raises(AssertionError, match="200"):
            await world.is_expired()
        with pytest.raises(ValueError, match="not enough values"):
            await _epoch_began(there)

    await recover_a_backup(cluster, archive, tmp_path, refill, watch=lambda _: nullcontext())


async def test_f26_restarts_and_crashes_begin_no_epoch(primary: Cluster, tmp_path: Path) -> None:
    """Nor do new connections, nor new processes: the lineage is the same, and so are all cursors."""
    database = primary.database(DATABASE)
    async with world_of(primary, tmp_path, replicas=1) as world:
        await world.live()
        await world.lose()
        for end in (primary.server.kill, primary.server.stop):
            await in_thread(end)
            await in_thread(primary.server.start)
            await world.stack.wait_until_ready(timeout_s=SOON_S)
            made = await world.clients[0].command("org.create", {"name": f"after-{end.__name__}"}, wait_s=10)
            assert made.epoch == world.told.epoch
        world.proxy.cut()
        await world.stack.kill(world.stack.commands[0])
        await world.stack.restart(world.stack.commands[0])
        for parameters in ({"after": world.told.lost_cursor}, {"min_position": world.told.lost_cursor}):
            assert await world.ask(0, "/v1/events", **parameters) == 200
        async with connected(database.admin_dsn) as admin:
            began = [each for each in await assert_sound(admin) if each.type == "platform.epoch_began"]
        assert len(began) == 1
