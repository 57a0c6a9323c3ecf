"""The process driver with real processes: what it starts, watches, ends, and finds again."""

import asyncio
import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keelson.agent.driver import Failure, StartError
from keelson.agent.drivers.process import ProcessDriver, Rules
from keelson.agent.drivers.process import driver as driver_module
from keelson.agent.drivers.process import folder as folder_module
from keelson.agent.drivers.process.folder import InstanceFolder, Record
from keelson.agent.drivers.process.group import Group
from keelson.agent.drivers.process.identity import Identity, Member, has_variable, pids, private_bytes
from keelson.agent.drivers.process.launch import launch
from keelson.agent.drivers.process.run import ProcessRun
from keelson.client.reads.envs import Health
from keelson.client.reads.nodes import DesiredInstance
from support.instances import MIB, SERVES, SLEEPS, STUBBORN, python, wanted
from support.repository import ROOT
from support.waiting import eventually

SECRET = "the-canary-of-the-driver"


@dataclass
class Node:
    """A driver on a folder, what it runs, and how often it asked for secrets."""

    folder: Path
    rules: Rules
    revealed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.driver = ProcessDriver(self.folder, self.rules, self._reveal)

    async def _reveal(self, instance_id: str) -> Mapping[str, str]:
        self.revealed.append(instance_id)
        return {"KEY": SECRET, "EMPTY": ""}

    def again(self) -> "Node":
        """Give what a next agent has: the folder, and nothing else."""
        return Node(self.folder, self.rules)

    def of(self, instance: DesiredInstance) -> InstanceFolder:
        """Give an instance's folder."""
        return InstanceFolder(self.folder / instance.instance_id)

    def log(self, instance: DesiredInstance, name: str = "stdout.log") -> str:
        """Give what an instance has written."""
        return (self.of(instance).path / name).read_text()


def left_of(number_or_id: str) -> list[int]:
    """Give the pids of what runs of an instance."""
    variable = f"KEELSON_INSTANCE_ID={number_or_id}"
    return [pid for pid in pids() if has_variable(pid, variable)]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    folder = tmp_path / "instances"
    folder.mkdir()
    node = Node(folder, Rules(node_id="node_1", host="127.0.0.1", root=tmp_path, watch_interval_s=0.05))
    yield node
    for path in folder.iterdir():
        for pid in left_of(path.name):
            os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def watching(node: Node) -> AsyncIterator[None]:
    """Let the driver hold its bounds."""
    task = asyncio.create_task(node.driver.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ended(run: ProcessRun, timeout_s: float = 10.0) -> Failure:
    async with asyncio.timeout(timeout_s):
        return await run.wait_until_ended()


async def test_a_command_is_told_what_it_needs_and_nothing_of_the_agent(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEELSON_ENROLLMENT_TOKEN", "the agent's own")
    code = "import json, os; print(json.dumps([dict(os.environ), os.getcwd(), os.getsid(0) == os.getpid()]))"
    instance = wanted(
        command=python(code),
        ports=["http", "side-door"],
        variables={"MODE": "fast", "KEELSON_RELEASE": "a lie", "LC_CTYPE": "C.UTF-8"},
    )
    run = await node.driver.start(instance)
    assert (await ended(run)).exit_code == 0
    environ, folder, leads_session = json.loads(node.log(instance))
    assert (folder, leads_session) == (str(tmp_path), True)
    assert environ == {
        "PATH": os.environ["PATH"],
        "MODE": "fast",
        "LC_CTYPE": "C.UTF-8",
        "PORT_HTTP": str(run.endpoints["http"].port),
        "PORT_SIDE_DOOR": str(run.endpoints["side-door"].port),
        "KEELSON_INSTANCE_ID": instance.instance_id,
        "KEELSON_ENV_ID": instance.env_id,
        "KEELSON_PROCESS": "web",
        "KEELSON_NODE_ID": "node_1",
        "KEELSON_RELEASE": "7",
        "KEELSON_SECRETS_DIR": str(node.of(instance).secrets),
    }


async def test_secrets_are_for_the_owner_alone_asked_for_once_and_gone_at_the_end(node: Node) -> None:
    code = "import os, pathlib; print(pathlib.Path(os.environ['KEELSON_SECRETS_DIR'], 'KEY').read_text())"
    instance = wanted(command=python(code), secret_version=3)
    for _ in range(2):
        run = await node.driver.start(instance)
        await ended(run)
        await run.stop(0.0)
    assert node.log(instance).split() == [SECRET, SECRET]
    assert node.revealed == [instance.instance_id]
    folder = node.of(instance)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [folder.path, *folder.path.rglob("*")]}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    told = [path.name for path in modes if path.is_file() and SECRET in path.read_text()]
    assert sorted(told) == ["KEY", "stdout.log"]  # the command told it itself
    node.driver.discard(instance.instance_id)
    assert not folder.path.exists()
    node.driver.discard(instance.instance_id)


async def test_secrets_that_were_written_half_are_not_believed(node: Node) -> None:
    instance = wanted(command=SLEEPS, secret_version=3)
    (node.of(instance).path / "secrets.new").mkdir(parents=True)
    (node.of(instance).path / "secrets.new" / "KEY").write_text("half")
    await node.driver.start(instance)
    assert (node.of(instance).secrets / "KEY").read_text() == SECRET
    assert not (node.of(instance).path / "secrets.new").exists()


async def test_what_an_instance_is_and_its_secrets_are_on_disk_before_it_is_started(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = wanted(command=SLEEPS, secret_version=3)
    done: list[str] = []
    real = {name: getattr(owner, name) for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "replace"))}

    def sync(handle: int) -> None:
        done.append(f"{Path(f'/proc/self/fd/{handle}').readlink().name} is on disk")
        real["fsync"](handle)

    def move(name: str) -> Callable[[Path, Path], Path]:
        def moved(path: Path, target: Path) -> Path:
            done.append(f"{target.name} is there")
            return Path(real[name](path, target))

        return moved

    def launch_noted(*args: Any) -> Any:
        done.append("launched")
        return launch(*args)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", move("rename"))
    monkeypatch.setattr(Path, "replace", move("replace"))
    monkeypatch.setattr(driver_module, "launch", launch_noted)
    run = await node.driver.start(instance)
    secrets = [[f"{name}.new is on disk", f"{name} is there", "secrets.new is on disk"] for name in ("KEY", "EMPTY")]
    assert done == [
        "instances is on disk",
        *chain(*secrets),
        "secrets is there",
        f"{instance.instance_id} is on disk",
        "instance.json.new is on disk",
        "instance.json is there",
        f"{instance.instance_id} is on disk",
        "launched",
        "run.json is there",
    ]
    await run.stop(0.0)
    done.clear()
    await node.driver.start(instance)
    assert done == ["launched", "run.json is there"]  # a restart waits for no disk


async def test_of_which_process_it_was_nothing_is_missed_after_a_loss_of_power(node: Node) -> None:
    instance = wanted(command=SLEEPS, secret_version=3)
    run = await node.driver.start(instance)
    await run.wait_until_ready()
    await run.stop(0.0)
    (node.of(instance).path / "run.json").write_bytes(b"")
    node = node.again()
    assert node.driver.recover() == [(instance, None)]
    await node.driver.start(instance)
    assert not node.revealed


async def test_who_is_stopped_while_its_secrets_are_written_leaves_none(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = wanted(command=SLEEPS, secret_version=3)
    writing, go_on = threading.Event(), threading.Event()
    real = InstanceFolder.write_secrets

    def write_secrets(folder: InstanceFolder, values: Mapping[str, str]) -> None:
        writing.set()
        assert go_on.wait(10.0)
        real(folder, values)

    monkeypatch.setattr(InstanceFolder, "write_secrets", write_secrets)
    starting = asyncio.create_task(node.driver.start(instance))
    await eventually(writing.is_set)
    starting.cancel()
    done, _ = await asyncio.wait((starting,), timeout=0.1)
    assert not done
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    node.driver.discard(instance.instance_id)
    assert not node.of(instance).path.exists()
    assert not left_of(instance.instance_id)


async def test_a_secret_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    folder = InstanceFolder(tmp_path)
    with pytest.raises(ValueError, match="file"):
        folder.write_secrets({"../elsewhere": "x"})
    assert not (tmp_path.parent / "elsewhere").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"command": ["/no/such/program"]}, "FileNotFoundError"),
        ({"command": ["/etc/passwd"]}, "PermissionError"),
        ({"command": ["true"], "variables": {"A=B": "C"}}, "cannot be handed"),
    ],
)
async def test_what_cannot_be_started_says_why_and_leaves_nothing(
    node: Node, fields: dict[str, Any], said: str
) -> None:
    instance = wanted(ports=["http"], **fields)
    with pytest.raises(StartError) as error:
        await node.driver.start(instance)
    assert error.value.failure.reason_code == "start_failed"
    assert said in (error.value.failure.message or "")
    assert not left_of(instance.instance_id)
    [recovered] = node.again().driver.recover()
    assert recovered.run is None


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [("raise SystemExit(3)", 3, None), ("import os; os.kill(os.getpid(), 9)", 137, "SIGKILL")],
)
async def test_how_it_ended_is_told(node: Node, code: str, exit_code: int, said: str | None) -> None:
    failure = await ended(await node.driver.start(wanted(command=python(code))))
    assert (failure.reason_code, failure.exit_code) == ("exited", exit_code)
    assert said is None or said in (failure.message or "")


async def test_it_is_ready_when_its_health_check_succeeds_and_unhealthy_after_three_misses(
    node: Node, tmp_path: Path
) -> None:
    instance = wanted(command=SERVES, ports=["http"], health=Health(path="/", port="http", interval_s=1, timeout_s=1))
    run = await node.driver.start(instance)
    ready = asyncio.create_task(run.wait_until_ready())
    done, _ = await asyncio.wait([ready], timeout=1.0)
    assert not done
    (tmp_path / "well").touch()
    await asyncio.wait_for(ready, 5.0)
    assert run.was_ready
    unhealthy = asyncio.create_task(run.wait_until_unhealthy())
    (tmp_path / "well").unlink()
    assert await asyncio.wait_for(unhealthy, 10.0) == "the health check answered 503"


# Listens on its first port alone.
LISTENS = python(
    """
import os, socket, time
listening = socket.create_server(("127.0.0.1", int(os.environ["PORT_A"])))
time.sleep(3600)
"""
)


async def test_without_a_health_check_all_its_ports_tell_that_it_is_ready_and_without_ports_its_life(
    node: Node,
) -> None:
    portless = await node.driver.start(wanted(1, command=SLEEPS))
    whole = await node.driver.start(wanted(2, command=LISTENS, ports=["a"]))
    half = await node.driver.start(wanted(3, command=LISTENS, ports=["a", "b"]))
    ready = asyncio.create_task(half.wait_until_ready())
    await asyncio.wait_for(asyncio.gather(portless.wait_until_ready(), whole.wait_until_ready()), 5.0)
    done, _ = await asyncio.wait([ready], timeout=1.0)
    assert not done
    ready.cancel()


EATS = python("import time; eaten = bytearray(200 * 2**20); time.sleep(3600)")
# Four processes that share 80 MiB between them.
SHARES = python(
    """
import mmap, os, time
shared = mmap.mmap(-1, 80 * 2**20)
shared.write(b"x" * len(shared))
for _ in range(3):
    if os.fork() == 0:
        sum(shared[at] for at in range(0, len(shared), 4096))
        print("up")
        time.sleep(3600)
time.sleep(3600)
"""
)


async def test_who_takes_more_memory_than_it_may_is_ended(node: Node) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    instance = wanted(command=[*python(code), EATS[-1]], memory_bytes=150 * MIB)
    async with watching(node):
        run = await node.driver.start(instance)
        failure = await ended(run)
        await run.stop(0.0)
    assert (failure.reason_code, failure.exit_code) == ("memory_exceeded", 137)
    assert not left_of(instance.instance_id)


async def is_ended_for_memory(node: Node, number: int, within_s: float) -> bool:
    """Whether processes that share memory are ended with a bound that they are below together, but not one by one."""
    instance = wanted(number, command=SHARES, memory_bytes=180 * MIB)
    run = await node.driver.start(instance)
    end = asyncio.create_task(run.wait_until_ended())
    await eventually(lambda: node.log(instance).count("up") == 3)
    async with watching(node):
        done, _ = await asyncio.wait([end], timeout=within_s)
    end.cancel()
    await asyncio.gather(end, return_exceptions=True)
    await run.stop(0.0)
    return bool(done)


async def test_memory_that_processes_share_counts_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not await is_ended_for_memory(node, 1, 0.5)
    monkeypatch.setattr("keelson.agent.drivers.process.group.private_bytes", lambda _member: 180 * MIB)
    assert await is_ended_for_memory(node, 2, 10), "the planted bug is not seen"


async def test_who_may_not_be_looked_at_is_held_to_its_bound_too(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.read_text

    def read_text(path: Path, **options: Any) -> str:
        if path.name == "smaps_rollup":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    run = await node.driver.start(wanted(command=EATS, memory_bytes=150 * MIB))
    async with watching(node):
        failure = await ended(run)
    assert failure.reason_code == "memory_exceeded"


async def test_a_process_that_is_gone_has_no_memory() -> None:
    assert private_bytes(Member(Identity(2**22 + 1, "never"), 7 * MIB)) == 0


async def test_who_does_not_go_when_asked_is_killed(node: Node) -> None:
    instance = wanted(command=STUBBORN)
    run = await node.driver.start(instance)

    await eventually(lambda: node.log(instance) == "up\n")
    failure = await run.stop(0.3)
    assert failure is not None
    assert failure.exit_code == 137
    assert not left_of(instance.instance_id)


async def test_who_goes_when_asked_may_take_its_time(node: Node) -> None:
    code = (
        "import signal, sys, time\n"
        "def end(*_): time.sleep(0.5); print('done'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('up'); time.sleep(3600)"
    )
    instance = wanted(command=python(code))
    run = await node.driver.start(instance)

    await eventually(lambda: node.log(instance) == "up\n")
    failure = await run.stop(30.0)
    assert failure is not None
    assert failure.exit_code == 0
    assert node.log(instance) == "up\ndone\n"


# A leader with one child in its group, one in a group of its own, and one that left for a session of its own; then it
# ends by itself.
PARENT = python(
    """
import os, signal, subprocess, sys
sleep = [sys.executable, "-uc", "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(3600)"]
subprocess.Popen(sleep)
subprocess.Popen(sleep, process_group=0)
subprocess.Popen(sleep, start_new_session=True)
"""
)


async def run_parent(node: Node, number: int) -> tuple[DesiredInstance, ProcessRun]:
    """Run a parent to its end; its children live."""
    instance = wanted(number, command=PARENT)
    run = await node.driver.start(instance)
    await ended(run)

    await eventually(lambda: node.log(instance).count("up") == 3)
    assert len(left_of(instance.instance_id)) == 3
    return instance, run


async def test_many_that_end_at_once_look_for_their_processes_one_by_one_and_beside_the_loop(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [await node.driver.start(wanted(number, command=SLEEPS)) for number in range(1, 5)]
    real, looks, one_at_a_time = Group.find, [], threading.Lock()

    def find(group: Group) -> set[Identity]:
        free = one_at_a_time.acquire(blocking=False)
        looks.append((threading.current_thread(), free))
        try:
            return real(group)
        finally:
            if free:
                one_at_a_time.release()

    monkeypatch.setattr(Group, "find", find)
    await asyncio.gather(*(run.stop(30.0) for run in runs))
    assert len(looks) >= 3 * len(runs)
    assert all(free and thread is not threading.main_thread() for thread, free in looks)


async def test_what_a_leader_leaves_behind_is_ended(node: Node) -> None:
    instance, run = await run_parent(node, 1)
    await run.stop(10.0)
    assert not left_of(instance.instance_id)


# A leader that ends; what it leaves behind stays in its session.
LEAVES = python(
    """
import subprocess, sys
subprocess.Popen([sys.executable, "-uc", "import time; print('up'); time.sleep(3600)"])
"""
)


@pytest.mark.parametrize("is_known", [True, False])
async def test_what_a_leader_left_behind_that_was_not_noted_is_ended_before_another_starts(
    node: Node, is_known: bool
) -> None:
    instance = wanted(command=LEAVES)
    await ended(await node.driver.start(instance))
    await eventually(lambda: node.log(instance) == "up\n")
    assert len(left_of(instance.instance_id)) == 1
    (node.of(instance).path / "run.json").unlink()
    if not is_known:
        (node.of(instance).path / "instance.json").write_text("{")
    found = node.again().driver.recover()
    assert len(found) == is_known
    for _, run in found:
        assert run is not None
        assert (await asyncio.wait_for(run.wait_until_ended(), 5.0)).reason_code == "exited"
        await run.stop(10.0)
    await eventually(lambda: not left_of(instance.instance_id))


async def test_what_a_leader_left_behind_is_ended_by_the_next_agent_too(node: Node) -> None:
    instance, _ = await run_parent(node, 1)
    [(_, run)] = node.again().driver.recover()
    assert run is not None
    assert (await run.wait_until_ended()).reason_code == "exited"
    await run.stop(10.0)
    assert not left_of(instance.instance_id)


async def test_who_has_left_the_session_is_missed_by_those_who_look_there_alone(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance, run = await run_parent(node, 1)
    monkeypatch.setattr(Group, "_find_strays", lambda _group: set())
    await run.stop(10.0)
    assert len(left_of(instance.instance_id)) == 1, "the planted bug is not seen"


async def test_logs_stay_within_their_bound_and_are_gone_on_with(node: Node) -> None:
    node = Node(node.folder, msgspec.structs.replace(node.rules, log_max_bytes=8192))
    code = """
import pathlib, sys, time
while True:
    print("x" * 1023, flush=True)
    print("y" * 1023, flush=True, file=sys.stderr)
    time.sleep(0.005)
"""
    instance = wanted(command=python(code))
    run = await node.driver.start(instance)
    folder = node.of(instance).path
    async with watching(node):
        sizes = []

        def has_been_cut_three_times() -> bool:
            sizes.append((folder / "stdout.log").stat().st_size)
            return sum(later < before for before, later in pairwise(sizes)) >= 3

        await eventually(has_been_cut_three_times, 20.0)
    await run.stop(0.0)
    # A bound and what is written between two looks: 0.05 s of 200 KiB/s, and as much again for a machine that is busy.
    assert max(sizes) < 8192 + 10 * 8192
    for name in ("stdout.log", "stderr.log"):
        old = (folder / f"{name}.1").read_bytes()
        assert len(old) <= 8192 + 1024
        assert set(old) <= set(b"xy\n")
        now = (folder / name).read_bytes()
        assert b"\0" not in now  # it is appended to, not written where it was


def test_of_a_log_that_is_cut_the_end_is_kept_whole_but_not_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, max_bytes, longest = tmp_path / "stdout.log", 16 * MIB, 4 * MIB
    log.write_bytes(b"x" * 100 + b"y" * (max_bytes - 7) + b"the end")
    tracemalloc.start()
    try:
        InstanceFolder(tmp_path).bound_logs(max_bytes)
        assert tracemalloc.get_traced_memory()[1] < longest
        log.write_bytes(b"x" * 100 + b"y" * (max_bytes - 7) + b"the end")
        monkeypatch.setattr(folder_module, "_COPIED_AT_ONCE", 2 * max_bytes)
        InstanceFolder(tmp_path).bound_logs(max_bytes)
        assert tracemalloc.get_traced_memory()[1] > longest, "the planted bug is not seen"
    finally:
        tracemalloc.stop()
    assert log.stat().st_size == 0
    assert (tmp_path / "stdout.log.1").read_bytes() == b"y" * (max_bytes - 7) + b"the end"


async def test_logs_of_the_last_instances_that_ended_are_kept(node: Node) -> None:
    node = Node(node.folder, msgspec.structs.replace(node.rules, kept_logs=2))
    for number in (1, 2, 3):
        instance = wanted(number, command=python(f"print({number})"), secret_version=1)
        await ended(await node.driver.start(instance))
        node.driver.discard(instance.instance_id)
        node.driver.discard(instance.instance_id)
        node.driver.discard(wanted(number + 10).instance_id)  # of what never was, nothing is kept
    kept = sorted((node.folder.parent / "ended").iterdir())
    assert [path.name for path in kept] == [wanted(number).instance_id for number in (2, 3)]
    assert [(path / "stdout.log").read_text() for path in kept] == ["2\n", "3\n"]
    assert [sorted(each.name for each in path.iterdir()) for path in kept] == [["stderr.log", "stdout.log"]] * 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o700}


async def test_ports_are_kept_over_restarts_unless_somebody_took_them(node: Node) -> None:
    first, second = wanted(1, command=SLEEPS, ports=["a", "b"]), wanted(2, command=SLEEPS, ports=["a"])
    run, other = await node.driver.start(first), await node.driver.start(second)
    ports = {name: address.port for name, address in run.endpoints.items()}
    assert len({*ports.values(), other.endpoints["a"].port}) == 3
    await run.stop(0.0)
    again = await node.driver.start(first)
    assert again.endpoints == run.endpoints
    await again.stop(0.0)
    with socket.create_server(("127.0.0.1", ports["a"])):
        third = await node.driver.start(first)
    assert third.endpoints["b"].port == ports["b"]
    assert third.endpoints["a"].port != ports["a"]


async def hosted(node: Node, instance: DesiredInstance) -> subprocess.Popen[bytes]:
    """Start an instance by a process of its own."""
    host = subprocess.Popen(  # noqa: ASYNC220, S603 - our own module; fork and exec take no time
        [sys.executable, "-m", "support.driver_host", str(node.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
    )
    assert host.stdin is not None
    assert host.stdout is not None
    host.stdin.write(msgspec.json.encode(instance) + b"\n")
    host.stdin.flush()
    assert await asyncio.to_thread(host.stdout.readline) == b"ready\n"
    return host


def kill(host: subprocess.Popen[bytes]) -> None:
    """End it as a crash would."""
    host.kill()
    host.wait()
    for pipe in (host.stdin, host.stdout):
        assert pipe is not None
        pipe.close()


async def test_an_instance_outlives_its_agent_and_is_found_by_the_next(node: Node) -> None:
    instance = wanted(command=SLEEPS, secret_version=1, ports=[])
    host = await hosted(node, instance)
    [pid] = left_of(instance.instance_id)
    kill(host)
    [(found, run)] = node.driver.recover()
    assert run is not None
    assert (found, run.was_ready) == (instance, True)
    assert left_of(instance.instance_id) == [pid]
    waiting = asyncio.create_task(run.wait_until_ended())
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    os.kill(pid, signal.SIGKILL)
    failure = await asyncio.wait_for(waiting, 5.0)
    assert (failure.reason_code, failure.exit_code) == ("exited", None)
    assert node.of(instance).secrets.exists()
    again = await node.driver.start(instance)
    assert not node.revealed
    await again.stop(0.0)


async def test_what_ended_while_no_agent_was_there_has_ended(node: Node) -> None:
    instance = wanted(command=SLEEPS)
    host = await hosted(node, instance)
    kill(host)
    [pid] = left_of(instance.instance_id)
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not left_of(instance.instance_id))
    [(_, run)] = node.driver.recover()
    assert run is not None
    assert (await asyncio.wait_for(run.wait_until_ended(), 5.0)).reason_code == "exited"


async def test_an_agent_killed_between_a_start_and_its_note_starts_nothing_twice(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = wanted(command=SLEEPS)
    host = await hosted(node, instance)
    kill(host)
    [pid] = left_of(instance.instance_id)
    record = node.of(instance).read()
    assert record is not None
    node.of(instance).write(msgspec.structs.replace(record, leader=None, ready=False))
    [(_, run)] = node.again().driver.recover()
    assert isinstance(run, ProcessRun)
    assert run.session == pid
    monkeypatch.setattr(driver_module, "_find_leader", lambda _instance_id: None)
    [(_, run)] = node.again().driver.recover()
    assert run is None, "the planted bug is not seen"


async def test_a_disk_that_fills_up_with_a_start_leaves_nothing_that_nobody_ends(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = wanted(command=SLEEPS)
    with monkeypatch.context() as patched:
        real = InstanceFolder.write

        def write(folder: InstanceFolder, record: Record) -> None:
            if record.leader is not None:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(folder, record)

        patched.setattr(InstanceFolder, "write", write)
        run = await node.driver.start(instance)
    assert left_of(instance.instance_id) == [run.session]
    [(_, found)] = node.again().driver.recover()
    assert isinstance(found, ProcessRun)
    assert found.session == run.session
    await run.stop(1.0)
    assert not left_of(instance.instance_id)


async def test_what_is_not_known_any_more_does_not_go_on(node: Node) -> None:
    instance = wanted(command=SLEEPS)
    kill(await hosted(node, instance))
    assert left_of(instance.instance_id)
    (node.of(instance).path / "instance.json").write_text("{")
    assert not node.driver.recover()
    await eventually(lambda: not left_of(instance.instance_id))
    assert not node.of(instance).path.exists()


@contextmanager
def bystanding() -> Iterator[Identity]:
    """Give a process of nobody's, in a session of its own; it is ended afterwards, whatever came of the test."""
    with subprocess.Popen(SLEEPS, start_new_session=True) as process:  # noqa: S603 - our own
        try:
            identity = Identity.read(process.pid)
            assert identity is not None
            yield identity
        finally:
            process.kill()


async def test_a_pid_that_is_another_process_by_now_is_left_alone(node: Node) -> None:
    with bystanding() as real:
        instance = wanted(command=SLEEPS)
        node.of(instance).make()
        earlier = Identity(real.pid, real.started.rpartition(":")[0] + ":1")
        node.of(instance).write(Record(instance=instance, leader=earlier, ready=True))
        [(_, run)] = node.driver.recover()
        assert run is not None
        assert (await asyncio.wait_for(run.wait_until_ended(), 5.0)).reason_code == "exited"
        await run.stop(1.0)
        assert real.is_running()
        node.driver.discard(instance.instance_id)

        node.of(instance).make()
        node.of(instance).write(Record(instance=instance, leader=real))  # as if only the pid were looked at
        [(_, run)] = node.again().driver.recover()
        assert run is not None
        await run.stop(1.0)
        assert not real.is_running(), "the planted bug is not seen"


async def test_a_session_that_gets_the_number_of_one_that_has_ended_is_another(node: Node) -> None:
    run = await node.driver.start(wanted(command=python("pass"), memory_bytes=MIB))
    await ended(run)
    with bystanding() as real:
        later = [Member(real, 7 * MIB)]
        await run.watch((), MIB)
        await run.watch(later, MIB)
        assert run.rss_bytes == 0
        assert (await run.wait_until_ended()).reason_code == "exited"
        run._group._watched = True  # as if it had never been seen empty
        await run.watch(later, MIB)
        assert run.rss_bytes == 7 * MIB, "the planted bug is not seen"
