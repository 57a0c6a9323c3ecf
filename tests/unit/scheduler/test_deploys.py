"""How far a deploy is said to be, and why it failed."""

import random

from keelson.scheduler.domain.actions import SetDeployStatus
from keelson.scheduler.domain.plan import plan
from keelson.scheduler.domain.rollout import Bounds
from keelson.scheduler.domain.signs import Signs
from support.convergence import ControlPlane, make_process


def said(plane: ControlPlane, *overdue: str) -> list[SetDeployStatus]:
    made = plan(plane.world(), Bounds(), Signs(overdue=frozenset(overdue)))
    return [each for each in made.actions if isinstance(each, SetDeployStatus)]


def do(plane: ControlPlane, times: int = 1) -> None:
    for _ in range(times):
        for action in plan(plane.world(), Bounds(), Signs()).actions:
            plane.perform(action, plane.position)


def step(plane: ControlPlane, times: int = 1) -> None:
    for _ in range(times):
        for each in list(plane.replicas):
            plane.step_agent(each, random.Random(0))


def rolling(memory_mib: int = 100, *, broken: bool = False) -> tuple[ControlPlane, str, str]:
    plane = ControlPlane()
    plane.enroll(1000)
    env = plane.create_env()
    deploy = plane.deploy(env, broken=broken, web=make_process(memory_mib))
    do(plane)
    return plane, env, deploy


def test_a_queued_deploy_is_rolling_as_soon_as_it_is_seen() -> None:
    plane = ControlPlane()
    deploy = plane.deploy(plane.create_env(), web=make_process())

    [say] = said(plane)

    assert (say.deploy.id, say.status) == (deploy, "rolling")


def test_it_has_succeeded_when_all_of_its_release_is_ready() -> None:
    plane, env, _ = rolling()
    plane.scale(env, web=2)
    do(plane)
    step(plane)
    assert said(plane) == []

    step(plane)

    assert [each.status for each in said(plane)] == ["succeeded"]


def test_it_has_not_succeeded_while_another_release_runs() -> None:
    plane, env, _ = rolling()
    step(plane, 2)
    do(plane)
    plane.deploy(env, web=make_process())
    do(plane)
    step(plane, 2)
    assert said(plane) == []

    do(plane)

    assert [each.status for each in said(plane)] == ["succeeded"]


def test_nothing_wanted_is_success_at_once() -> None:
    plane, env, _ = rolling()
    plane.scale(env, web=0)

    assert [each.status for each in said(plane)] == ["succeeded"]


def test_what_came_no_further_has_failed_and_says_what_failed() -> None:
    plane, _, deploy = rolling(broken=True)
    step(plane, 3)
    assert said(plane) == []

    [say] = said(plane, deploy)

    [failed] = plane.replicas
    assert say.status == "failed"
    assert say.message == f"web: 0 of 1 ready, {failed} failed: exited, exit code 1"


def test_without_room_that_is_said() -> None:
    plane, _, deploy = rolling(memory_mib=2000)

    [say] = said(plane, deploy)

    assert say.message == f"web: 0 of 1 ready, no node has room for 1 more of {2000 * 1024 * 1024} bytes"


def test_what_has_arrived_in_the_last_moment_has_succeeded() -> None:
    plane, _, deploy = rolling()
    step(plane, 2)

    assert [each.status for each in said(plane, deploy)] == ["succeeded"]


def test_a_message_is_no_longer_than_a_text_may_be() -> None:
    plane, _, deploy = rolling()
    [instance] = plane.replicas
    plane.report(instance, "failed", reason_code="exited", message="x" * 500)

    [say] = said(plane, deploy)

    assert len(say.message or "") == 500


def test_only_what_brings_it_nearer_is_progress() -> None:
    plane, _, deploy = rolling()
    [instance] = plane.replicas

    def progressed() -> object:
        return plane.world().deploys[deploy].progressed_at

    placed = progressed()
    plane.report(instance, "failed", reason_code="exited")
    plane.report(instance, "booting")
    assert progressed() == placed
    plane.report(instance, "ready")
    first = progressed()
    assert first != placed
    plane.report(instance, "failed", reason_code="exited")
    plane.report(instance, "booting")
    plane.report(instance, "ready")
    assert progressed() == first


def test_a_superseded_deploy_is_left_alone_and_so_is_one_that_ended() -> None:
    plane, env, first = rolling()
    second = plane.deploy(env, web=make_process())

    assert {each.deploy.id for each in said(plane, first, second)} == {second}
    plane.set_deploy(second, env, "failed")
    assert said(plane, first, second) == []
