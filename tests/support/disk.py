"""A disk so small that a test can fill it: a file system in memory, which only root may mount."""

import asyncio
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from keelson.local.postgres import Postgres
from support.database import Cluster, binaries_for_tests, reachable_folder
from support.waiting import free_port

SIZE_MIB = 96

_BLOCKS = (2**20, 2**12)
# What the system's list of mounts shows it as.
_SOURCE = "keelson-test"


@dataclass(frozen=True)
class Disk:
    """A small disk; what fills it is a file that nobody needs."""

    place: Path

    @property
    def _ballast(self) -> Path:
        return self.place / "ballast"

    def fill(self) -> None:
        """Leave no room for as much as a page."""
        with self._ballast.open("ab", buffering=0) as file:
            for block in _BLOCKS:
                _write_until_full(file.fileno(), bytes(block))

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink()


@contextmanager
def cluster_with_small_disk(holds: Literal["data", "wal"]) -> Iterator[tuple[Cluster, Disk]]:
    """Run a server whose data files, or whose WAL, lie on a small disk, and all the rest on a large one.

    Must not be called where an event loop runs. Skips the test where nothing can be mounted; as root in CI it fails.
    """
    with reachable_folder() as folder:
        server = Postgres(folder / "postgres", binaries_for_tests(folder), free_port(), folder / "log")
        wal = folder / "wal"
        with _small_disk({"data": server.folder, "wal": wal}[holds]) as disk:
            server.create()
            _move_wal(server, wal)
            try:
                server.start()
                cluster = Cluster(server)
                asyncio.run(cluster.prepare())
                yield cluster, disk
            finally:
                server.stop()


@contextmanager
def _small_disk(place: Path) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk small enough to fill")
    _sweep()
    place.mkdir()
    options = f"size={SIZE_MIB}m,mode=711"
    mounted = subprocess.run(  # noqa: S603 - the system's own program
        ["/usr/bin/mount", "-t", "tmpfs", "-o", options, _SOURCE, str(place)],
        capture_output=True,
        text=True,
        check="CI" in os.environ,
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield Disk(place)
    finally:
        _unmount(place)


def _sweep() -> None:
    """Remove the disks of test sessions that were killed; their folders have been emptied as every such folder is."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        source, place = line.split()[:2]
        folder = Path(place).parent
        if source == _SOURCE and not any(folder.glob("*.json")):
            _unmount(Path(place))
            shutil.rmtree(folder, ignore_errors=True)


def _unmount(place: Path) -> None:
    """Unmount lazily: a process that is about to end may still be in there."""
    subprocess.run(["/usr/bin/umount", "--lazy", str(place)], check=True)  # noqa: S603 - the system's own program


def _move_wal(server: Postgres, folder: Path) -> None:
    """Do what initdb does if told where the WAL belongs."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)
    subprocess.run(["/usr/bin/mv", str(server.data / "pg_wal"), str(folder)], check=True)  # noqa: S603 - keeps the owner
    (server.data / "pg_wal").symlink_to(folder / "pg_wal")


def _write_until_full(file: int, block: bytes) -> None:
    try:
        while True:
            os.write(file, block)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
