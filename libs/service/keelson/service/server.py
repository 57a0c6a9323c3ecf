"""Running a service as a process: uvicorn on uvloop and httptools, until a signal, a failure, or both.

Exit codes: 0 after a stop that was asked for; 1 after a failure; 2 when the operator must mend something first, which
one line on standard error names; 3 when the port cannot be bound.
"""

import asyncio
import gc
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import structlog
import uvicorn

from keelson.service.app import Application
from keelson.service.connection import Connection
from keelson.service.lifecycle import is_refusal, leaves_of
from keelson.service.logs import configure_logging
from keelson.service.open_files import allow_files
from keelson.service.settings import ServerSettings
from keelson.settings import SettingsError, unknown_in

# Longer than clients and proxies keep idle connections, so that it is never the server that closes one just in use.
KEEP_ALIVE_S = 75
# Python collects its youngest objects after 700 more of them, with a service's thousands of long-lived ones at every
# hundredth time. Requests leave hardly any cycles; collecting less often gave a command a tenth of its CPU back.
COLLECTED_AFTER = (20_000, 20, 20)
# Resources close within their own bounds; if they do not, the process ends anyway.
CLOSING_S = 5.0
# While it stops, connections are told to end so often.
TELL_INTERVAL_S = 0.1
# A client that takes nothing of what it is answered holds a service that stops no longer than this.
STALLED_S = 2.0

S = TypeVar("S", bound=ServerSettings)

_log = structlog.get_logger()


def run(settings_type: type[S], build: Callable[[S], Application]) -> int:
    """Read the settings, build the application, serve it; give the process's exit code."""
    try:
        settings = settings_type.load(os.environ)
    except SettingsError as error:
        return refuse(str(error))
    return serve(build(settings), settings, unknown_in(os.environ, settings_type))


def serve(app: Application, settings: ServerSettings, unknown: Mapping[str, str | None] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, or until the service fails; give the process's exit code.

    A signal ends readiness; after `drain_delay_s`, in which requests are still accepted and answered, the service stops
    accepting, and lets requests in flight finish for `shutdown_grace_s` at most. A second signal ends the process at
    once. `unknown` are variables that the settings do not know, each with the one that may be meant: said, and no
    reason to refuse, since they may be meant for others.
    """
    configure_logging(app.name, settings.log_level)
    for variable, meant in (unknown or {}).items():
        _log.warning("setting_unknown", variable=variable, meant=meant)
    allow_files(settings.files)
    gc.set_threshold(*COLLECTED_AFTER)
    server = Server(app, settings)
    app.lifecycle.on_failure = server.stop
    server.run()
    return _exit_code(app)


def refuse(why: str) -> int:
    """Say in one line why the process does not start, and give its exit code."""
    sys.stderr.write(f"keelson: {why}\n")
    return 2


def _exit_code(app: Application) -> int:
    failure = app.lifecycle.failure
    if failure is None:
        return 0
    if is_refusal(failure):
        return refuse("; ".join(str(each) for each in leaves_of(failure)))
    _log.error("service_failed", exc_info=failure)
    return 1


class _Stalls:
    """How long clients have taken nothing of what is left for them, by how much of it was left at each look."""

    def __init__(self) -> None:
        self._seen: dict[asyncio.Transport, tuple[int, float]] = {}

    def last_too_long(self, transport: asyncio.Transport) -> bool:
        """Look again; whether there is something left for a client, and it has taken nothing for STALLED_S."""
        now, left = asyncio.get_running_loop().time(), transport.get_write_buffer_size()
        before, since = self._seen.get(transport, (0, now))
        if left != before:
            self._seen[transport] = left, now
        return 0 < left == before and now - since >= STALLED_S


class Server(uvicorn.Server):
    """uvicorn, but for its signals: it ends a process by the signal that it got, and forces only on SIGINT."""

    def __init__(self, app: Application, settings: ServerSettings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http=Connection,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=math.ceil(settings.shutdown_grace_s),
            )
        )
        self._app = app
        self._stopping = False
        self._drain_delay_s = settings.drain_delay_s
        self._overdue_s = settings.shutdown_grace_s + CLOSING_S

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals within the event loop, for as long as the server runs."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, and wait for what is in flight.

        Also for a connection that was accepted just before and made just after: uvicorn tells each of those it sees to
        end once, and would wait for that one until its client leaves (F33). Who takes what is left of an answer slowly
        has the grace period for it; who takes nothing is cut off after STALLED_S.
        """
        telling = asyncio.create_task(self._keep_telling())
        try:
            await super().shutdown(sockets)
        finally:
            telling.cancel()

    async def _keep_telling(self) -> None:
        stalls = _Stalls()
        while True:
            await asyncio.sleep(TELL_INTERVAL_S)
            for connection in list(self.server_state.connections):
                connection.shutdown()
                if stalls.last_too_long(connection.transport):
                    connection.transport.abort()

    def stop(self) -> None:
        """Begin to stop at once: not ready from now on, and gone within the grace period."""
        self._stopping = True
        if self.should_exit:
            return
        self._app.lifecycle.drain()
        self._app.lifecycle.end_waits()
        self.should_exit = True
        asyncio.get_running_loop().call_later(self._overdue_s, _end, "stop_overdue")

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping:
            _end("stop_forced")
        _log.info("stop_asked", signal=number.name)
        self._stopping = True
        if self._drain_delay_s and self._app.lifecycle.answers:
            # Whoever balances load has yet to see that this replica is not ready; until then it gets requests.
            self._app.lifecycle.drain()
            asyncio.get_running_loop().call_later(self._drain_delay_s, self.stop)
        else:
            self.stop()


def _end(event: str) -> None:
    """End the process at once, whatever runs in it."""
    _log.warning(event)
    os._exit(1)
