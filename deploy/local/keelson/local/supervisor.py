"""`make run`: PostgreSQL, the services, the scheduler and two nodes under one roof, until Ctrl-C or SIGTERM.

Innermost stops first: the scheduler and the nodes with all that they run, the services, then the database. Everything
that is started is noted in the home, so that the next start finds and ends what a killed supervisor left behind.
"""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import asyncpg

from keelson.client import Client, ClientError
from keelson.local.child import Child, in_thread, service_environ
from keelson.local.database import DATABASE, OWNER, prepare_foreign, prepare_log, prepare_server, with_role
from keelson.local.errors import LocalError
from keelson.local.home import Dev, Home, Secrets
from keelson.local.keeper import kept_alive
from keelson.local.nodes import ZONES, Machine
from keelson.local.operator import make_operator
from keelson.local.orphans import end_orphans
from keelson.local.outdated import read_outdated, rebuild
from keelson.local.postgres import HOST, Postgres
from keelson.local.process import Identity
from keelson.local.readiness import wait_until_ready
from keelson.local.server import KeptPostgres, embedded_server
from keelson.local.settings import Settings
from keelson.local.signals import until_signal
from keelson.log.roles import SERVICE_ROLES

SERVICES = ("command", "projector", "query")
# What needs no database, but the services: it stops before them.
CONVERGING = ("scheduler", *ZONES)
ORDER_OF_STOP = (*CONVERGING, *SERVICES, "database")


def run(environ: Mapping[str, str]) -> int:
    """Run until a signal; return the exit code. Raises LocalError (or a group of them) if it cannot."""
    settings = Settings.load(environ)
    home = Home(settings.home)
    with home.locked():
        asyncio.run(until_signal(Supervisor(settings, home, environ).run(), lambda: say("keelson", "stopping")))
    say("keelson", "stopped")
    return 0


def say(name: str, line: str) -> None:
    """Print one line for people."""
    _print(f"  {name:<11}{line}")


def _print(line: str) -> None:
    # The terminal may be closed, or the reader of a pipe gone: no reason to leave things running.
    with suppress(OSError):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


class Supervisor:
    """One stack: made, watched, and stopped when its task is cancelled."""

    def __init__(self, settings: Settings, home: Home, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._home = home
        self._environ = environ
        self._secrets: Secrets = home.read_or_make_secrets((OWNER, *SERVICE_ROLES))

    async def run(self) -> None:
        """Start everything, tell so, and keep it alive until cancelled."""
        say("keelson", f"starting in {self._home.folder}")
        self._home.remove_dev()
        server = self._embedded_server()
        await in_thread(lambda: self._end_orphans(server))
        _check_free(self._settings.ports())
        self._home.note_running("supervisor", Identity.read(os.getpid()))
        async with self._database(server) as owner_url:
            await self._make_operators(owner_url)
            services = self._services(owner_url)
            await self._rebuild_outdated(owner_url, services[SERVICES.index("projector")])
            async with (
                kept_alive(services, say, self._home.note_running),
                Client(*self._urls, self._secrets.operator_token) as operator,
            ):
                await wait_until_ready(services, say)
                converging = await self._converging(operator)
                async with kept_alive(converging, say, self._home.note_running):
                    await wait_until_ready(converging, say)
                    self._tell(owner_url)
                    try:
                        await asyncio.get_running_loop().create_future()
                    finally:
                        self._home.remove_dev()

    def _embedded_server(self) -> Postgres | None:
        if self._settings.database_url is not None:
            return None
        log = self._home.open_log("database")
        return embedded_server(self._home.folder, self._settings.database_port, log, self._environ)

    def _end_orphans(self, server: Postgres | None) -> None:
        """End what a killed supervisor of this home left running, in the order of a stop."""
        end_orphans(self._home, ORDER_OF_STOP, say)
        if server is not None:
            server.stop()

    @asynccontextmanager
    async def _database(self, server: Postgres | None) -> AsyncIterator[str]:
        """Give the URL of the log's owner, with the database migrated and every role able to log in."""
        passwords = self._secrets.passwords
        if server is None:
            owner_url = self._settings.database_url or ""
            say("database", f"using {_without_password(owner_url)}")
            try:
                await prepare_foreign(owner_url, passwords)
                await self._migrate(owner_url)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                raise LocalError(f"the database that KEELSON_DATABASE_URL names does not do: {error}") from error
            yield owner_url
            return
        say("database", f"starting PostgreSQL on {HOST}:{server.port}, data in {server.data}")
        async with kept_alive([KeptPostgres(server)], say, self._home.note_running):
            await prepare_server(server.url(), passwords)
            owner_url = with_role(server.url(DATABASE), OWNER, passwords[OWNER])
            await self._migrate(owner_url)
            yield owner_url

    async def _migrate(self, owner_url: str) -> None:
        applied = await prepare_log(owner_url)
        say("database", f"ready; migrations applied now: {', '.join(applied) or 'none, it is up to date'}")

    async def _make_operators(self, owner_url: str) -> None:
        """Let whoever runs the stack act as operator, and its scheduler."""
        log = self._home.open_log("bootstrap")
        for called, token in (
            ("operator", self._secrets.operator_token),
            ("scheduler", self._secrets.scheduler_token),
        ):
            environ = service_environ(
                self._environ, database_url=self._url_of("keelson_command", owner_url), operator_token=token
            )
            await make_operator(environ, token, log, called=called)

    async def _rebuild_outdated(self, owner_url: str, projector: Child) -> None:
        for projection in await read_outdated(owner_url):
            say("projector", f"rebuilding {projection}, whose version was raised")
            await rebuild(projector, projection)

    def _services(self, owner_url: str) -> list[Child]:
        return [self._service(name, owner_url) for name in SERVICES]

    def _service(self, name: str, owner_url: str) -> Child:
        # The projector may not read who holds which credential: it knows the operator by the token itself.
        own = {
            "command": self._secrets.of_command(),
            "projector": {"operator_token": self._secrets.operator_token},
        }
        environ = service_environ(
            self._environ,
            database_url=self._url_of(f"keelson_{name}", owner_url),
            port=getattr(self._settings, f"{name}_port"),
            **own.get(name, {}),
        )
        return Child(name, f"keelson.{name}", environ, self._home.open_log(name))

    async def _converging(self, operator: Client) -> list[Child]:
        """Give the scheduler and the nodes' agents, which know the stack by its APIs alone."""
        command_url, query_url = self._urls
        environ = service_environ(
            self._environ,
            command_url=command_url,
            query_url=query_url,
            token=self._secrets.scheduler_token,
            port=self._settings.scheduler_port,
        )
        scheduler = Child("scheduler", "keelson.scheduler", environ, self._home.open_log("scheduler"))
        try:
            return [scheduler, *await Machine(self._home, self._environ, operator, self._urls).make_agents()]
        except ClientError as error:
            raise LocalError(f"the nodes cannot be let in: {error}") from error

    @property
    def _urls(self) -> tuple[str, str]:
        """Where `command` and `query` answer."""
        return (f"http://{HOST}:{self._settings.command_port}", f"http://{HOST}:{self._settings.query_port}")

    def _url_of(self, role: str, owner_url: str) -> str:
        return with_role(owner_url, role, self._secrets.passwords[role])

    def _tell(self, owner_url: str) -> None:
        settings = self._settings
        dev = Dev(
            command_url=self._urls[0],
            query_url=self._urls[1],
            projector_url=f"http://{HOST}:{settings.projector_port}",
            operator_token=self._secrets.operator_token,
            database_url=owner_url,
        )
        self._home.write_dev(dev)
        say("token", dev.operator_token)
        say("files", f"{self._home.dev_file} (URLs and token), {self._home.logs} (logs)")
        say("next", "`make demo` in another terminal; Ctrl-C stops everything")
        _print("KEELSON READY")


def _check_free(ports: Mapping[str, int]) -> None:
    taken = [(variable, port) for variable, port in ports.items() if not _is_free(port)]
    if taken:
        raise LocalError("\n".join(f"port {port} is in use: choose another by {variable}" for variable, port in taken))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the services do: a port whose last connections linger in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
