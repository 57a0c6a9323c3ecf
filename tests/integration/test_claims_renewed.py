"""Claims by newer rules: a log of before gets them by migrating, and what older replicas leave out is mended."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from keelson.events.env import EnvCreated, EnvProcess, EnvReleaseSet
from keelson.events.ids import Position
from keelson.log import claims
from keelson.log import migrate as migrating
from keelson.log.append import _APPEND
from keelson.log.claims import CLAIMS_VERSION, rebuild_claims, verify_claims
from keelson.log.confirm import read_scope
from keelson.log.database import Connection
from keelson.log.decision import Decision, Done, Limit, Outcome, OverLimit
from keelson.log.group import arguments, outcomes
from keelson.log.migrate import MIGRATIONS, migrate
from support.database import Cluster, Database
from support.decisions import an_app, an_event, decide, made_id
from support.log import append_group, assert_sound, connected, read_epoch

ORG = "org_1"
WEB = EnvProcess(command=("x",), memory_bytes=1000, cpu_millis=100, replicas=3)
# The scopes that the rules of before did not know, and the migrations that came with those that do.
SINCE = ("app.of:", "env.of:", "env.instances:", "env.memory_bytes:")
ADDED = ["0007-vault", "0008-rewrap-secrets", "0009-renew-epoch"]

_APPEND_BEFORE = _APPEND.replace("append_v2", "append_v1").partition(",\n    -- people looked up")[0] + "\n)"


async def append_as_before(connection: Connection, *decisions: Decision) -> list[Outcome]:
    """Append as a replica of before does: by its function, with the claims of its rules."""
    for each in decisions:
        each.taken = [taken for taken in each.taken if not taken.scope.startswith(SINCE)]
        each.freed = [freed for freed in each.freed if not freed.scope.startswith(SINCE)]
    given = arguments(decisions[0].epoch, list(decisions))
    return outcomes(list(decisions), await connection.fetch(_APPEND_BEFORE, *given[:58]))


def an_env(epoch: str) -> Decision:
    """Decide to make an environment of three replicas."""
    env_id = made_id("env")
    running = EnvReleaseSet(deploy_id="deploy_1", release_id="release_1", release_number=1, processes={"web": WEB})
    ids = {"org_id": ORG, "app_id": "app_1"}
    return decide(epoch, an_event(env_id, 1, EnvCreated(name=env_id), **ids), an_event(env_id, 2, running, **ids))


def another_app(epoch: str) -> Decision:
    """Decide to make an app of the organisation."""
    app = an_app()
    return decide(epoch, an_event(app.aggregate_id, 1, app.event, org_id=ORG, project_id="project_1"))


@pytest.fixture
async def before(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """Give a database as an older version made it, with two apps and two environments."""
    for path in MIGRATIONS.glob("*.sql"):
        if path.stem not in ADDED:
            shutil.copy(path, tmp_path)

    async def leave_them(_connection: Connection) -> None:
        """Do nothing: the version of before knew no rules but one."""

    async with cluster.fresh_database(migrated=False) as database:
        async with connected(database.owner_dsn) as owner, connected(database.command_dsn) as command:
            with monkeypatch.context() as patch:
                patch.setattr(migrating, "MIGRATIONS", tmp_path)
                patch.setattr(migrating, "renew_claims", leave_them)
                patch.setattr(migrating, "_RENEW_EPOCH", "SELECT $1::text")
                await migrate(owner)
            epoch = await read_epoch(command)
            decisions = [another_app(epoch), another_app(epoch), an_env(epoch), an_env(epoch)]
            assert all(isinstance(each, Done) for each in await append_as_before(command, *decisions))
        yield database


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[tuple["asyncpg.Connection[asyncpg.Record]", Connection]]:
    """Lend connections of the owner and of the command service."""
    async with connected(database.owner_dsn) as owner, connected(database.command_dsn) as command:
        yield owner, command


async def test_f12_a_log_of_before_gets_the_claims_of_newer_rules_by_migrating(before: Database) -> None:
    async with opened(before) as (owner, command):
        assert {each.scope for each in await verify_claims(command)} == {f"{scope}{ORG}" for scope in SINCE}
        assert await migrate(owner) == ADDED
        assert await verify_claims(command) == []
        held = [await read_scope(command, f"{scope}{ORG}") for scope in SINCE]
        assert [(each.held, each.amount) for each in held] == [(2, 0), (2, 0), (2, 6), (2, 6000)]
        over = another_app(await read_epoch(command))
        over.limits = [Limit(f"app.of:{ORG}", 2, None)]
        assert await append_group(command, over) == [OverLimit(f"app.of:{ORG}", 3, 0)]
        await assert_sound(command)


async def test_what_an_older_replica_appends_after_the_migration_is_mended_by_a_rebuild(before: Database) -> None:
    async with opened(before) as (owner, command):
        await migrate(owner)
        epoch = await read_epoch(command)
        assert await append_as_before(command, another_app(epoch)) == [Done(Position(8), Position(8))]
        assert await migrate(owner) == []
        left_out = await verify_claims(command)
        assert {each.scope for each in left_out} == {f"app.of:{ORG}"}
        assert await rebuild_claims(owner) == left_out
        assert await verify_claims(command) == []


async def test_a_head_that_somebody_holds_is_waited_for_within_a_bound(
    before: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And then the migration may be repeated: until it has made the claims, it does not say that they are made."""
    assert "'5s'" in claims._LOCK_HEAD
    monkeypatch.setattr(claims, "_LOCK_HEAD", claims._LOCK_HEAD.replace("5s", "200ms"))
    async with opened(before) as (owner, command), connected(before.owner_dsn) as holder:
        async with holder.transaction():
            await holder.execute("SELECT FROM log.head FOR UPDATE")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await migrate(owner)
        assert await verify_claims(command) != []
        assert await migrate(owner) == []
        assert await verify_claims(command) == []


async def test_claims_of_the_newest_rules_are_left_alone(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new log begins with them. Those of older ones are made anew once, and by whom does not matter."""
    made: list[object] = []

    async def rebuild(connection: "asyncpg.Connection[asyncpg.Record]") -> list[claims.Difference]:
        made.append(connection)
        return await rebuild_claims(connection)

    monkeypatch.setattr(claims, "rebuild_claims", rebuild)
    async with connected(database.owner_dsn) as owner, connected(database.admin_dsn) as admin:
        assert await owner.fetchval("SELECT version FROM log.claims_version") == CLAIMS_VERSION
        await migrate(owner)
        assert made == []
        await admin.execute("UPDATE log.claims_version SET version = version - 1")
        await migrate(owner)
        await migrate(owner)
        assert len(made) == 1
