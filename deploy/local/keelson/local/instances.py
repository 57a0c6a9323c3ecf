"""Ending what a node's agent runs: it lets that run on when it stops, and who stops a whole stack wants otherwise."""

import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from keelson.local.process import Identity

_KILL_WAIT_S = 5.0


class NodeFile(msgspec.Struct, frozen=True):
    """What is needed here of what an agent keeps of itself, in node.json of its folder."""

    node_id: str


def read_node_id(folder: Path) -> str | None:
    """Tell which node's folder it is; None before that has enrolled."""
    file = folder / "node.json"
    return msgspec.json.decode(file.read_bytes(), type=NodeFile).node_id if file.exists() else None


def end_instances(folder: Path, grace_s: float = 5.0) -> int:
    """End every process that the agent of this folder has started: gently, then by force; tell how many there were.

    The grace is of all of them together, so that it takes no longer the more there are. They are known by a variable
    that the agent gives them and that their own children inherit, so that none is missed which has left its group. The
    agent itself must not run.
    """
    node_id = read_node_id(folder)
    if node_id is None:
        return 0
    found = list(_processes_of(node_id))
    _signal_all(found, signal.SIGTERM, grace_s)
    # Asked anew: what was ended may have started others meanwhile.
    _signal_all(list(_processes_of(node_id)), signal.SIGKILL, _KILL_WAIT_S)
    return len(found)


def _signal_all(identities: Sequence[Identity], number: signal.Signals, within_s: float) -> None:
    """Signal all, and wait until all are gone, for no longer than this."""
    deadline = time.monotonic() + within_s
    for identity in identities:
        identity.signal(number)
    for identity in identities:
        identity.wait_until_gone(deadline - time.monotonic())


def _processes_of(node_id: str) -> Iterator[Identity]:
    wanted = f"KEELSON_NODE_ID={node_id}".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and wanted in _read_variables(folder):
            identity = Identity.read(int(folder.name))
            if identity is not None:
                yield identity


def _read_variables(process: Path) -> list[bytes]:
    """Read a process's variables as it was started with them; none of another account's, or of one that is gone."""
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return []
