"""KEELSON_HOME: the lock, the secrets, which processes run, and dev.json for whoever wants to talk to the stack."""

import base64
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from keelson.access.tokens import is_token, new_token
from keelson.local.errors import LocalError
from keelson.local.files import write_private
from keelson.local.process import Identity


class Secrets(msgspec.Struct, frozen=True):
    """Made once and kept, so that a restart goes on with the same token, keys and passwords.

    Those with a default came later: a home from before gets them at its next start.
    """

    operator_token: str
    idempotency_secret: str
    passwords: dict[str, str]
    secret_keys: str = msgspec.field(default_factory=lambda: f"first:{_encoded(secrets.token_bytes(32))}")
    digest_key: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(32))
    scheduler_token: str = msgspec.field(default_factory=new_token)

    @classmethod
    def generate(cls, roles: tuple[str, ...]) -> "Secrets":
        """Make random ones, with a password for each role."""
        return cls(new_token(), secrets.token_urlsafe(32), {r: secrets.token_urlsafe(24) for r in roles})

    def of_command(self) -> dict[str, str]:
        """Give what the command service alone is told."""
        return {
            "idempotency_secret": self.idempotency_secret,
            "secret_keys": self.secret_keys,
            "digest_key": self.digest_key,
        }


class Dev(msgspec.Struct, frozen=True):
    """How to reach a running stack: what dev.json says. In containers, neither projector nor database is reached."""

    command_url: str
    query_url: str
    operator_token: str
    projector_url: str | None = None
    database_url: str | None = None


class Home:
    """The folder in which one stack keeps everything but root's data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.nodes = folder / "nodes"
        self.dev_file = folder / "dev.json"
        self._pids_file = folder / "pids.json"
        self._running: dict[str, Identity] = {}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Own the home until the block ends; raises LocalError if another supervisor or demo does. A crash frees it."""
        self.make_folders()
        # Not inherited by children, so that an orphan does not hold it.
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LocalError(self._already_running()) from None
            yield

    def make_folders(self) -> None:
        """Make the home's folders, readable by nobody else."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.logs, self.nodes):
            folder.mkdir(mode=0o700, exist_ok=True)

    def read_or_make_secrets(self, roles: tuple[str, ...]) -> Secrets:
        """Return the home's secrets, made at its first start; a token that no principal can have is made anew."""
        file = self.folder / "secrets.json"
        made = msgspec.json.decode(file.read_bytes(), type=Secrets) if file.exists() else Secrets.generate(roles)
        if not is_token(made.operator_token):
            made = msgspec.structs.replace(made, operator_token=new_token())
        write_private(file, msgspec.json.encode(made).decode())
        return made

    def note_running(self, name: str, identity: Identity | None) -> None:
        """Keep on disk which process runs under a name (None: none), for a later start to find it orphaned."""
        if identity is None:
            self._running.pop(name, None)
        else:
            self._running[name] = identity
        write_private(self._pids_file, msgspec.json.encode(self._running).decode())

    def read_running(self) -> dict[str, Identity]:
        """Return what the last supervisor of this home noted, of what still runs."""
        if not self._pids_file.exists():
            return {}
        noted = msgspec.json.decode(self._pids_file.read_bytes(), type=dict[str, Identity])
        return {name: identity for name, identity in noted.items() if identity.is_running()}

    def write_dev(self, dev: Dev) -> None:
        """Tell others how to reach the stack; whole or not at all, readable by nobody else."""
        write_private(self.dev_file, msgspec.json.format(msgspec.json.encode(dev), indent=2).decode() + "\n")

    def remove_dev(self) -> None:
        """Tell others that no stack runs."""
        self.dev_file.unlink(missing_ok=True)

    def read_dev(self) -> Dev:
        """Return how to reach the running stack; raises LocalError if none runs."""
        try:
            return msgspec.json.decode(self.dev_file.read_bytes(), type=Dev)
        except FileNotFoundError:
            raise LocalError(
                f"no stack runs on {self.folder}: start one by `make run` and wait for READY, or by `make up`"
            ) from None

    def open_log(self, name: str) -> Path:
        """Begin a log file, keeping the run before as `<name>.log.1`; return its path."""
        log = self.logs / f"{name}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        os.close(os.open(log, os.O_CREAT | os.O_WRONLY, 0o600))
        return log

    def _already_running(self) -> str:
        supervisor = self.read_running().get("supervisor")
        who = f" (pid {supervisor.pid})" if supervisor else ""
        return (
            f"a stack or a demo runs on {self.folder} already{who}: stop that one, or start another beside it by "
            "KEELSON_HOME, KEELSON_COMMAND_PORT, KEELSON_QUERY_PORT, KEELSON_PROJECTOR_PORT, "
            "KEELSON_SCHEDULER_PORT and KEELSON_DATABASE_PORT"
        )


def _encoded(key: bytes) -> str:
    return base64.b64encode(key).decode()
