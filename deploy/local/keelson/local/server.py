"""The embedded PostgreSQL of one home, as something that is kept alive."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from keelson.local.binaries import find_binaries
from keelson.local.child import in_thread
from keelson.local.postgres import Account, Postgres
from keelson.local.process import Identity, describe_exit, wait_for_exit

# PostgreSQL cannot run as root, and whoever runs it for root cannot enter root's folders.
ROOTS_FOLDER = Path("/var/lib/keelson-dev")


def embedded_server(home: Path, port: int, log: Path, environ: Mapping[str, str]) -> Postgres:
    """Choose the programs, the account and the folder of a home's server; makes only the folders above its own."""
    account = Account.needed()
    if account is None:
        return Postgres(home / "postgres", find_binaries(environ, copies=None), port, log, None)
    ROOTS_FOLDER.mkdir(parents=True, exist_ok=True)
    ROOTS_FOLDER.chmod(0o755)
    return Postgres(data_folder(home), find_binaries(environ, copies=ROOTS_FOLDER), port, log, account)


def data_folder(home: Path) -> Path:
    """Tell where a home's server keeps its data: in it, or for root in a folder of its own."""
    if os.geteuid() != 0:
        return home / "postgres"
    return ROOTS_FOLDER / hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16]


class KeptPostgres:
    """A server that the keeper starts, watches and stops."""

    name = "database"

    def __init__(self, server: Postgres) -> None:
        self._server = server

    @property
    def identity(self) -> Identity | None:
        """Which process the postmaster is while it runs."""
        return self._server.identity()

    async def start(self) -> None:
        """Make the data if there is none, and start; return when it accepts connections."""
        await in_thread(self._server.create)
        await in_thread(self._server.start)

    async def wait(self) -> str:
        """Wait until it has ended; tell how, in words."""
        if (identity := self.identity) is not None:
            await wait_for_exit(identity.pid)
        code = self._server.exit_code()
        return "ended" if code is None else describe_exit(code)

    async def stop(self) -> None:
        """Stop it: fast, then by force."""
        await in_thread(self._server.stop)
