"""The compose stack as a test has it: under a name and on ports of its own, with the faults that befall containers.

Building and composing go through the command line, as users do; faults and looks through the engine's API.
"""

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import docker
import docker.errors

from support.independent import VIEWS, Event
from support.repository import ROOT
from support.waiting import free_port

# What the SDK gives has no types.
Container: TypeAlias = Any

SERVICES = ("command", "projector", "query", "scheduler")
DATABASE_PORT = 5432
BUILD_S, COMPOSE_S = 900.0, 240.0

_EVENTS = (
    "SELECT to_jsonb(e) || jsonb_build_object('payload', e.payload::text) FROM log.events AS e ORDER BY e.position"
)
_CHECKPOINTS = (
    "SELECT jsonb_build_object('done', min(c.position) = h.position AND count(*) = 3) "
    "FROM ops.checkpoints AS c, log.head AS h GROUP BY h.position"
)


def why_not() -> str | None:
    """Say why there can be no containers here; None if there can. In CI there must be, so nothing is a reason."""
    if "CI" in os.environ:
        return None
    if os.geteuid() != 0:
        return "only root can kill, and cut off, what runs in containers"
    try:
        client = docker.from_env(timeout=10)
    except docker.errors.DockerException:
        return "no Docker engine answers"
    client.close()
    return None


@dataclass
class Composed:
    """A running compose project of the repository's own file."""

    project: str
    engine: Any
    home: Path
    command_port: int = field(default_factory=free_port)
    query_port: int = field(default_factory=free_port)

    @property
    def command_url(self) -> str:
        """Where the front leads to command."""
        return f"http://127.0.0.1:{self.command_port}"

    @property
    def query_url(self) -> str:
        """Where the front leads to query."""
        return f"http://127.0.0.1:{self.query_port}"

    @property
    def operator_token(self) -> str:
        """The token, where `make up` has put it."""
        return str(json.loads((self.home / "dev.json").read_text(encoding="utf-8"))["operator_token"])

    @property
    def environ(self) -> dict[str, str]:
        """What the project's own programs need to find this one."""
        return {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.project,
            "KEELSON_COMMAND_PORT": str(self.command_port),
            "KEELSON_QUERY_PORT": str(self.query_port),
            "KEELSON_HOME": str(self.home),
            "KEELSON_TAG": "test",
        }

    # ---- the project's own programs ----

    def run(self, *command: str, timeout_s: float = COMPOSE_S, **environ: str) -> str:
        """Run a program in the repository; give what it printed, or fail with it."""
        done = subprocess.run(  # noqa: S603 - the project's own programs
            command,
            cwd=ROOT,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}"
        return done.stdout

    def compose(self, *arguments: str, timeout_s: float = COMPOSE_S) -> str:
        """Run `docker compose`."""
        return self.run("docker", "compose", *arguments, timeout_s=timeout_s)

    # ---- what runs ----

    def containers(self) -> list[Container]:
        """Give all containers of the project, ended ones too; not others from its images, likewise labelled."""
        labels = [f"com.docker.compose.project={self.project}", "com.docker.compose.oneoff"]
        return list(self.engine.containers.list(all=True, filters={"label": labels}))

    def replicas(self, service: str) -> list[Container]:
        """Give the running containers of a service; not others from its image, which bears the first two labels too."""
        labels = {"project": self.project, "service": service, "oneoff": "False"}
        found = self.engine.containers.list(
            filters={"label": [f"com.docker.compose.{name}={value}" for name, value in labels.items()]}
        )
        return sorted(found, key=lambda each: int(each.labels["com.docker.compose.container-number"]))

    def logs(self, service: str, lines: int = 40) -> str:
        """Give the last that a service's replicas logged."""
        return self.compose("logs", "--no-color", "--tail", str(lines), service)

    def ask(self, container: Container, *command: str) -> str:
        """Run a program in a container; give what it printed, or fail with it."""
        code, output = container.exec_run(list(command))
        text = str(output.decode())
        assert code == 0, f"{command} ended with {code}: {text}"
        return text

    def select(self, statement: str) -> list[Any]:
        """Give the JSON of each row of a statement, as the superuser; past all services."""
        (postgres,) = self.replicas("postgres")
        psql = ("psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "keelson", "-c", statement)
        return [json.loads(line) for line in self.ask(postgres, *psql).splitlines()]

    def metric(self, container: Container, name: str) -> float:
        """Give the sum of a metric over its labels, as a service tells it to whoever is within its container."""
        program = (
            "import os, urllib.request as r; "
            "print(r.urlopen(f'http://127.0.0.1:{os.environ[\"KEELSON_PORT\"]}/metrics', timeout=5).read().decode())"
        )
        lines = self.ask(container, "python", "-c", program).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(rf"{name}(\{{.*)? ", line))

    def holders(self) -> dict[str, str]:
        """Give who has each projection's lease."""
        return dict(self.select("SELECT jsonb_build_array(name, holder) FROM ops.leases WHERE expires_at > now()"))

    def front_knows(self, service: str) -> int:
        """Tell how many replicas of a service the front sends requests to."""
        (front,) = self.replicas("front")
        return int(self.ask(front, "ask", f"/up/{service}"))

    def read_when_caught_up(self, timeout_s: float = 60.0) -> tuple[list[Event], dict[str, list[Event]]]:
        """Give the log and the views once every checkpoint is at the head."""
        wait_until(lambda: self.select(_CHECKPOINTS) == [{"done": True}], timeout_s)
        views = {name: self.select(f"SELECT to_jsonb(v) FROM views.{name} AS v") for name in VIEWS}  # noqa: S608 - ours
        return self.select(_EVENTS), views

    # ---- faults ----

    def kill(self, container: Container) -> None:
        """End a container's process by SIGKILL from outside, as a crash does: its restart policy acts."""
        os.kill(pid_of(container), signal.SIGKILL)

    @contextmanager
    def paused(self, container: Container) -> Iterator[None]:
        """Freeze a container, as a hang does."""
        container.pause()
        try:
            yield
        finally:
            container.unpause()

    @contextmanager
    def cut_off(self, container: Container) -> Iterator[None]:
        """Let nothing of a container reach the database, and nobody tell it so."""
        rule = ["OUTPUT", "-p", "tcp", "--dport", str(DATABASE_PORT), "-j", "DROP"]
        inside = ["nsenter", "-t", str(pid_of(container)), "-n", "iptables"]
        subprocess.run([*inside, "-A", *rule], check=True, timeout=10)  # noqa: S603 - our own words
        try:
            yield
        finally:
            subprocess.run([*inside, "-D", *rule], check=True, timeout=10)  # noqa: S603 - our own words


def pid_of(container: Container) -> int:
    """Give the process, as the host sees it, that a container is."""
    container.reload()
    pid = int(container.attrs["State"]["Pid"])
    assert pid > 1, f"{container.name} does not run"
    return pid


def is_healthy(container: Container) -> bool:
    """Tell whether a container runs, and its health check says that all is well."""
    container.reload()
    state = container.attrs["State"]
    return bool(state["Status"] == "running" and state["Health"]["Status"] == "healthy")


def wait_until(condition: Callable[[], bool], timeout_s: float, interval_s: float = 0.1) -> float:
    """Ask until the answer is yes, for code that runs beside the event loop; give the seconds that it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + timeout_s, f"not within {timeout_s} s"
        time.sleep(interval_s)
    return time.monotonic() - begun


@contextmanager
def composed() -> Iterator[Composed]:
    """Build the images and start the stack, one of each; ended afterwards with its volumes, images are kept."""
    engine = docker.from_env(timeout=60)
    with tempfile.TemporaryDirectory(prefix="keelson-test-") as home:
        stack = Composed(f"keelson-test-{os.getpid()}", engine, Path(home))
        try:
            stack.run("make", "up", timeout_s=BUILD_S)
            yield stack
        except BaseException:
            print(stack.compose("logs", "--no-color", "--tail", "60"))  # noqa: T201 - to look at what failed
            raise
        finally:
            stack.compose("down", "--volumes", "--timeout", "10")
            engine.close()
