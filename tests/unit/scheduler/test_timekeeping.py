"""How long a deploy has come no further: by the monotonic clock, whatever the database's does."""

from datetime import timedelta

import pytest

from keelson.scheduler.domain.actions import Allocate
from keelson.scheduler.domain.plan import plan
from keelson.scheduler.domain.rollout import Bounds
from keelson.scheduler.domain.signs import Signs
from keelson.scheduler.timekeeping import Patience
from support.convergence import ControlPlane, make_process

TIMEOUT_S = 300.0
DAY = timedelta(days=1)


class Stage:
    """A deploy of which nothing is allocated yet, and a clock of each kind: `now`, and the control plane's own."""

    def __init__(self) -> None:
        self.now = 50.0
        self.plane = ControlPlane()
        self.plane.enroll()
        self.env = self.plane.create_env()
        self.deploy = self.plane.deploy(self.env, web=make_process())
        self.plane.set_deploy(self.deploy, self.env, "rolling")
        self.patience = Patience(TIMEOUT_S, lambda: self.now)

    def pass_by(self, seconds: float, jump: timedelta = timedelta()) -> None:
        """Let time pass, and then put the database's clock elsewhere."""
        self.now += seconds
        self.plane.passed += timedelta(seconds=seconds) + jump

    def record(self) -> None:
        """Append what says nothing of the deploy, but what time it is."""
        self.plane.create_env()

    def progress(self) -> None:
        """Let the deploy come nearer to its end."""
        [allocate] = [
            each for each in plan(self.plane.world(), Bounds(), Signs()).actions if isinstance(each, Allocate)
        ]
        self.plane.perform(allocate, self.plane.position)

    def is_overdue(self) -> bool:
        """Look."""
        return self.deploy in self.patience.overdue(self.plane.world())


def test_a_deploy_has_its_time_by_the_clock_that_goes_on() -> None:
    stage = Stage()
    assert not stage.is_overdue()

    stage.pass_by(TIMEOUT_S - 1)
    assert not stage.is_overdue()
    stage.pass_by(1)
    assert stage.is_overdue()


@pytest.mark.parametrize("jump", [DAY, -DAY, timedelta()], ids=["forward", "back", "stays"])
def test_f11_a_jump_of_the_databases_clock_neither_shortens_nor_lengthens_it(jump: timedelta) -> None:
    stage = Stage()
    assert not stage.is_overdue()

    stage.pass_by(10, jump)
    stage.record()
    assert not stage.is_overdue()
    stage.pass_by(TIMEOUT_S - 11)
    assert not stage.is_overdue()
    stage.pass_by(1)
    assert stage.is_overdue()


@pytest.mark.parametrize("jump", [DAY, -DAY, timedelta()], ids=["forward", "back", "stays"])
def test_f11_who_comes_further_has_all_of_it_again_whatever_time_that_is_said_to_be(jump: timedelta) -> None:
    stage = Stage()
    assert not stage.is_overdue()

    stage.pass_by(TIMEOUT_S - 1, jump)
    stage.progress()
    assert not stage.is_overdue()
    stage.pass_by(TIMEOUT_S - 1)
    assert not stage.is_overdue()
    stage.pass_by(1)
    assert stage.is_overdue()


def test_f11_a_deploy_that_begins_while_the_clock_is_behind_is_not_overdue() -> None:
    stage = Stage()
    stage.pass_by(10 * TIMEOUT_S, -DAY)
    assert not stage.is_overdue()
    second = stage.plane.deploy(stage.env, web=make_process())

    assert second not in stage.patience.overdue(stage.plane.world())


def test_a_restart_does_not_give_a_deploy_its_time_anew() -> None:
    """One that has just started is told by the log what had passed before."""
    stage = Stage()
    stage.pass_by(100)
    stage.record()

    assert not stage.is_overdue()
    stage.pass_by(TIMEOUT_S - 101)
    assert not stage.is_overdue()
    stage.pass_by(1)
    assert stage.is_overdue()


@pytest.mark.parametrize(("jump", "left_s"), [(DAY, TIMEOUT_S / 2), (-DAY, TIMEOUT_S)], ids=["forward", "back"])
def test_f11_by_a_start_after_a_jump_it_loses_no_more_than_half(jump: timedelta, left_s: float) -> None:
    stage = Stage()
    stage.pass_by(10, jump)
    stage.record()

    assert not stage.is_overdue()
    stage.pass_by(left_s - 1)
    assert not stage.is_overdue()
    stage.pass_by(1)
    assert stage.is_overdue()


def test_who_has_ended_is_not_overdue() -> None:
    stage = Stage()
    assert not stage.is_overdue()
    stage.pass_by(TIMEOUT_S)
    stage.plane.set_deploy(stage.deploy, stage.env, "failed")

    assert not stage.is_overdue()
