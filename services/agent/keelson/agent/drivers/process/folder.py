"""An instance's folder: what it was started as, its secrets, and what it writes."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from keelson.agent.drivers.process.identity import Identity
from keelson.agent.state import replace_file, sync_folder
from keelson.client.reads.nodes import DesiredInstance

T = TypeVar("T")

LOGS = ("stdout.log", "stderr.log")
# What the API takes for a secret's name; it is a file's name here, so nothing else is believed.
_SECRET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_COPIED_AT_ONCE = 1024 * 1024


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of an instance: what it is, its ports, and which process it is, if it was started."""

    instance: DesiredInstance
    ports: dict[str, int] = {}
    leader: Identity | None = None
    ready: bool = False


class _Process(msgspec.Struct, frozen=True, kw_only=True):
    """Of a record, what ends with the machine, as all processes do."""

    leader: Identity | None
    ready: bool


class InstanceFolder:
    """The folder of one instance; it and all in it are closed to other accounts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def secrets(self) -> Path:
        """The folder of its secrets: a file for each, named like it."""
        return self.path / "secrets"

    def make(self) -> None:
        """Make it, if it is not there, and have that on disk."""
        if not self.path.exists():
            self.path.mkdir(mode=0o700)
            sync_folder(self.path.parent)

    def read(self) -> Record | None:
        """Give what was kept; None if nothing was, or what was cannot be read."""
        kept = _read(self.path / "instance.json", Record)
        process = _read(self.path / "run.json", _Process)
        if kept is None or process is None:
            return kept
        return msgspec.structs.replace(kept, leader=process.leader, ready=process.ready)

    def write(self, record: Record) -> None:
        """Keep it: what it is and its ports over the machine's end, which process it is only over the agent's.

        What is there on disk already is not written again.
        """
        kept = msgspec.structs.replace(record, leader=None, ready=False)
        if record.leader is None:  # before anything else, so that what is to be started is not taken for what ran
            (self.path / "run.json").unlink(missing_ok=True)
        if _read(self.path / "instance.json", Record) != kept:
            replace_file(self.path / "instance.json", [msgspec.json.encode(kept)], durable=True)
        if record.leader is not None:
            process = _Process(leader=record.leader, ready=record.ready)
            replace_file(self.path / "run.json", [msgspec.json.encode(process)], durable=False)

    def open_log(self, name: str) -> int:
        """Open one of its logs for the instance to append to; give the handle."""
        return os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write_secrets(self, values: Mapping[str, str]) -> None:
        """Keep its secrets, all or none, over the machine's end too: that they are there is all that is asked later.

        Raises ValueError for a name that cannot be a file's.
        """
        if not all(map(_SECRET_NAME.fullmatch, values)):
            raise ValueError("a secret's name cannot be a file's")
        unfinished = self.path / "secrets.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        for name, value in values.items():
            replace_file(unfinished / name, [value.encode()], durable=True)
        unfinished.rename(self.secrets)
        sync_folder(self.path)

    def bound_logs(self, max_bytes: int) -> None:
        """Begin each log that has grown over the bound anew, keeping the end of the old one beside it.

        The instance goes on appending to the same file. What it writes in the moment between copy and cut is lost.
        """
        for name in LOGS:
            _bound(self.path / name, max_bytes)

    def remove(self, ended: Path, kept: int) -> None:
        """Remove it, the secrets first. Its logs go to `ended`, where those of the last `kept` instances stay."""
        shutil.rmtree(self.secrets, ignore_errors=True)
        with contextlib.suppress(OSError):  # where there is no room to keep them, they go as well
            _keep_logs(self.path, ended / self.path.name)
            for each in sorted(ended.iterdir(), key=_changed_at)[:-kept]:
                shutil.rmtree(each, ignore_errors=True)
        shutil.rmtree(self.path, ignore_errors=True)


def folders_in(path: Path) -> Iterator[InstanceFolder]:
    """Give the instances' folders that are there."""
    return (InstanceFolder(each) for each in sorted(path.iterdir()) if each.is_dir())


def _read(path: Path, type_: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=type_)
    except (OSError, msgspec.MsgspecError):
        return None


def _keep_logs(folder: Path, ended: Path) -> None:
    logs = [log for name in LOGS for log in (folder / name, _end_of(folder / name)) if log.exists()]
    if logs:
        ended.parent.mkdir(mode=0o700, exist_ok=True)
        ended.mkdir(mode=0o700, exist_ok=True)
    for log in logs:
        log.replace(ended / log.name)


def _changed_at(path: Path) -> int:
    return path.stat().st_mtime_ns


def _end_of(log: Path) -> Path:
    """Give the file that keeps the end of what a log had before it was begun anew."""
    return log.with_name(f"{log.name}.1")


def _bound(path: Path, max_bytes: int) -> None:
    try:
        with path.open("rb+") as log:
            size = os.fstat(log.fileno()).st_size
            if size <= max_bytes:
                return
            with contextlib.suppress(OSError):  # a disk that is full is no reason to let it grow
                _keep(log.fileno(), size - max_bytes, _end_of(path))
            log.truncate(0)
    except OSError:
        return


def _keep(handle: int, start: int, path: Path) -> None:
    """Copy what a file has from an offset on, as of now; the copy is there whole or not at all, and never in memory."""
    size = os.fstat(handle).st_size
    pieces = (os.pread(handle, min(size - at, _COPIED_AT_ONCE), at) for at in range(start, size, _COPIED_AT_ONCE))
    replace_file(path, pieces, durable=False)
