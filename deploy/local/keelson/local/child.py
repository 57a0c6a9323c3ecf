"""A service as a child process: started, watched, stopped, ended, started again."""

import asyncio
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from keelson.local.process import Identity, describe_exit, wait_for_exit

T = TypeVar("T")

_READINESS_TIMEOUT_S = 3.0
_KILL_WAIT_S = 5.0


@dataclass(slots=True)
class Child:
    """`python -m <module>` with an environment of its own, its output appended to a log file.

    It runs in a session of its own, so that a terminal's Ctrl-C does not reach it. `start` after its end starts it
    again; `stop` and `kill` are safe when it does not run. `starts` counts how often.
    """

    name: str
    module: str
    environ: Mapping[str, str]
    log: Path
    starts: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the service answers."""
        return f"http://127.0.0.1:{self.environ['KEELSON_PORT']}"

    @property
    def whereabouts(self) -> str:
        """Where people find it, in words."""
        return f"at {self.url}"

    @property
    def pid(self) -> int | None:
        """Its pid while it runs."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    @property
    def identity(self) -> Identity | None:
        """Which process it is while it runs."""
        return None if self.pid is None else Identity.read(self.pid)

    async def start(self) -> None:
        """Start it and return at once; nothing happens if it runs."""
        if self.pid is None:
            self.starts += 1
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - our own modules; fork and exec take no time
                    [sys.executable, "-m", self.module],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self.environ,
                    start_new_session=True,
                )

    async def wait(self) -> str:
        """Wait until it has ended; tell how, in words."""
        if self._process is None:
            return "was not started"
        await wait_for_exit(self._process.pid)
        code = self._process.wait(_KILL_WAIT_S)
        return describe_exit(code) + (f", saying {self.last_words()!r}" if code > 0 else "")

    def last_words(self) -> str:
        """Return the last line that it logged, shortened."""
        lines = self.log.read_text(errors="replace").splitlines()
        return lines[-1][:300] if lines else ""

    async def stop(self, grace_s: float = 15.0) -> None:
        """Ask it to stop by SIGTERM; end it by SIGKILL after `grace_s` seconds."""
        if self._process is not None:
            self._process.terminate()
            try:
                await asyncio.wait_for(wait_for_exit(self._process.pid), grace_s)
            except TimeoutError:
                self.kill()
            self._process.wait(_KILL_WAIT_S)

    def kill(self) -> None:
        """End it by SIGKILL, as a crash would, and return when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_KILL_WAIT_S)

    async def read_unreadiness(self) -> str | None:
        """Ask the service whether it can do its work: None if so, else what it cannot, in words."""
        return await in_thread(lambda: _read_unreadiness(f"{self.url}/readyz"))


async def in_thread(function: Callable[[], T]) -> T:
    """Run a blocking, bounded function beside the loop; a cancellation waits for its end, so that nothing is left."""
    running = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def service_environ(inherited: Mapping[str, str], **settings: str | int) -> dict[str, str]:
    """Give a service's environment: what we inherited, without the supervisor's own settings, and these settings."""
    given = {f"KEELSON_{name.upper()}": str(value) for name, value in settings.items()}
    other = {*_SUPERVISORS_OWN, *(f"{name}_FILE" for name in (*_SUPERVISORS_OWN, *given))}
    kept = {name: value for name, value in inherited.items() if name not in other}
    return kept | given | {"PYTHONUNBUFFERED": "1"}


_SUPERVISORS_OWN = {
    "KEELSON_HOME",
    "KEELSON_COMMAND_PORT",
    "KEELSON_QUERY_PORT",
    "KEELSON_PROJECTOR_PORT",
    "KEELSON_SCHEDULER_PORT",
    "KEELSON_DATABASE_PORT",
    "KEELSON_DATABASE_URL",
    "KEELSON_DATABASE_PASSWORD",
    "KEELSON_LISTEN_DATABASE_URL",
    "KEELSON_POSTGRES_BIN",
    # Of the tests, which run services as the supervisor does.
    "KEELSON_TEST_POSTGRES_BIN",
    "KEELSON_TEST_TIMES",
}


def _read_unreadiness(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=_READINESS_TIMEOUT_S):  # noqa: S310 - our own loopback address
            return None
    except urllib.error.HTTPError as refusal:
        with refusal:
            return _explain(refusal.read())
    except OSError:
        return "does not answer yet"


def _explain(body: bytes) -> str:
    try:
        checks = msgspec.json.decode(body)["checks"]
        return "; ".join(f"{name}: {state}" for name, state in checks.items() if state not in ("ok", True))
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return os.fsdecode(body[:200])
