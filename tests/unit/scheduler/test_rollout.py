"""What a process needs, given how it stands: the bounds of rollouts, drains, scale, and what is paused."""

import random

import msgspec
import pytest

from keelson.scheduler.domain.actions import Allocate, AnyAction, Drain, EndLost
from keelson.scheduler.domain.ids import instance_id
from keelson.scheduler.domain.plan import plan
from keelson.scheduler.domain.rollout import Bounds
from keelson.scheduler.domain.signs import Signs
from support.convergence import ControlPlane, make_id, make_process

WEB = make_process(100)


def actions_of(plane: ControlPlane, bounds: Bounds | None = None, **signs: frozenset[str]) -> list[AnyAction]:
    return plan(plane.world(), bounds or Bounds(), Signs(silent_s=12, **signs)).actions


def do(plane: ControlPlane, bounds: Bounds | None = None) -> list[AnyAction]:
    """Plan once and do it all."""
    actions = actions_of(plane, bounds)
    for action in actions:
        plane.perform(action, plane.position)
    return actions


def step_agents(plane: ControlPlane) -> None:
    chance = random.Random(0)
    while sum(plane.step_agent(each, chance) for each in list(plane.replicas)):
        pass


def settle(plane: ControlPlane, bounds: Bounds | None = None) -> None:
    """Plan, act, and let agents work until nothing more happens."""
    for _ in range(100):
        step_agents(plane)
        if not do(plane, bounds):
            return
    raise AssertionError("does not settle")


def fail(plane: ControlPlane, env: str, deploy: str) -> None:
    for status in ("rolling", "failed"):
        if plane.deploys[deploy] != status:
            plane.set_deploy(deploy, env, status)


def drained(actions: list[AnyAction]) -> list[str]:
    return [each.id for action in actions if isinstance(action, Drain) for each in action.instances]


def allocated(actions: list[AnyAction]) -> list[Allocate]:
    return [action for action in actions if isinstance(action, Allocate)]


@pytest.fixture
def plane() -> ControlPlane:
    plane = ControlPlane()
    for zone in ("a", "b"):
        plane.enroll(1000, zone=zone)
    return plane


@pytest.fixture
def env(plane: ControlPlane) -> str:
    """Three of `web` that run and are ready."""
    env = plane.create_env()
    plane.deploy(env, web=WEB)
    plane.scale(env, web=3)
    settle(plane)
    assert [each.status for each in plane.running(env, "web")] == ["ready"] * 3
    return env


def test_what_is_as_it_should_be_is_left_alone(plane: ControlPlane, env: str) -> None:
    assert actions_of(plane) == []
    assert plane.deploys[str(plane.envs[env].deploy_id)] == "succeeded"


def test_missing_replicas_are_allocated_under_ids_that_follow_from_how_many_there_were(plane: ControlPlane) -> None:
    env = plane.create_env()
    plane.deploy(env, web=WEB)
    plane.scale(env, web=2)

    placed = allocated(actions_of(plane))

    assert [each.instance_id for each in placed] == [instance_id(env, "web", 1), instance_id(env, "web", 2)]


def test_after_a_failover_that_lost_an_allocation_but_not_the_next_neither_is_in_the_way(plane: ControlPlane) -> None:
    """The later one was sent again, to a log that has never had the earlier."""
    env = plane.create_env()
    plane.deploy(env, web=WEB)
    plane.scale(env, web=4)
    _, second, *_ = allocated(actions_of(plane))
    plane.perform(second, plane.position)

    placed = allocated(do(plane))

    assert [each.instance_id for each in placed] == [instance_id(env, "web", number) for number in (1, 3, 4)]
    assert plane.world().workloads[env]["web"].next == 5
    assert plane.world().workloads[env]["web"].ahead == set()


def test_what_was_allocated_by_hand_takes_no_number(plane: ControlPlane, env: str) -> None:
    plane.scale(env, web=5)
    [usual, _] = allocated(actions_of(plane))
    plane.perform(msgspec.structs.replace(usual, instance_id=make_id("instance", 77)), plane.position)

    [placed] = allocated(do(plane))

    assert placed.instance_id == instance_id(env, "web", 4)


def test_another_release_surges_by_one_and_drains_nothing_before_that_is_ready(plane: ControlPlane, env: str) -> None:
    plane.deploy(env, web=WEB)

    first = do(plane)
    assert (len(allocated(first)), drained(first)) == (1, [])
    assert allocated(do(plane)) == []
    step_agents(plane)

    then = do(plane)
    assert (len(allocated(then)), len(drained(then))) == (0, 1)
    assert len(allocated(do(plane))) == 1


def test_a_rollout_ends_with_only_the_present_revision(plane: ControlPlane, env: str) -> None:
    plane.deploy(env, web=WEB)

    settle(plane)

    revision = plane.envs[env].revision_of("web")
    assert [each.revision for each in plane.replicas.values()] == [revision] * 3


def test_without_surge_one_is_drained_first_where_one_may_be_missing(plane: ControlPlane, env: str) -> None:
    bounds = Bounds(surge=0, unavailable=1)
    plane.deploy(env, web=WEB)

    first = actions_of(plane, bounds)

    assert (len(allocated(first)), len(drained(first))) == (0, 1)


def test_bounds_without_room_to_move_are_refused() -> None:
    with pytest.raises(ValueError, match="room to move"):
        Bounds(surge=0, unavailable=0)


def test_a_drain_relies_on_as_many_ready_ones_as_must_stay(plane: ControlPlane, env: str) -> None:
    plane.deploy(env, web=WEB)
    do(plane)
    step_agents(plane)

    [drain] = [each for each in actions_of(plane) if isinstance(each, Drain)]

    assert len(drain.relied_on) == 3
    assert {each.id for each in drain.instances}.isdisjoint(each.id for each in drain.relied_on)


def test_an_outdated_one_that_serves_nobody_goes_at_once(plane: ControlPlane, env: str) -> None:
    victim = next(iter(plane.replicas))
    plane.report(victim, "failed", reason_code="exited")
    plane.configure(env, MODE="new")

    assert drained(actions_of(plane)) == [victim]


@pytest.mark.parametrize("what", ["config", "secret"])
def test_other_variables_and_secrets_are_rollouts(plane: ControlPlane, what: str) -> None:
    env = plane.create_env()
    plane.deploy(env, web=make_process(100, needs_secrets=True))
    settle(plane)
    before = set(plane.replicas)

    if what == "config":
        plane.configure(env, MODE="new")
    else:
        plane.set_secret(env)
    settle(plane)

    assert len(plane.replicas) == 1
    assert before.isdisjoint(plane.replicas)


def test_a_secret_is_nothing_to_a_process_that_needs_none(plane: ControlPlane, env: str) -> None:
    plane.set_secret(env)

    assert actions_of(plane) == []


def test_scaled_down_the_newest_go(plane: ControlPlane, env: str) -> None:
    plane.scale(env, web=1)

    assert drained(actions_of(plane)) == list(plane.replicas)[:0:-1]


def test_scaled_down_what_is_not_ready_goes_first(plane: ControlPlane, env: str) -> None:
    oldest = next(iter(plane.replicas))
    plane.report(oldest, "failed", reason_code="exited")
    plane.scale(env, web=2)

    assert drained(actions_of(plane)) == [oldest]


def test_scaled_to_zero_all_go_and_from_zero_they_come(plane: ControlPlane, env: str) -> None:
    plane.scale(env, web=0)
    settle(plane)
    assert not plane.replicas

    plane.scale(env, web=2)
    settle(plane)
    assert len(plane.running(env, "web")) == 2


def test_a_process_that_the_release_has_no_more_is_drained(plane: ControlPlane, env: str) -> None:
    plane.deploy(env, api=WEB)

    settle(plane)

    assert {each.process for each in plane.replicas.values()} == {"api"}


def test_a_node_that_drains_is_emptied_with_all_replicas_ready_all_the_time(plane: ControlPlane, env: str) -> None:
    node = next(iter(plane.nodes))
    plane.set_node(node, "draining")

    first = do(plane)
    assert (len(allocated(first)), drained(first)) == (1, [])
    settle(plane)

    assert len(plane.running(env, "web")) == 3
    assert all(each.node_id != node for each in plane.replicas.values())


def test_a_disabled_node_keeps_what_it_has_and_takes_nothing(plane: ControlPlane, env: str) -> None:
    node = next(iter(plane.nodes))
    plane.set_node(node, "disabled")
    assert actions_of(plane) == []

    plane.scale(env, web=6)

    assert all(each.node_id != node for each in allocated(actions_of(plane)))


def test_what_was_on_an_offline_node_is_ended_and_replaced_by_no_more_than_may_run(
    plane: ControlPlane, env: str
) -> None:
    node = next(iter(plane.nodes))
    lost = [each for each, replica in plane.replicas.items() if replica.node_id == node]
    plane.set_node(node, "offline")

    first = do(plane)

    [end] = [each for each in first if isinstance(each, EndLost)]
    assert set(end.instance_ids) == set(lost)
    assert len(allocated(first)) == 1
    settle(plane)
    assert len(plane.running(env, "web")) == 3


def test_a_failed_instance_is_its_nodes_to_start_again(plane: ControlPlane, env: str) -> None:
    plane.report(next(iter(plane.replicas)), "failed", reason_code="exited")

    assert actions_of(plane) == []
    assert len(plane.running(env, "web")) == 3


def test_after_a_failed_deploy_what_works_stays_and_what_does_not_goes(plane: ControlPlane, env: str) -> None:
    before = set(plane.replicas)
    deploy = plane.deploy(env, broken=True, web=WEB)
    do(plane)
    [new] = set(plane.replicas) - before
    fail(plane, env, deploy)

    assert drained(actions_of(plane)) == [new]
    do(plane)
    assert allocated(actions_of(plane)) == []


@pytest.mark.parametrize("what", ["deploy", "scale", "config", "secret"])
def test_anything_declared_ends_the_pause(plane: ControlPlane, env: str, what: str) -> None:
    deploy = plane.deploy(env, broken=True, web=WEB)
    fail(plane, env, deploy)
    assert plane.world().envs[env].paused

    match what:
        case "deploy":
            plane.deploy(env, web=WEB)
        case "scale":
            plane.scale(env, web=2)
        case "config":
            plane.configure(env, MODE="new")
        case "secret":
            plane.set_secret(env)

    assert not plane.world().envs[env].paused


def test_while_paused_what_is_lost_is_replaced(plane: ControlPlane, env: str) -> None:
    deploy = plane.deploy(env, broken=True, web=WEB)
    fail(plane, env, deploy)
    node = next(iter(plane.nodes))

    plane.set_node(node, "offline")
    do(plane)
    do(plane)

    assert len(plane.running(env, "web")) == 3


def test_an_action_says_why_and_what_caused_it(plane: ControlPlane, env: str) -> None:
    plane.scale(env, web=4)

    [placed] = allocated(actions_of(plane))

    assert placed.cause == plane.position
    assert placed.reason == "web: 4 wanted, 3 ready"
