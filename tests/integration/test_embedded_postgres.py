"""The server of our own: durable, on loopback with a password, run by a user that PostgreSQL accepts."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from keelson.local import postgres
from keelson.local.binaries import BinariesNotFoundError, find_binaries
from keelson.local.database import with_role
from keelson.local.postgres import Account, Postgres, PostgresError
from keelson.local.process import Identity
from support.database import Cluster, Database, running_server
from support.waiting import free_port


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with running_server() as server:
        yield server


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit", "full_page_writes"])
async def test_what_is_acknowledged_is_durable(server: Postgres, setting: str) -> None:
    async with connected(server.url()) as connection:
        assert await connection.fetchval("SELECT current_setting($1)", setting) == "on"


async def test_text_is_utf8_and_compared_byte_by_byte(server: Postgres) -> None:
    async with connected(server.url()) as connection:
        assert await connection.fetchval("SHOW server_encoding") == "UTF8"
        assert await connection.fetchval("SELECT 'B' < 'a'")


async def test_it_listens_on_loopback_alone(server: Postgres) -> None:
    async with connected(server.url()) as connection:
        assert await connection.fetchval("SHOW listen_addresses") == "127.0.0.1"
        assert await connection.fetchval("SHOW unix_socket_directories") == ""


async def test_a_wrong_password_is_refused(server: Postgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(with_role(server.url(), "postgres", "wrong"), timeout=5)


def test_the_password_is_private(server: Postgres) -> None:
    assert (server.folder / "password").stat().st_mode & 0o777 == 0o600
    assert not list(server.folder.glob("*.password"))


def test_root_does_not_run_it(server: Postgres) -> None:
    identity = server.identity()
    assert identity is not None
    owner = Path(f"/proc/{identity.pid}").stat().st_uid
    account = Account.needed()
    assert owner == (os.getuid() if account is None else account.uid)
    assert owner != 0


async def test_what_was_committed_survives_a_kill(server: Postgres) -> None:
    async with connected(server.url()) as connection:
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    killed = server.identity()
    server.kill()
    assert killed is not None
    assert not killed.is_running()
    server.start()
    async with connected(server.url()) as connection:
        assert await connection.fetchval("SELECT answer FROM kept") == 42


def test_stop_is_safe_twice_and_start_works_after_it(server: Postgres) -> None:
    server.stop()
    server.stop()
    assert server.identity() is None
    server.start()
    assert server.identity() is not None


def test_a_server_started_by_another_process_is_found_and_stopped(server: Postgres) -> None:
    heir = Postgres(server.folder, server.binaries, server.port, server.log)
    assert heir.identity() == server.identity()
    heir.stop()
    assert server.identity() is None
    server.start()


def test_a_pid_left_by_a_crash_is_not_taken_for_the_server(server: Postgres) -> None:
    server.kill()
    pid_file = server.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    heir = Postgres(server.folder, server.binaries, server.port, server.log)
    assert heir.identity() is None
    heir.stop()
    assert Identity.read(os.getpid()) is not None
    pid_file.unlink()
    server.start()


def test_a_port_in_use_is_told_with_the_servers_own_words(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_START_RETRY_S", 0.05)
    twin = Postgres(server.folder.with_name("twin"), server.binaries, server.port, server.log)
    twin.create()
    with pytest.raises(PostgresError, match="could not bind"):
        twin.start()


def test_an_interrupted_initdb_is_done_again(server: Postgres) -> None:
    again = Postgres(server.folder.with_name("again"), server.binaries, free_port(), server.log)
    (again.folder / "data.new" / "base").mkdir(parents=True)
    again.create()
    again.start()
    again.stop()


def test_a_folder_without_the_programs_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BinariesNotFoundError, match=str(tmp_path)):
        find_binaries({"KEELSON_POSTGRES_BIN": str(tmp_path)}, copies=None)


async def test_the_owner_is_no_superuser_and_the_services_own_nothing(database: Database) -> None:
    async with connected(database.owner_dsn) as owner:
        assert await owner.fetchval("SHOW is_superuser") == "off"
        assert await owner.fetchval("SELECT count(*) FROM log.events") == 1
    for dsn in (database.command_dsn, database.projector_dsn, database.query_dsn):
        async with connected(dsn) as service:
            assert await service.fetchval("SHOW is_superuser") == "off"
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await service.execute("DELETE FROM log.events")


async def test_each_test_has_a_database_of_its_own(cluster: Cluster) -> None:
    async with cluster.fresh_database() as first, cluster.fresh_database() as second:
        async with connected(first.owner_dsn) as connection:
            await connection.execute("CREATE TABLE mine ()")
        async with connected(second.owner_dsn) as connection:
            assert await connection.fetchval("SELECT to_regclass('mine')") is None
