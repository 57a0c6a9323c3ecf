"""Which process is which, also after its parent is gone.

A pid alone names nothing: the kernel gives it out again. A pid with the boot and the moment at which the process
started names one process for ever, so that what is signalled is what was meant.
"""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Self

import msgspec

_POLL_INTERVAL_S = 0.02


class Identity(msgspec.Struct, frozen=True):
    """One process, told apart from any later one that gets its pid."""

    pid: int
    started: str

    @classmethod
    def read(cls, pid: int) -> Self | None:
        """Return the identity of the running process with that pid, or None if there is none (or only a zombie)."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The second field is the command's name in brackets and may hold anything, so count from its last bracket.
        fields = stat.rpartition(")")[2].split()
        state, start_ticks = fields[0], fields[19]
        return None if state in "ZX" else cls(pid, f"{_boot_id()}:{start_ticks}")

    def is_running(self) -> bool:
        """Tell whether that very process still runs."""
        return Identity.read(self.pid) == self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to that very process; nothing happens if it is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            # Checked after opening: from here on the handle cannot come to mean another process.
            if self.is_running():
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return
        finally:
            os.close(handle)

    def wait_until_gone(self, timeout_s: float) -> bool:
        """Wait for its end; return False if it still runs after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self.is_running():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_INTERVAL_S)
        return True

    def command_line(self) -> list[bytes]:
        """Return its arguments; empty if it is gone."""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return []


def describe_exit(code: int) -> str:
    """Say how a process ended."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


async def wait_for_exit(pid: int) -> None:
    """Wait until that process has ended, be it a child of ours or not; it may be a zombie then. Cancelling is safe."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def end_process(identity: Identity, first: signal.Signals, *, grace_s: float) -> bool:
    """Send `first`, and SIGKILL after `grace_s` seconds; return False if even that did not end it within 5 seconds."""
    for number, wait_s in ((first, grace_s), (signal.SIGKILL, 5.0)):
        identity.signal(number)
        if identity.wait_until_gone(wait_s):
            return True
    return False


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
