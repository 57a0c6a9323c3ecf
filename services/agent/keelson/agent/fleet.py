"""Many simulated nodes in one process: each with an agent, a credential and connections of its own, and no processes.

For measuring what nodes cost the services, and for tests that need more nodes than there are machines.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

import msgspec

from keelson.agent.agent import Agent
from keelson.agent.drivers.simulated import SimulatedDriver
from keelson.agent.state import DesiredFile
from keelson.agent.supervisor import Pace
from keelson.client import Client


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What all nodes of a fleet are like."""

    command_url: str
    query_url: str
    cpu_millis: int = 4000
    memory_bytes: int = 8 * 2**30
    ready_after_s: float = 0.0
    heartbeat_interval_s: float = 3.0
    pace: Pace = Pace(drain_s=0.0)


class MemoryKeeper:
    """Keeps in memory what an agent keeps on disk."""

    def __init__(self) -> None:
        self._desired: DesiredFile | None = None

    def read_desired(self) -> DesiredFile | None:
        """Give what was kept last."""
        return self._desired

    def write_desired(self, desired: DesiredFile) -> None:
        """Keep it."""
        self._desired = desired


class SimulatedNode:
    """A node whose agent can be ended and begun again, as by a crash; what it says to run goes on meanwhile."""

    def __init__(self, plan: Plan, node_id: str, credential: str) -> None:
        self.node_id = node_id
        self.driver = SimulatedDriver(ready_after_s=plan.ready_after_s)
        self.keeper = MemoryKeeper()
        self._plan = plan
        self._credential = credential

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Agent]:
        """Run its agent meanwhile; afterwards nothing of it is left, as if it had been killed."""
        plan = self._plan
        async with Client(plan.command_url, plan.query_url, self._credential, retry_for_s=2.0) as client:
            agent = Agent(
                self.node_id,
                client,
                self.driver,
                self.keeper,
                pace=plan.pace,
                heartbeat_interval_s=plan.heartbeat_interval_s,
            )
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(agent.run())
                try:
                    yield agent
                finally:
                    running.cancel()


class SimulatedFleet:
    """Simulated nodes whose agents run for as long as it is entered."""

    def __init__(self, nodes: Sequence[SimulatedNode]) -> None:
        self.nodes = nodes
        self._running = AsyncExitStack()

    @classmethod
    async def enrol(
        cls, operator: Client, plan: Plan, count: int, *, prefix: str = "simulated", at_once: int = 16
    ) -> Self:
        """Enrol so many new nodes, named after `prefix`, by an operator's client; none of them runs yet."""
        turns = asyncio.Semaphore(at_once)

        async def one(number: int) -> SimulatedNode:
            async with turns:
                return await _enrol(operator, plan, f"{prefix}-{number}")

        async with asyncio.TaskGroup() as tasks:
            nodes = [tasks.create_task(one(number)) for number in range(count)]
        return cls([each.result() for each in nodes])

    async def __aenter__(self) -> Self:
        for node in self.nodes:
            await self._running.enter_async_context(node.running())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._running.aclose()


async def _enrol(operator: Client, plan: Plan, name: str) -> SimulatedNode:
    token = (await operator.node.create_enrollment_token(reason="a simulated node")).result.token
    if token is None:
        raise RuntimeError(f"the answer with the token of {name} was lost")
    enrolled = await operator.node.enroll(
        token=token,
        name=name,
        labels={"simulated": "yes"},
        cpu_millis=plan.cpu_millis,
        memory_bytes=plan.memory_bytes,
        reason="a simulated node",
    )
    if enrolled.result.credential is None:
        raise RuntimeError(f"the answer with the credential of {name} was lost")
    return SimulatedNode(plan, enrolled.result.node_id, enrolled.result.credential)
