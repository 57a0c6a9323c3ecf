"""Servers that take another's place as they really do: promoted standbys, and base backups that were recovered.

with archiving_cluster() as (cluster, archive):         # or running_cluster(), for a standby
    backup = await take_backup(cluster.server, folder / "backup")
    ...
    server = await in_thread(succeed, cluster.server, backup, "recovery", {"restore_command": f"cp {archive}/%f %p"})
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from keelson.local.files import write_private
from keelson.local.postgres import HOST, Account, Postgres
from support.database import Cluster, Database, reachable_folder, running_cluster
from support.proxy import Fate, Proxy, running_proxy
from support.waiting import free_port

_TIMEOUT_S = 120


@contextmanager
def archiving_cluster() -> Iterator[tuple[Cluster, Path]]:
    """Lend a server that archives its write-ahead log, and the folder that it archives it in."""
    with reachable_folder() as folder:
        archive = folder / "archive"
        archive.mkdir(mode=0o700)
        _hand_over(archive, Account.needed())
        settings = {"archive_mode": "on", "archive_command": f"cp %p {archive}/%f"}
        with running_cluster(settings) as cluster:
            yield cluster, archive


async def take_backup(server: Postgres, target: Path) -> Path:
    """Take a base backup of a server that runs, with the write-ahead log that it needs."""
    process = await asyncio.create_subprocess_exec(
        server.binaries / "pg_basebackup", f"--dbname={server.url()}", f"--pgdata={target}", "--checkpoint=fast"
    )
    async with asyncio.timeout(_TIMEOUT_S):
        assert await process.wait() == 0
    return target


@contextmanager
def successor(
    server: Postgres, backup: Path, signal: Literal["recovery", "standby"], settings: Mapping[str, str]
) -> Iterator[Postgres]:
    """Lend a server made of a backup of another, with its passwords, not started; ended and removed afterwards.

    `signal` is what it is told to be: to recover up to its target or the end of the archive, or to follow.
    """
    with reachable_folder() as folder:
        made = Postgres(folder / "postgres", server.binaries, free_port(), folder / "log", settings=settings)
        made.folder.mkdir()
        made.folder.chmod(0o711)
        write_private(made.folder / "password", server.password)
        shutil.copytree(backup, made.data)
        (made.data / f"{signal}.signal").touch()
        _hand_over(made.data, made.account)
        try:
            yield made
        finally:
            made.stop()


def _hand_over(folder: Path, account: Account | None) -> None:
    if account is not None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.uid, account.gid)


def follow(server: Postgres, port: int) -> Mapping[str, str]:
    """Give the settings of a standby that follows a server through a port, which may be a proxy's."""
    return {"primary_conninfo": f"host={HOST} port={port} user=postgres password={server.password}"}


@asynccontextmanager
async def addressed(server: Postgres, database: Database) -> AsyncIterator[tuple[Proxy, Database]]:
    """Lend an address that leads to a server until it is given to another, and the database as it is reached by it."""
    async with running_proxy(HOST, server.port) as proxy:
        roles = ("command_dsn", "projector_dsn", "query_dsn")
        yield proxy, replace(database, **{role: proxy.url(getattr(database, role)) for role in roles})


def give_address(proxy: Proxy, server: Postgres) -> None:
    """Have an address lead to another server, as a failover does; connections to the one before are lost."""
    proxy.fate = lambda: Fate((HOST, server.port), proxy.to_client)
    proxy.cut()
