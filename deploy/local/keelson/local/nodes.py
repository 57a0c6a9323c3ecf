"""The nodes of `make run`: two machines that are one, each with an agent that runs what is placed there."""

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from keelson.client import Client, ClientError, ProblemError
from keelson.client.reads.nodes import Node
from keelson.local.child import Child, in_thread, service_environ
from keelson.local.home import Home
from keelson.local.instances import end_instances, read_node_id

# By the nodes' names, in which failure domain each is; spread over two, as real machines would be.
ZONES = {"node-a": "a", "node-b": "b"}
MEMORY_BYTES = 2 * 1024**3

# Three of the heartbeats that agents send by default.
_HEARD_WITHIN_S = 9.0
_LOOK_INTERVAL_S = 0.5

_REASON = "a node of this machine"
_LEFT = "its machine is this node no more, for now"
_RETIRED = "what was kept of it is gone, and its name is for a node of this machine"


@dataclass(slots=True, kw_only=True)
class NodeAgent(Child):
    """`python -m keelson.agent`; ready when the control plane has heard of it since it was made.

    When it has stopped, nothing runs that it has started.
    """

    folder: Path
    operator: Client
    heard_before: datetime | None

    @property
    def whereabouts(self) -> str:
        """Where people find it, in words."""
        return f"with its instances and their logs in {self.folder}"

    async def stop(self, grace_s: float = 15.0) -> None:
        """Stop it, and end what it ran, also where it had been killed before."""
        await Child.stop(self, grace_s)
        await in_thread(lambda: end_instances(self.folder))

    async def read_unreadiness(self) -> str | None:
        """Ask the control plane whether it has heard of it: None if so, else what is missing, in words."""
        try:
            node = await _read_node(self.operator, self.name)
        except ClientError as error:
            return str(error)
        return None if node and node.heartbeat_at not in (None, self.heard_before) else "was not heard of yet"


class Machine:
    """This machine, which can be the nodes of a stack.

    What its nodes run finds its files from the current folder, and its programs by the PATH of `inherited`, after this
    Python's own: `python3` in a command is this one.
    """

    def __init__(self, home: Home, inherited: Mapping[str, str], operator: Client, urls: tuple[str, str]) -> None:
        self._home = home
        self._inherited = inherited
        self._operator = operator
        self._urls = urls

    async def make_agents(self) -> list[Child]:
        """Make an agent for each node, with a token for those that have not enrolled. Raises ClientError."""
        position = (await self._operator.projections.list()).head
        return [await self._make_agent(name, position) for name in ZONES]

    async def leave(self) -> None:
        """Say of its nodes, whose agents have stopped, that they are gone, until agents are made again.

        So nobody counts on them, and what they ran is lost. Raises ClientError.
        """
        for node_id in filter(None, [read_node_id(self._home.nodes / name) for name in ZONES]):
            await self._operator.node.set_state(node_id=node_id, state="offline", message=_LEFT, reason=_LEFT)

    async def has_peers(self) -> bool:
        """Tell whether nodes other than this machine's are heard of, while this looks: longer if there is none.

        Their states do not say: where all nodes fell silent at once, none is taken for lost.
        """
        before = await self._read_heartbeats_of_peers()
        deadline = time.monotonic() + _HEARD_WITHIN_S
        while before and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_INTERVAL_S)
            if (await self._read_heartbeats_of_peers()).items() - before.items():
                return True
        return False

    async def _read_heartbeats_of_peers(self) -> dict[str, datetime]:
        own = {read_node_id(self._home.nodes / name) for name in ZONES}
        return {
            node.id: node.heartbeat_at
            async for node in self._operator.nodes.list()
            if node.id not in own and node.state != "offline" and node.heartbeat_at is not None
        }

    async def _make_agent(self, name: str, position: int) -> NodeAgent:
        folder = self._home.nodes / name
        environ = self._environ(name, folder)
        node = await _read_own(folder, self._operator, position)
        if node is None:
            node = await _retire(self._operator, name, position)
            environ["KEELSON_ENROLLMENT_TOKEN"] = await _admit(self._operator)
        elif (node.state, node.message) == ("offline", _LEFT):
            await self._operator.node.set_state(node_id=node.id, state="active", reason=_REASON)
        return NodeAgent(
            name,
            "keelson.agent",
            environ,
            self._home.open_log(name),
            folder=folder,
            operator=self._operator,
            heard_before=node.heartbeat_at if node else None,
        )

    def _environ(self, name: str, folder: Path) -> dict[str, str]:
        environ = service_environ(
            self._inherited,
            command_url=self._urls[0],
            query_url=self._urls[1],
            state=str(folder),
            node_name=name,
            cpu_millis=1000 * (os.cpu_count() or 1),
            memory_bytes=MEMORY_BYTES,
            labels=f"zone={ZONES[name]}",
            driver="process",
            process_root=str(Path.cwd()),
        )
        path = (str(Path(sys.executable).parent), self._inherited.get("PATH", os.defpath))
        return {**environ, "PATH": os.pathsep.join(path)}


async def _read_own(folder: Path, operator: Client, position: int) -> Node | None:
    """Give the node whose folder it is, if this log knows it; what is kept of another log's node is removed."""
    node_id = read_node_id(folder)
    if node_id is None:
        return None
    try:
        node = await operator.nodes.get(node_id, min_position=position)
    except ProblemError as problem:
        if problem.code != "not_found":
            raise
    else:
        if node.deleted_at is None:
            return node
    await in_thread(lambda: end_instances(folder))
    shutil.rmtree(folder)
    return None


async def _retire(operator: Client, name: str, position: int) -> Node | None:
    """Remove the node that has a name which is to be another's, if there is one; give it as it was.

    Whoever was it has lost the folder that made it so, and would keep the name for ever. What it ran counts as stopped,
    as on any node that is lost, and is placed anew.
    """
    node = await _read_node(operator, name, position)
    if node is None:
        return None
    lost = await operator.node.set_state(node_id=node.id, state="offline", reason=_RETIRED)
    async for row in operator.instances.list(node_id=node.id, min_position=lost.position):
        if row.status != "stopped":
            await operator.instance.set_desired_state(instance_id=row.id, desired_state="stopped", reason=_RETIRED)
    await operator.node.remove(node_id=node.id, reason=_RETIRED)
    return node


async def _admit(operator: Client) -> str:
    answer = await operator.node.create_enrollment_token(reason=_REASON)
    return str(answer.result.token)


async def _read_node(operator: Client, name: str, position: int | None = None) -> Node | None:
    return next(iter([row async for row in operator.nodes.list(name=name, min_position=position)]), None)
