"""A real PostgreSQL for tests: one server a session, a migrated template, a fresh copy of it for each test."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import msgspec

from keelson.local.binaries import find_binaries
from keelson.local.database import (
    DATABASE,
    OWNER,
    create_database,
    drop_database,
    new_passwords,
    prepare_log,
    prepare_server,
    with_role,
)
from keelson.local.files import write_private
from keelson.local.postgres import Account, Postgres
from keelson.local.process import Identity
from keelson.log.database import connect
from support.waiting import free_port

_PREFIX = "keelson-test-"
_OWNER_FILE = "owner.json"


@dataclass(frozen=True)
class Database:
    """One database, and how each role reaches it. `admin_dsn` is the superuser's."""

    name: str
    admin_dsn: str
    owner_dsn: str
    command_dsn: str
    projector_dsn: str
    query_dsn: str


@dataclass
class Cluster:
    """A server with every role; the database `keelson` on it is migrated, and is the template of all others."""

    server: Postgres
    passwords: dict[str, str] = field(default_factory=new_passwords)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def database(self, name: str) -> Database:
        """Tell how to reach a database of that name, whether it exists or not."""
        admin = self.server.url(name)
        dsns = {role: with_role(admin, role, password) for role, password in self.passwords.items()}
        return Database(
            name=name,
            admin_dsn=admin,
            owner_dsn=dsns[OWNER],
            command_dsn=dsns["keelson_command"],
            projector_dsn=dsns["keelson_projector"],
            query_dsn=dsns["keelson_query"],
        )

    async def prepare(self) -> None:
        """Create the roles and the template, once."""
        await prepare_server(self.server.url(), self.passwords)
        await prepare_log(self.database(DATABASE).owner_dsn)

    @asynccontextmanager
    async def fresh_database(self, *, migrated: bool = True) -> AsyncIterator[Database]:
        """Lend a database of one's own: migrated, or empty; it is dropped afterwards, whoever is connected."""
        database = self.database(f"test_{next(self._numbers)}")
        connection = await connect(self.server.url(), application_name="keelson-tests")
        try:
            await create_database(connection, database.name, DATABASE if migrated else "template1")
        finally:
            await connection.close()
        try:
            yield database
        finally:
            await self._drop(database)

    async def _drop(self, database: Database) -> None:
        connection = await connect(self.server.url(), application_name="keelson-tests")
        try:
            await drop_database(connection, database.name)
        finally:
            await connection.close()


def binaries_for_tests(copies: Path) -> Path:
    """Choose the programs: KEELSON_TEST_POSTGRES_BIN names others than `make run` would take."""
    environ = dict(os.environ)
    if chosen := environ.get("KEELSON_TEST_POSTGRES_BIN"):
        environ["KEELSON_POSTGRES_BIN"] = chosen
    return find_binaries(environ, copies=copies if Account.needed() else None)


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """Lend a temporary folder that the account which runs PostgreSQL can enter (pytest's own are closed to others)."""
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    folder.chmod(0o711)
    write_private(folder / _OWNER_FILE, msgspec.json.encode(Identity.read(os.getpid())).decode())
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _sweep() -> None:
    """End and remove the servers of test sessions that were killed before they could."""
    for owner_file in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_OWNER_FILE}"):
        with suppress(FileNotFoundError):  # another session may have swept it at the same time
            owner = msgspec.json.decode(owner_file.read_bytes(), type=Identity)
            if owner_file.stat().st_uid == os.geteuid() and not owner.is_running():
                folder = owner_file.parent
                Postgres(folder / "postgres", folder, 0, folder / "log").stop()
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_server(settings: Mapping[str, str] | None = None) -> Iterator[Postgres]:
    """Make and start a server on a free port; ended and removed afterwards."""
    with reachable_folder() as folder:
        binaries = binaries_for_tests(folder)
        server = Postgres(folder / "postgres", binaries, free_port(), folder / "log", settings=settings or {})
        server.create()
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def running_cluster(settings: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """Make and start a server with roles and template; must not be called where an event loop runs."""
    with running_server(settings) as server:
        cluster = Cluster(server)
        asyncio.run(cluster.prepare())
        yield cluster
