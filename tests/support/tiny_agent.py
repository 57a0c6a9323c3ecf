"""Agents that run nothing: enough of a node for the scheduler's tests, within the test's process.

A process whose command is `broken` never gets ready.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from keelson.client import Client, ClientError, ProblemError
from keelson.client.commands.instance import Endpoint
from keelson.client.reads.nodes import DesiredInstance

EVERY_S = 0.05
HEARTBEAT_EVERY = 5

BROKEN = ("broken",)


@dataclass
class TinyAgent:
    """One node's agent; while it is not `is_alive`, nothing is heard of it."""

    client: Client
    node_id: str
    is_alive: bool = True
    statuses: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        """Do one step for each instance again and again, for ever."""
        turn = 0
        while True:
            if self.is_alive:
                try:
                    await self._turn(heartbeat=turn % HEARTBEAT_EVERY == 0)
                except ClientError:
                    self.statuses.clear()
            turn += 1
            await asyncio.sleep(EVERY_S)

    async def _turn(self, *, heartbeat: bool) -> None:
        desired = await self.client.nodes.desired(self.node_id)
        if heartbeat:
            await self.client.nodes.heartbeat(self.node_id, observed_position=desired.position)
        for item in desired.items:
            await self._step(item)

    async def _step(self, item: DesiredInstance) -> None:
        match item.desired_state, self.statuses.get(item.instance_id):
            case "running", None | "failed":
                await self._report(item, "booting")
            case "running", "booting" if item.spec.command == BROKEN:
                await self._report(item, "failed")
            case "running", "booting":
                await self._report(item, "ready")
            case "running", _:
                pass
            case "draining", "booting" | "ready":
                await self._report(item, "draining")
            case _:
                await self._report(item, "stopped")

    async def _report(self, item: DesiredInstance, status: str) -> None:
        ports = item.spec.ports if status == "ready" else ()
        try:
            await self.client.instance.report_status(
                instance_id=item.instance_id,
                status=status,  # type: ignore[arg-type]
                endpoints={port.name: Endpoint(host="127.0.0.1", port=port.port) for port in ports} or None,
                reason_code="exited" if status == "failed" else None,
                exit_code=1 if status == "failed" else None,
            )
        except ProblemError as error:
            # What was reported before this agent forgot it; the next turn goes on from there.
            if error.code != "invalid_transition":
                raise
        self.statuses[item.instance_id] = status


@asynccontextmanager
async def tiny_agent(
    operator: Client, command_url: str, query_url: str, name: str, memory_bytes: int = 2**30, **labels: str
) -> AsyncIterator[TinyAgent]:
    """Enrol a node and run its agent while the body runs."""
    made = (await operator.node.create_enrollment_token()).result
    enrolled = await operator.node.enroll(
        token=str(made.token), name=name, labels=labels, cpu_millis=1000, memory_bytes=memory_bytes
    )
    async with Client(command_url, query_url, str(enrolled.result.credential), retry_for_s=1.0) as client:
        agent = TinyAgent(client, made.node_id)
        task = asyncio.create_task(agent.run())
        try:
            yield agent
        finally:
            task.cancel()
            await asyncio.wait([task])
