"""One PostgreSQL server of our own: made by initdb, run as our child, reached over loopback TCP with a password.

The wheel's own helper is not used: it creates users and changes the rights of parent folders. PostgreSQL refuses to
run as root, so root runs it as `postgres` or `nobody`.
"""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from keelson.local.errors import LocalError
from keelson.local.files import write_private
from keelson.local.process import Identity, end_process

SUPERUSER = "postgres"
HOST = "127.0.0.1"

# What an acknowledged append relies on; a test that wants a server without says so.
DURABLE_SETTINGS: Mapping[str, str] = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}

_POLL_INTERVAL_S = 0.02
_START_ATTEMPTS = 8
_START_RETRY_S = 0.5
_INITDB_TIMEOUT_S = 120.0


class PostgresError(LocalError):
    """The server could not be made or started; the message ends with what it logged last."""


@dataclass(frozen=True, slots=True)
class Account:
    """The operating system's user that runs PostgreSQL in place of root."""

    uid: int
    gid: int

    @classmethod
    def needed(cls) -> Self | None:
        """Return None for an ordinary user, who runs PostgreSQL itself; for root, `postgres` or else `nobody`."""
        if os.geteuid() != 0:
            return None
        for name in ("postgres", "nobody"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(entry.pw_uid, entry.pw_gid)
        raise PostgresError("root cannot run PostgreSQL, and there is neither a user postgres nor nobody to run it as")


@dataclass(slots=True)
class Postgres:
    """A server whose data and password live in `folder` (whose parents the account must be able to enter).

    `log` is the file that it and initdb write, opened by us and so of our own rights. `settings` are added to the
    durable ones. Not safe for use by two processes at once: the caller locks.
    """

    folder: Path
    binaries: Path
    port: int
    log: Path
    account: Account | None = field(default_factory=Account.needed)
    settings: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def password(self) -> str:
        """The superuser's password, made with the data; raises FileNotFoundError before."""
        return (self.folder / "password").read_text()

    def url(self, database: str = "postgres") -> str:
        """Return the superuser's URL for a database."""
        return f"postgresql://{SUPERUSER}:{self.password}@{HOST}:{self.port}/{database}"

    def create(self) -> None:
        """Make the data directory with a random superuser's password, unless it exists; whole or not at all."""
        if self.data.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        # Whatever the umask is: another account than ours must pass through, and needs no more.
        self.folder.chmod(0o711)
        unfinished = self.folder / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._hand_over(unfinished)
        password_file = self.folder / "password"
        write_private(password_file, secrets.token_urlsafe(24))
        self._initdb(unfinished, password_file)
        unfinished.rename(self.data)

    def start(self, timeout_s: float = 30.0) -> None:
        """Start the server and return when it accepts connections, a standby in recovery; raises PostgresError.

        After a crash the old server's children may live for a moment and keep a new one from starting: tried again.
        """
        deadline = time.monotonic() + timeout_s
        for _ in range(_START_ATTEMPTS):
            process = self._spawn()
            if self._wait_until_ready(process, deadline):
                return
            time.sleep(_START_RETRY_S)
        raise PostgresError(f"PostgreSQL did not start:\n{self._log_end()}")

    def stop(self, timeout_s: float = 15.0) -> None:
        """Stop the server: fast, then immediate after `timeout_s`, then by SIGKILL. Safe when it does not run."""
        if (identity := self.identity()) is not None:
            identity.signal(signal.SIGINT)
            if not identity.wait_until_gone(timeout_s):
                end_process(identity, signal.SIGQUIT, grace_s=5.0)
        self._reap()

    def kill(self) -> None:
        """End the server by SIGKILL, as a crash would; what was committed stays. Safe when it does not run."""
        if (identity := self.identity()) is not None:
            end_process(identity, signal.SIGKILL, grace_s=5.0)
        self._reap()

    def identity(self) -> Identity | None:
        """Return the running postmaster of this data directory, whoever started it; None if there is none."""
        pid = self._pid_from_file() if self._process is None else self._process.pid
        if pid is None or (identity := Identity.read(pid)) is None:
            return None
        # A file left by a crash may name a pid that the kernel has given to another process since.
        return identity if os.fsencode(self.data) in identity.command_line() else None

    def exit_code(self) -> int | None:
        """Return how the server that we started ended; None while it runs, and if we started none."""
        return None if self._process is None else self._process.poll()

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
            # A DETAIL quotes values, which may be personal; slow statements, if they are logged, have parameters.
            "log_error_verbosity": "terse",
            "log_parameter_max_length": "0",
            **DURABLE_SETTINGS,
            **self.settings,
        }
        arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        self._reap()
        self._process = self._popen("postgres", "-D", str(self.data), *arguments)
        return self._process

    def _wait_until_ready(self, process: subprocess.Popen[bytes], deadline: float) -> bool:
        """Return False if it ended; past the deadline it is killed, and that is an error."""
        while process.poll() is None:
            lines = self._pid_file_lines()
            # The eighth line is how the postmaster tells pg_ctl that it accepts connections.
            if lines[:1] == [str(process.pid)] and lines[7:8] in (["ready"], ["standby"]):
                return True
            if time.monotonic() > deadline:
                self.kill()
                raise PostgresError(f"PostgreSQL does not accept connections:\n{self._log_end()}")
            time.sleep(_POLL_INTERVAL_S)
        return False

    def _initdb(self, target: Path, password_file: Path) -> None:
        # The account cannot read our private file, nor a pipe of ours: a copy for it alone, inside its own folder.
        copy = target.with_suffix(".password")
        write_private(copy, password_file.read_text())
        self._hand_over(copy)
        try:
            process = self._popen(
                "initdb",
                f"--pgdata={target}",
                f"--pwfile={copy}",
                f"--username={SUPERUSER}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--data-checksums",
            )
            if _wait_or_kill(process, _INITDB_TIMEOUT_S) != 0:
                raise PostgresError(f"initdb failed:\n{self._log_end()}")
        finally:
            copy.unlink()

    def _popen(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Run a program as the account, in a session of its own: a terminal's Ctrl-C does not reach it."""
        account = self.account
        with self.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - the programs that find_binaries chose
                [str(self.binaries / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"LC_ALL": "C"},
                start_new_session=True,
                user=None if account is None else account.uid,
                group=None if account is None else account.gid,
                extra_groups=None if account is None else [],
            )

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait(5.0)
            self._process = None

    def _hand_over(self, path: Path) -> None:
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)

    def _pid_from_file(self) -> int | None:
        first = self._pid_file_lines()[:1]
        return int(first[0]) if first and first[0].isdigit() else None

    def _pid_file_lines(self) -> list[str]:
        try:
            return [line.strip() for line in (self.data / "postmaster.pid").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def _log_end(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-10:])


def _wait_or_kill(process: subprocess.Popen[bytes], timeout_s: float) -> int:
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(5.0)
