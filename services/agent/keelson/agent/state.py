"""What the agent keeps on disk, in a folder that is one node's: who it is, what it should be doing, its instances.

Files are replaced whole: after a crash, of the agent or the machine, there is the old one or the new one. The folder
and all in it are closed to other accounts.
"""

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from keelson.client.reads.nodes import DesiredInstance

T = TypeVar("T")


class StateError(Exception):
    """The folder cannot be used; the message says what to mend."""


class NodeFile(msgspec.Struct, frozen=True, kw_only=True):
    """Who this node is. The credential is all that it takes to act as it."""

    node_id: str
    credential: str
    name: str

    def __repr__(self) -> str:
        return f"NodeFile(node_id={self.node_id!r}, name={self.name!r})"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """An enrolment that was begun: the key that it is sent under, and a digest of the token that it is sent with."""

    idempotency_key: str
    token_digest: str


class DesiredFile(msgspec.Struct, frozen=True, kw_only=True):
    """What the node should be doing, as it was told last; `cursor` is `<epoch>-<version>`."""

    cursor: str
    version: int
    digest: str
    position: int
    items: tuple[DesiredInstance, ...]

    @property
    def epoch(self) -> str:
        """The lineage of the log that this comes from."""
        return self.cursor.partition("-")[0]


class StateFolder:
    """A node's folder, open for one agent at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = -1

    @property
    def instances(self) -> Path:
        """The folder of the instances' folders."""
        return self._path / "instances"

    def __enter__(self) -> Self:
        """Make the folder if need be, and take it. Raises StateError if another agent has it."""
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.instances.mkdir(mode=0o700, exist_ok=True)
            self._lock = os.open(self._path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise StateError(f"{self._path} is the state of an agent that runs") from None
        except OSError as error:
            raise StateError(f"{self._path} cannot be used ({error.strerror})") from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def has_node(self) -> bool:
        """Whether it is known here who this node is; the folder need not be open, or there."""
        return (self._path / "node.json").exists()

    def read_node(self) -> NodeFile | None:
        """Read who this node is; None before it has enrolled."""
        return self._read("node.json", NodeFile)

    def write_node(self, node: NodeFile) -> None:
        """Keep who this node is; of the enrolment nothing more needs to be known."""
        self._write("node.json", node)
        (self._path / "enrolment.json").unlink(missing_ok=True)

    def read_attempt(self) -> Attempt | None:
        """Read the enrolment that was begun, if one was."""
        return self._read("enrolment.json", Attempt)

    def write_attempt(self, attempt: Attempt) -> None:
        """Keep that an enrolment begins."""
        self._write("enrolment.json", attempt)

    def read_desired(self) -> DesiredFile | None:
        """Read what the node should be doing, as it was told last; None if it never was."""
        return self._read("desired.json", DesiredFile)

    def write_desired(self, desired: DesiredFile) -> None:
        """Keep what the node should be doing."""
        self._write("desired.json", desired)

    def _read(self, name: str, type_: type[T]) -> T | None:
        path = self._path / name
        try:
            return msgspec.json.decode(path.read_bytes(), type=type_)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError):
            raise StateError(f"{path} cannot be read; mend it, or remove it if it is lost") from None

    def _write(self, name: str, content: msgspec.Struct) -> None:
        replace_file(self._path / name, [msgspec.json.encode(content)], durable=True)


def replace_file(path: Path, pieces: Iterable[bytes], *, durable: bool) -> None:
    """Put these pieces into a file, whole or not at all, for its owner alone; if durable, it is on disk on return.

    What need not outlive the machine need not be durable: it is whole after the agent's crash all the same.
    """
    temporary = path.with_name(f"{path.name}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(handle, "wb") as file:  # noqa: PTH123 - of a handle that is open
        file.writelines(pieces)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have on disk which files are in a folder when this returns."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
