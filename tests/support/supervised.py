"""`make run` as a process of its own, on a home and ports of its own."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from keelson.local.home import Dev, Home
from keelson.local.instances import end_instances
from keelson.local.process import Identity, end_process
from keelson.local.server import data_folder
from support.repository import ROOT
from support.waiting import eventually, free_port

READY = "KEELSON READY"


@dataclass
class Supervised:
    """A home, its ports, and the supervisor that runs on it, if any."""

    home: Path
    environ: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> str:
        """What supervisors on this home have printed since the last start."""
        return (self.home.parent / f"{self.home.name}.out").read_text()

    @property
    def dev(self) -> Dev:
        """What dev.json says."""
        return Home(self.home).read_dev()

    @property
    def pids(self) -> dict[str, Identity]:
        """Which of the noted processes run, by name."""
        return Home(self.home).read_running()

    def launch(self, output_file: Path | None = None, /, **settings: str) -> subprocess.Popen[bytes]:
        """Start a supervisor and return at once; by default it prints to where `output` reads."""
        with (output_file or self.home.parent / f"{self.home.name}.out").open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "keelson.local", "run"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self.environ, **settings},
                start_new_session=True,
                cwd=ROOT,
            )
        return self.process

    async def start(self, **settings: str) -> None:
        """Start a supervisor and return when it says that everything is ready."""
        process = self.launch(**settings)

        def is_ready() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"ended with {process.returncode}:\n{self.output}")
            assert READY in self.output.splitlines(), self.output
            return True

        await eventually(is_ready, 120.0)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        await eventually(lambda: self.process is None or self.process.poll() is not None, 60.0)
        return self.process.wait()

    def clean_up(self) -> None:
        """End whatever runs, gently if possible, and remove what root keeps elsewhere."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60.0)
        for identity in self.pids.values():
            end_process(identity, signal.SIGINT, grace_s=10.0)
        for folder in Home(self.home).nodes.glob("*"):
            end_instances(folder)
        shutil.rmtree(data_folder(self.home), ignore_errors=True)


@contextmanager
def supervised(home: Path) -> Iterator[Supervised]:
    """Lend a home with free ports; whatever runs on it is ended afterwards."""
    ports = {
        f"KEELSON_{name}_PORT": str(free_port()) for name in ("COMMAND", "QUERY", "PROJECTOR", "SCHEDULER", "DATABASE")
    }
    stack = Supervised(home, {"KEELSON_HOME": str(home), **ports})
    try:
        yield stack
    finally:
        stack.clean_up()


def read_json(path: Path) -> dict[str, str]:
    """Read a JSON object of texts."""
    return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
