"""A driver that runs nothing and says that it does: for tests, and for measuring with more nodes than there are."""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import count

from keelson.agent.driver import Address, Failure, Recovered, StartError
from keelson.client.reads.nodes import DesiredInstance

_LOWEST_PORT, _PORTS = 20_000, 40_000


class SimulatedRun:
    """What is said to be a run; it ends when it is told to."""

    def __init__(self, instance: DesiredInstance, endpoints: Mapping[str, Address], ready_after_s: float) -> None:
        self.instance = instance
        self._endpoints = endpoints
        self._ready_after_s = ready_after_s
        self._was_ready = False
        self._ended: Failure | None = None
        self._unhealthy: str | None = None
        self._changed = asyncio.Condition()

    @property
    def endpoints(self) -> Mapping[str, Address]:
        """Made-up places."""
        return self._endpoints

    @property
    def was_ready(self) -> bool:
        """Whether it has been ready."""
        return self._was_ready

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._ended is None

    async def fail(self, failure: Failure) -> None:
        """Let it end by itself."""
        self._ended = failure
        await self._tell()

    async def sicken(self, message: str) -> None:
        """Let it be unhealthy."""
        self._unhealthy = message
        await self._tell()

    async def wait_until_ready(self) -> None:
        """Take a while."""
        await asyncio.sleep(self._ready_after_s)
        self._was_ready = True

    async def wait_until_unhealthy(self) -> str:
        """Wait for `sicken`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._unhealthy is not None)
        return self._unhealthy or ""

    async def wait_until_ended(self) -> Failure:
        """Wait for `fail`, or for having been stopped."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._ended is not None)
        return self._ended or Failure(reason_code="exited")

    async def stop(self, grace_s: float) -> Failure | None:  # noqa: ARG002 - it ends at once
        """End at once."""
        if self._ended is None:
            await self.fail(Failure(reason_code="exited", exit_code=0))
        return self._ended

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class SimulatedDriver:
    """Keeps in memory what it says to run; it outlives its agent, as processes do, if the next one is given it."""

    def __init__(self, *, ready_after_s: float = 0.0, host: str = "127.0.0.1") -> None:
        self.runs: dict[str, SimulatedRun] = {}
        self.starts = 0
        self.refusal: Failure | None = None
        """While set, nothing starts, for this reason."""
        self._ready_after_s = ready_after_s
        self._host = host
        self._ports = count()

    async def run(self) -> None:
        """Do nothing."""
        await asyncio.Event().wait()

    def recover(self) -> Sequence[Recovered]:
        """Give what it ran for an agent before."""
        return [Recovered(run.instance, run) for run in self.runs.values()]

    async def start(self, instance: DesiredInstance) -> SimulatedRun:
        """Say that it runs."""
        if self.refusal is not None:
            raise StartError(self.refusal)
        self.starts += 1
        ports = {port.name: _LOWEST_PORT + next(self._ports) % _PORTS for port in instance.spec.ports}
        endpoints = {name: Address(self._host, port) for name, port in ports.items()}
        run = self.runs[instance.instance_id] = SimulatedRun(instance, endpoints, self._ready_after_s)
        return run

    def discard(self, instance_id: str) -> None:
        """Forget it."""
        self.runs.pop(instance_id, None)

    def measure(self) -> Mapping[str, float]:
        """Give the memory that all would have together if they took what they may."""
        return {"memory_bytes": sum(run.instance.spec.memory_bytes for run in self.runs.values() if run.runs)}
