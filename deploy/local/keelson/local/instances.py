"""Ending what a node's agent runs: it lets that run on when it stops, and who stops a whole stack wants otherwise."""

import signal
from collections.abc import Iterator
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

    They are known by a variable that the agent gives them and that their own children inherit, so that none is missed
    which has left its group. The agent itself must not run.
    """
    node_id = read_node_id(folder)
    if node_id is None:
        return 0
    found = list(_processes_of(node_id))
    for identity in found:
        identity.signal(signal.SIGTERM)
    for identity in found:
        identity.wait_until_gone(grace_s)
    # Asked anew: what was ended may have started others meanwhile.
    left = list(_processes_of(node_id))
    for identity in left:
        identity.signal(signal.SIGKILL)
    for identity in left:
        identity.wait_until_gone(_KILL_WAIT_S)
    return len(found)


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
