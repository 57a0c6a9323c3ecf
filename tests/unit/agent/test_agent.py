"""One agent, with a control plane that does as it is told: what it takes, keeps, and goes on with."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from keelson.agent import agent as module
from keelson.agent.agent import Agent
from keelson.agent.drivers.simulated import SimulatedDriver
from keelson.agent.fleet import MemoryKeeper
from keelson.agent.state import DesiredFile
from keelson.agent.supervisor import Pace
from keelson.client import Confirmed, Desired, ProblemError
from keelson.client.commands.instance import ReportStatus
from keelson.client.reads.nodes import DesiredInstance
from support.instances import instance_id, wanted
from support.waiting import eventually

ONE, TWO = instance_id(1), instance_id(2)
PACE = Pace(drain_s=0.0, restart_backoff_first_s=0.001)


def snapshot(version: int, *items: DesiredInstance, epoch: str = "abc") -> Desired:
    return Desired(f"{epoch}-{version}", version, f"digest of {version}", items, version)


@dataclass
class ControlPlane:
    """Says what is put into `says`, and notes what it is told. It stands for the client."""

    says: "asyncio.Queue[Desired | Confirmed | Exception]" = field(default_factory=asyncio.Queue)
    known: list[str | None] = field(default_factory=list)
    digests: list[str | None] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    beats: list[tuple[int, Mapping[str, float]]] = field(default_factory=list)

    @property
    def nodes(self) -> "ControlPlane":
        """Where heartbeats go."""
        return self

    async def follow_desired(
        self, node_id: str, known: str | None = None, digest: str | None = None
    ) -> AsyncGenerator[Any, None]:
        """Say what is said."""
        assert node_id == "node_1"
        self.known.append(known)
        self.digests.append(digest)
        while True:
            said = await self.says.get()
            if isinstance(said, Exception):
                raise said
            yield said

    async def send(self, command: ReportStatus, *, reason: str) -> None:
        """Note a report."""
        assert reason
        self.told.append((command.instance_id, command.status))

    async def heartbeat(self, node_id: str, *, observed_position: int, load: Mapping[str, float]) -> None:
        """Note a heartbeat."""
        assert node_id == "node_1"
        self.beats.append((observed_position, load))


@dataclass
class Node:
    """What is left of an agent when it is gone."""

    driver: SimulatedDriver = field(default_factory=SimulatedDriver)
    keeper: MemoryKeeper = field(default_factory=MemoryKeeper)

    @property
    def running(self) -> set[str]:
        """What it says to run."""
        return {key for key, run in self.driver.runs.items() if run.runs}

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[ControlPlane]:
        """Run an agent."""
        control_plane = ControlPlane()
        agent = Agent(
            "node_1",
            control_plane,  # type: ignore[arg-type]
            self.driver,
            self.keeper,
            pace=PACE,
            heartbeat_interval_s=0.005,
        )
        task = asyncio.create_task(agent.run())
        try:
            yield control_plane
        finally:
            assert not task.done(), task.exception()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_it_runs_what_it_is_told_and_says_so() -> None:
    node = Node()
    async with node.agent() as control_plane:
        control_plane.says.put_nowait(snapshot(5, wanted(1), wanted(2)))
        await eventually(lambda: control_plane.told.count((TWO, "ready")) == 1)
        control_plane.says.put_nowait(snapshot(6, wanted(1), wanted(2, desired_state="draining")))
        await eventually(lambda: (TWO, "stopped") in control_plane.told)
        assert node.running == {ONE}
        assert [status for key, status in control_plane.told if key == TWO] == [
            "booting",
            "ready",
            "draining",
            "stopped",
        ]


async def test_what_should_have_stopped_and_never_ran_here_is_said_to_have_stopped_once() -> None:
    node = Node()
    async with node.agent() as control_plane:
        for version in (5, 6, 7):
            control_plane.says.put_nowait(snapshot(version, wanted(1, desired_state="draining")))
        await eventually(lambda: control_plane.beats and control_plane.beats[-1][0] == 7)
        await eventually(lambda: control_plane.told == [(ONE, "stopped")])
        assert node.driver.starts == 0


async def test_what_is_older_than_what_it_knows_is_not_taken() -> None:
    node = Node()
    async with node.agent() as control_plane:
        control_plane.says.put_nowait(snapshot(6, wanted(1)))
        await eventually(lambda: node.running == {ONE})
        control_plane.says.put_nowait(snapshot(5))
        control_plane.says.put_nowait(snapshot(7, wanted(1), wanted(2)))
        await eventually(lambda: node.running == {ONE, TWO})
        assert node.driver.starts == 2


async def test_in_another_epoch_what_is_older_is_taken_and_all_is_told_again() -> None:
    node = Node()
    async with node.agent() as control_plane:
        control_plane.says.put_nowait(snapshot(9, wanted(1), wanted(2)))
        await eventually(lambda: (TWO, "ready") in control_plane.told)
        await eventually(lambda: (ONE, "ready") in control_plane.told)
        control_plane.told.clear()
        control_plane.says.put_nowait(snapshot(4, wanted(1), epoch="new"))
        await eventually(lambda: node.running == {ONE})
        await eventually(lambda: control_plane.told == [(ONE, "ready")])  # of the orphan nothing


async def test_without_the_control_plane_it_goes_on_with_what_it_knows_also_anew() -> None:
    node = Node()
    async with node.agent() as control_plane:
        control_plane.says.put_nowait(snapshot(6, wanted(1), wanted(2)))
        await eventually(lambda: (TWO, "ready") in control_plane.told)
    assert node.running == {ONE, TWO}
    node.driver.runs.pop(TWO)
    async with node.agent() as control_plane:
        await eventually(lambda: node.running == {ONE, TWO})
        await eventually(lambda: ("abc-6") in control_plane.known)
        assert control_plane.digests == ["digest of 6"]
        assert node.driver.starts == 3
        await eventually(lambda: (ONE, "ready") in control_plane.told)
        assert (ONE, "booting") not in control_plane.told


async def test_what_is_not_wanted_any_more_is_ended_without_a_word() -> None:
    node = Node()
    async with node.agent() as control_plane:
        control_plane.says.put_nowait(snapshot(6, wanted(1)))
        await eventually(lambda: (ONE, "ready") in control_plane.told)
    async with node.agent() as control_plane:
        await eventually(lambda: control_plane.told == [(ONE, "ready")])
        control_plane.says.put_nowait(snapshot(8))
        await eventually(lambda: not node.driver.runs)
        assert control_plane.told == [(ONE, "ready")]


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_node_that_is_turned_away_goes_on_and_asks_again(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFUSED_PAUSE_S", 0.001)
    node = Node()
    async with node.agent() as control_plane:
        control_plane.says.put_nowait(snapshot(6, wanted(1)))
        await eventually(lambda: node.running == {ONE})
        refusal = ProblemError(status=status, code="unauthenticated", detail="", body={}, retry_after_s=None)
        control_plane.says.put_nowait(refusal)
        await eventually(lambda: control_plane.known == [None, "abc-6"])
        assert control_plane.digests == [None, "digest of 6"]
        assert node.running == {ONE}
        control_plane.says.put_nowait(snapshot(7, wanted(1), wanted(2)))
        await eventually(lambda: node.running == {ONE, TWO})


async def test_heartbeats_say_how_far_it_has_seen_the_log_and_what_it_runs() -> None:
    node = Node()
    async with node.agent() as control_plane:
        await eventually(lambda: control_plane.beats)
        assert control_plane.beats[0][0] == 0
        control_plane.says.put_nowait(snapshot(6, wanted(1), wanted(2)))
        control_plane.says.put_nowait(Confirmed(6, "digest of 6", 11))
        expected = (11, {"instances": 2, "ready": 2, "memory_bytes": 2 * wanted(1).spec.memory_bytes})
        await eventually(lambda: control_plane.beats[-1] == expected)


class FullDisk(MemoryKeeper):
    """Keeps nothing until it has room."""

    has_room = False
    tries = 0

    def write_desired(self, desired: DesiredFile) -> None:
        """Fail."""
        self.tries += 1
        if not self.has_room:
            raise OSError(28, f"No space left on device for {desired.version}")
        super().write_desired(desired)


async def test_a_disk_that_is_full_stops_nothing_and_what_it_had_no_room_for_is_kept_later() -> None:
    disk = FullDisk()
    node = Node(keeper=disk)
    async with node.agent() as control_plane:
        control_plane.says.put_nowait(snapshot(6, wanted(1)))
        await eventually(lambda: node.running == {ONE})
        control_plane.says.put_nowait(Confirmed(6, "digest of 6", 7))
        await eventually(lambda: disk.tries == 2)
        disk.has_room = True
        for position in (8, 9):
            control_plane.says.put_nowait(Confirmed(6, "digest of 6", position))
        await eventually(lambda: control_plane.beats[-1][0] == 9)
        kept = disk.read_desired()
        assert kept is not None
        assert (kept.version, disk.tries) == (6, 3)


async def test_one_that_was_replaced_by_another_of_its_name_is_ended_and_started_anew() -> None:
    node = Node()
    async with node.agent() as control_plane:
        control_plane.says.put_nowait(snapshot(6, wanted(1)))
        await eventually(lambda: (ONE, "ready") in control_plane.told)
        first = node.driver.runs[ONE]
        control_plane.says.put_nowait(snapshot(3, wanted(1, spec_hash="1" * 64), epoch="new"))
        await eventually(lambda: node.driver.runs.get(ONE) not in (None, first))
        assert not first.runs
