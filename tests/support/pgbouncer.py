"""PgBouncer as a process of its own before a server of ours: a database under one name for each of its modes."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from keelson.local.files import write_private
from keelson.local.postgres import HOST, Account
from support.database import Cluster, Database, reachable_folder
from support.waiting import eventually, free_port

PROGRAM = "/usr/sbin/pgbouncer"
MODES = ("session", "transaction", "statement")

_END_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class PgBouncer:
    """A running pooler before one database."""

    port: int

    def through(self, dsn: str, mode: str) -> str:
        """Give the URL that leads where this one does, for the same role, but through the pooler in a mode."""
        parts = urlsplit(dsn)
        account = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{account}@{HOST}:{self.port}", path=f"/{mode}").geturl()


@asynccontextmanager
async def running_pgbouncer(cluster: Cluster, database: Database, **settings: str | int) -> AsyncIterator[PgBouncer]:
    """Run a pooler before a database; `settings` are PgBouncer's."""
    port = free_port()
    with reachable_folder() as folder:
        target = f"host={HOST} port={cluster.server.port} dbname={database.name}"
        databases = {mode: f"{target} pool_mode={mode}" for mode in MODES}
        _write_private(folder / "users", "".join(f'"{role}" "{word}"\n' for role, word in cluster.passwords.items()))
        own = {
            "listen_addr": HOST,
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": folder / "users",
        }
        ini = folder / "pgbouncer.ini"
        _write_private(ini, _section("databases", databases) + _section("pgbouncer", own | settings))
        with (folder / "pgbouncer.log").open("wb") as log:
            process = _start(ini, log.fileno())
        try:
            await eventually(lambda: _answers(port))
            yield PgBouncer(port)
        finally:
            process.terminate()  # in version 1.18 at once, whoever is connected
            process.wait(_END_TIMEOUT_S)


def _start(ini: Path, output: int) -> "subprocess.Popen[bytes]":
    """Start it as an account that is not root, which it refuses to be; it ends with this process, however that ends."""
    account = Account.needed()
    return subprocess.Popen(  # noqa: S603 - a program of the system's, and a file of ours
        ["/usr/bin/setpriv", "--pdeathsig", "TERM", PROGRAM, str(ini)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
    )


async def _answers(port: int) -> bool:
    _, writer = await asyncio.open_connection(HOST, port)
    writer.close()
    await writer.wait_closed()
    return True


def _section(name: str, values: Mapping[str, object]) -> str:
    return f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())


def _write_private(file: Path, content: str) -> None:
    """Write a file that the pooler's account alone can read."""
    write_private(file, content)
    account = Account.needed()
    if account is not None:
        os.chown(file, account.uid, account.gid)
