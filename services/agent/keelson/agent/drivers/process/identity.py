"""Which process is which, also after an agent's restart, and which belong to a session.

A pid alone names nothing: the kernel gives it out again. A pid with the boot and the moment at which the process
started names one process for ever, so that what is signalled is what was meant.
"""

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Fields of /proc/PID/stat after the command's name in brackets (proc_pid_stat(5) counts from 1, the state being 3).
_STATE, _SESSION, _STARTED, _RSS = 0, 3, 19, 21
_DEAD = "ZX"


class Identity(msgspec.Struct, frozen=True):
    """One process, told apart from any later one that gets its pid."""

    pid: int
    started: str

    @classmethod
    def read(cls, pid: int) -> Self | None:
        """Give which process has that pid, be it a zombie; None if there is none."""
        seen = _look_at(pid)
        return None if seen is None else cls(pid, seen.started)

    def is_running(self) -> bool:
        """Whether that very process runs; a zombie does not."""
        seen = _look_at(self.pid)
        return seen is not None and seen.started == self.started and seen.state not in _DEAD

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to that very process; nothing happens if it is gone, or never was ours to signal."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            # Checked after opening: from here on the handle cannot come to mean another process.
            if self.is_running():
                signal.pidfd_send_signal(handle, number)
        except (ProcessLookupError, PermissionError):
            return
        finally:
            os.close(handle)

    async def wait_until_gone(self) -> None:
        """Wait until that very process has ended, be it a child or not; it may be a zombie then. Cancelling is safe."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.is_running():
                await _wait_until_readable(handle)
        finally:
            os.close(handle)


class Member(NamedTuple):
    """A process of a session that runs, and the memory that it has at the moment, what it shares included."""

    identity: Identity
    rss_bytes: int


def read_sessions() -> Mapping[int, Sequence[Member]]:
    """Give the processes that run, by session; those that come or go meanwhile may be missing."""
    sessions: dict[int, list[Member]] = defaultdict(list)
    for pid in pids():
        seen = _look_at(pid)
        if seen is not None and seen.state not in _DEAD:
            sessions[seen.session].append(Member(Identity(pid, seen.started), seen.rss_bytes))
    return sessions


def pids() -> Sequence[int]:
    """Give the pids that there are."""
    with os.scandir("/proc") as entries:
        return [int(entry.name) for entry in entries if entry.name.isdecimal()]


def has_variable(pid: int, variable: str) -> bool:
    """Whether a process was started with `NAME=value` in its environment; false where that cannot be read."""
    try:
        return os.fsencode(variable) in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def private_bytes(member: Member) -> int:
    """Give the memory that a process has, each shared page counted by its share; 0 if it is gone.

    Where that may not be read, as of one that changed its account or refuses to be dumped, all that it shares counts.
    """
    try:
        lines = Path(f"/proc/{member.identity.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except OSError:
        return member.rss_bytes
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


class _Seen(NamedTuple):
    state: str
    session: int
    started: str
    rss_bytes: int


def _look_at(pid: int) -> _Seen | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the command's name in brackets and may hold anything, so count from its last bracket.
    fields = stat.rpartition(")")[2].split()
    started = f"{_boot_id()}:{fields[_STARTED]}"
    return _Seen(fields[_STATE], int(fields[_SESSION]), started, int(fields[_RSS]) * _PAGE_BYTES)


async def _wait_until_readable(handle: int) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(handle, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(handle)


@cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
