"""One instance under supervision: what is told of it, when it is started again, how it ends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from keelson.agent.driver import Failure
from keelson.agent.drivers.simulated import SimulatedDriver, SimulatedRun
from keelson.agent.supervisor import Backoff, Pace, Supervisor
from keelson.client.commands.instance import ReportStatus
from keelson.client.reads.nodes import DesiredInstance
from support.instances import instance_id, wanted
from support.waiting import eventually

KEY = instance_id(1)
QUICK = Pace(
    drain_s=0.01, stop_grace_s=0.1, boot_timeout_s=5.0, restart_backoff_first_s=0.001, restart_backoff_max_s=0.01
)
CRASH = Failure(reason_code="exited", exit_code=3, message="so it is")


@dataclass
class Watched:
    """An instance under supervision, and what was told of it."""

    driver: SimulatedDriver
    supervisor: Supervisor
    task: "asyncio.Task[None]"
    told: list[ReportStatus] = field(default_factory=list)

    @property
    def statuses(self) -> list[str]:
        """What was told, in order."""
        return [each.status for each in self.told]

    @property
    def run(self) -> SimulatedRun:
        """Its run."""
        return self.driver.runs[KEY]

    async def until(self, *statuses: str) -> None:
        """Wait until exactly this was told."""
        await eventually(lambda: self.statuses == list(statuses), 5.0)


@asynccontextmanager
async def supervised(
    pace: Pace = QUICK, driver: SimulatedDriver | None = None, run: SimulatedRun | None = None, **fields: Any
) -> AsyncIterator[Watched]:
    driver = driver or SimulatedDriver()
    told: list[ReportStatus] = []
    supervisor = Supervisor(wanted(1, ports=["http"], **fields), driver, told.append, pace, run)
    task = asyncio.create_task(supervisor.run())
    try:
        yield Watched(driver, supervisor, task, told)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_is_started_and_told_to_be_ready_with_its_endpoints() -> None:
    async with supervised() as watched:
        await watched.until("booting", "ready")
        [booting, ready] = watched.told
        assert booting.endpoints is None
        assert ready.endpoints is not None
        assert {name: each.port for name, each in ready.endpoints.items()} == {
            name: address.port for name, address in watched.run.endpoints.items()
        }
        assert watched.supervisor.is_ready


async def test_one_that_fails_is_started_again() -> None:
    async with supervised() as watched:
        await watched.until("booting", "ready")
        first = watched.run
        await first.fail(CRASH)
        await watched.until("booting", "ready", "failed", "booting", "ready")
        assert watched.run is not first
        failed = watched.told[2]
        assert (failed.reason_code, failed.exit_code, failed.message) == ("exited", 3, "so it is")


async def test_one_that_is_unhealthy_is_stopped_and_started_again() -> None:
    async with supervised() as watched:
        await watched.until("booting", "ready")
        first = watched.run
        await first.sicken("it answered 503")
        await watched.until("booting", "ready", "failed", "booting", "ready")
        assert not first.runs
        assert (watched.told[2].reason_code, watched.told[2].message) == ("unhealthy", "it answered 503")


class Stuck(SimulatedRun):
    """A run with a process that hangs in the kernel, and ends when it is let go."""

    @classmethod
    def of(cls, instance: DesiredInstance) -> "Stuck":
        """Give one that is ready at once."""
        run = cls(instance, {}, 0.0)
        run.let_go = asyncio.Event()
        return run

    let_go: asyncio.Event

    async def stop(self, grace_s: float) -> Failure | None:
        """Wait for being let go."""
        await self.let_go.wait()
        return await super().stop(grace_s)


@pytest.mark.parametrize("order", [None, Supervisor.drain, Supervisor.stop])
async def test_a_failure_is_told_before_what_failed_has_ended_which_may_take_for_ever(
    order: Callable[[Supervisor], None] | None,
) -> None:
    run = Stuck.of(wanted(1))
    async with supervised(Pace(drain_s=60.0, restart_backoff_first_s=0.001), run=run) as watched:
        await watched.until("booting", "ready")
        await run.sicken("it answered 503")
        await watched.until("booting", "ready", "failed")
        assert not watched.supervisor.is_ready
        if order is not None:
            order(watched.supervisor)
        assert watched.driver.starts == 0
        run.let_go.set()
        if order is None:  # another, beside which nothing of the first one runs
            await watched.until("booting", "ready", "failed", "booting", "ready")
            assert not run.runs
        else:
            await asyncio.wait_for(watched.task, 5.0)
            assert watched.statuses == ["booting", "ready", "failed", "stopped"]


async def test_one_that_does_not_get_ready_is_unhealthy() -> None:
    pace = Pace(boot_timeout_s=0.01, restart_backoff_first_s=60.0, restart_backoff_max_s=60.0)
    async with supervised(pace, SimulatedDriver(ready_after_s=60.0)) as watched:
        await watched.until("booting", "failed")
        assert watched.told[1].reason_code == "unhealthy"
        assert not watched.run.runs


async def test_what_cannot_be_started_is_tried_again() -> None:
    driver = SimulatedDriver()
    driver.refusal = Failure(reason_code="secrets_unavailable")
    async with supervised(driver=driver) as watched:
        await eventually(lambda: watched.statuses.count("failed") >= 3)
        assert "booting" not in watched.statuses
        driver.refusal = None
        await eventually(lambda: watched.statuses[-2:] == ["booting", "ready"])


@pytest.mark.parametrize(
    ("order", "rest"),
    [
        (Supervisor.drain, ["draining", "stopped"]),
        (Supervisor.stop, ["draining", "stopped"]),
        (Supervisor.end, []),
    ],
)
async def test_it_ends_as_it_is_ordered(order: Callable[[Supervisor], None], rest: list[str]) -> None:
    async with supervised() as watched:
        await watched.until("booting", "ready")
        run = watched.run
        order(watched.supervisor)
        await asyncio.wait_for(watched.task, 5.0)
        assert watched.statuses == ["booting", "ready", *rest]
        assert watched.supervisor.observed.phase == "ended"
        assert not run.runs
        assert not watched.driver.runs


async def test_while_it_drains_it_serves_and_a_stop_ends_that() -> None:
    async with supervised(Pace(drain_s=60.0)) as watched:
        await watched.until("booting", "ready")
        run = watched.run
        watched.supervisor.drain()
        await watched.until("booting", "ready", "draining")
        assert run.runs
        assert watched.supervisor.observed.phase == "draining"
        watched.supervisor.stop()
        await asyncio.wait_for(watched.task, 5.0)
        assert watched.statuses == ["booting", "ready", "draining", "stopped"]


async def test_one_that_ends_while_it_drains_has_stopped() -> None:
    async with supervised(Pace(drain_s=60.0)) as watched:
        await watched.until("booting", "ready")
        watched.supervisor.drain()
        await watched.until("booting", "ready", "draining")
        await watched.run.fail(Failure(reason_code="exited", exit_code=0))
        await asyncio.wait_for(watched.task, 5.0)
        assert watched.statuses == ["booting", "ready", "draining", "stopped"]
        assert watched.told[-1].exit_code == 0


async def test_an_order_to_end_while_it_drains_is_silent_from_then_on() -> None:
    async with supervised(Pace(drain_s=60.0)) as watched:
        await watched.until("booting", "ready")
        watched.supervisor.drain()
        await watched.until("booting", "ready", "draining")
        watched.supervisor.end()
        await asyncio.wait_for(watched.task, 5.0)
        assert watched.statuses == ["booting", "ready", "draining"]


async def test_one_that_waits_for_its_restart_stops_at_once_and_without_draining() -> None:
    async with supervised(Pace(restart_backoff_first_s=60.0, restart_backoff_max_s=60.0)) as watched:
        await watched.until("booting", "ready")
        await watched.run.fail(CRASH)
        await watched.until("booting", "ready", "failed")
        watched.supervisor.drain()
        await asyncio.wait_for(watched.task, 5.0)
        assert watched.statuses == ["booting", "ready", "failed", "stopped"]


async def test_the_agents_end_leaves_it_running_and_the_next_agent_finds_it() -> None:
    driver = SimulatedDriver()
    async with supervised(driver=driver) as watched:
        await watched.until("booting", "ready")
        run = watched.run
    assert run.runs
    async with supervised(driver=driver, run=run) as watched:
        await watched.until("ready")  # it does not boot
        assert driver.starts == 1
        await run.fail(CRASH)
        await watched.until("ready", "failed", "booting", "ready")


async def test_one_that_was_ready_and_ended_while_no_agent_was_there_is_not_told_to_be_ready() -> None:
    driver = SimulatedDriver()
    async with supervised(driver=driver) as watched:
        await watched.until("booting", "ready")
        run = watched.run
    await run.fail(CRASH)
    driver.refusal = Failure(reason_code="start_failed")
    async with supervised(driver=driver, run=run) as watched:
        await eventually(lambda: watched.statuses.count("failed") >= 2)
        assert watched.told[0].exit_code == 3
        assert "ready" not in watched.statuses


def test_restarts_come_later_and_later_up_to_a_bound() -> None:
    backoff = Backoff(Pace(restart_backoff_first_s=0.5, restart_backoff_max_s=3.0, stable_s=30.0))
    assert [backoff.next_s(1.0) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.next_s(30.0) == 0.5
    assert backoff.next_s(29.9) == 1.0
