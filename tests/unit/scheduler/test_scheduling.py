"""When the scheduler acts, and when a deploy has had its time."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from keelson.scheduler.domain.actions import AnyAction, SetDeployStatus
from keelson.scheduler.domain.rollout import Bounds
from keelson.scheduler.heartbeats import Heartbeats
from keelson.scheduler.scheduling import GRACE_S, Scheduler
from keelson.scheduler.timekeeping import Patience
from keelson.scheduler.watching import Head
from support.convergence import ControlPlane, make_process
from support.waiting import eventually

TIMEOUT_S = 300.0


class Stage:
    """A scheduler that sees a control plane to its end, both services of which have answered since long ago."""

    def __init__(self, plane: ControlPlane) -> None:
        self.now = 1000.0
        self.offered: list[list[AnyAction]] = []
        self.woken = asyncio.Event()
        follower: Any = SimpleNamespace(world=plane.world(), epoch="e1", trouble=None)
        watcher: Any = SimpleNamespace(head=Head("e1", plane.position), trouble=None, good_since=0.0)
        actor: Any = SimpleNamespace(refusing=frozenset(), offer=lambda made, _group: self.offered.append(made))
        self.follower, self.watcher = follower, watcher
        self.scheduler = Scheduler(
            follower,
            watcher,
            actor,
            heartbeats=Heartbeats(12.0, 2.0),
            patience=Patience(TIMEOUT_S, lambda: self.now),
            monotonic=lambda: self.now,
            bounds=Bounds(),
            node_lost_after_s=12.0,
            woken=self.woken,
        )

    async def step(self) -> list[AnyAction]:
        """Wake it once; give what it offers to do, nothing if it waits."""
        before = len(self.offered)
        task = asyncio.create_task(self.scheduler.run())
        self.woken.set()
        await eventually(lambda: not self.woken.is_set())
        task.cancel()
        await asyncio.wait([task])
        return [each for made in self.offered[before:] for each in made]


def rolling() -> ControlPlane:
    """Give a control plane with a deploy that rolls, and no node."""
    plane = ControlPlane()
    env = plane.create_env()
    plane.set_deploy(plane.deploy(env, web=make_process()), env, "rolling")
    return plane


def failed(actions: list[AnyAction]) -> bool:
    return any(isinstance(each, SetDeployStatus) and each.status == "failed" for each in actions)


async def test_it_acts_on_what_it_knows_to_the_end() -> None:
    plane = ControlPlane()
    plane.deploy(plane.create_env(), web=make_process())

    assert len(await Stage(plane).step()) == 1


@pytest.mark.parametrize(
    ("head", "waits_for"),
    [
        (Head("e1", 1000), "the log has not been read to its end"),
        (Head("e2", 1), "the log has not been read to its end"),
        (None, "nobody answers"),
    ],
)
async def test_on_a_part_of_the_history_or_of_another_it_does_not_act(head: Head | None, waits_for: str) -> None:
    plane = ControlPlane()
    plane.deploy(plane.create_env(), web=make_process())
    stage = Stage(plane)
    stage.watcher.head, stage.watcher.trouble = head, "nobody answers"

    assert await stage.step() == []
    assert stage.offered == []
    assert stage.scheduler.waits_for == waits_for


async def test_what_it_cannot_read_it_does_not_act_on() -> None:
    stage = Stage(rolling())
    stage.follower.trouble = "a newer scheduler is needed"

    assert await stage.step() == []
    assert stage.scheduler.waits_for == "a newer scheduler is needed"


async def test_a_deploy_has_its_time_by_the_clock_that_goes_on() -> None:
    stage = Stage(rolling())
    assert not failed(await stage.step())

    stage.now += TIMEOUT_S - 1
    assert not failed(await stage.step())
    stage.now += 1
    assert failed(await stage.step())


async def test_after_an_outage_agents_are_heard_before_a_deploy_has_failed() -> None:
    stage = Stage(rolling())
    await stage.step()
    stage.now += 10 * TIMEOUT_S
    stage.watcher.good_since = None
    assert not failed(await stage.step())

    stage.watcher.good_since = stage.now
    assert not failed(await stage.step())
    stage.now += GRACE_S
    assert failed(await stage.step())
