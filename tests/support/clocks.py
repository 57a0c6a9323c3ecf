"""Wall clocks that jump while processes run: libfaketime in their place, told what to say by a file.

The monotonic clock is left alone, as it is by whoever sets a machine's clock. What a process starts shares its clock.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from keelson.local.postgres import Postgres
from support.database import Cluster, binaries_for_tests, reachable_folder
from support.programs import needs
from support.waiting import free_port

# Debian's package of this name has the program, which tells whether it is there, and the library, which is used.
needs_fake_clocks = needs("faketime", "clocks jump by its library")
_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


@dataclass(frozen=True)
class Clock:
    """A wall clock of some processes: real time and an offset, none to begin with."""

    file: Path

    def jump(self, offset: timedelta) -> None:
        """Go so far before or behind real time, at once; whatever it was before."""
        told = self.file.with_suffix(".new")
        told.write_text(f"{offset.total_seconds():+.0f}\n", encoding="ascii")
        told.chmod(0o644)
        told.rename(self.file)

    @property
    def environ(self) -> Mapping[str, str]:
        """What makes a process, and all that it starts, go by this clock."""
        return {
            "LD_PRELOAD": str(_LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
        }


def new_clock(folder: Path, name: str) -> Clock:
    """Make a clock that is right."""
    clock = Clock(folder / f"{name}.clock")
    clock.jump(timedelta())
    return clock


@contextmanager
def cluster_with_clock() -> Iterator[tuple[Cluster, Clock]]:
    """Run a server with a clock of its own. Must not be called where an event loop runs."""
    with reachable_folder() as folder:
        clock = new_clock(folder, "server")
        binaries = binaries_for_tests(folder)
        server = Postgres(folder / "postgres", binaries, free_port(), folder / "log")
        server.create()
        server.binaries = _wrapped(binaries, folder / "wrapped", clock)
        try:
            server.start()
            cluster = Cluster(server)
            asyncio.run(cluster.prepare())
            yield cluster, clock
        finally:
            server.stop()


def _wrapped(binaries: Path, folder: Path, clock: Clock) -> Path:
    """Make a folder of programs whose `postgres` is the real one, by this clock."""
    folder.mkdir()
    settings = " ".join(f"{name}={value}" for name, value in clock.environ.items())
    program = folder / "postgres"
    program.write_text(f'#!/bin/sh\nexec /usr/bin/env {settings} {binaries / "postgres"} "$@"\n', encoding="ascii")
    program.chmod(0o755)
    return folder
