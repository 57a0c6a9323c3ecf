"""Nodes that fall silent, and those that are heard again."""

import pytest

from keelson.scheduler.domain.actions import EndLost, SetNodeState
from keelson.scheduler.domain.plan import plan
from keelson.scheduler.domain.rollout import Bounds
from keelson.scheduler.domain.signs import Signs
from support.convergence import ControlPlane, make_process


def set_states(plane: ControlPlane, *, silent: set[str], heard: set[str]) -> list[SetNodeState]:
    signs = Signs(silent=frozenset(silent), heard=frozenset(heard), silent_s=12)
    return [each for each in plan(plane.world(), Bounds(), signs).actions if isinstance(each, SetNodeState)]


def two_nodes() -> tuple[ControlPlane, str, str]:
    plane = ControlPlane()
    return plane, plane.enroll(), plane.enroll()


@pytest.mark.parametrize("state", ["active", "draining"])
def test_a_silent_node_is_offline_and_then_what_it_was_when_it_is_heard_again(state: str) -> None:
    plane, quiet, other = two_nodes()
    plane.set_node(quiet, state)  # type: ignore[arg-type]

    [lost] = set_states(plane, silent={quiet}, heard={other})
    assert (lost.node.id, lost.state, lost.message) == (quiet, "offline", "no heartbeat for 12 s")
    plane.perform(lost, plane.position)
    assert set_states(plane, silent={quiet}, heard={other}) == []

    [found] = set_states(plane, silent=set(), heard={quiet, other})
    assert (found.node.id, found.state) == (quiet, state)


def test_a_disabled_node_may_be_silent() -> None:
    plane, quiet, other = two_nodes()
    plane.set_node(quiet, "disabled")

    assert set_states(plane, silent={quiet}, heard={other}) == []


def test_when_all_are_silent_none_is_lost() -> None:
    plane, one, other = two_nodes()

    assert set_states(plane, silent={one, other}, heard=set()) == []


def test_whom_an_operator_took_offline_is_not_brought_back() -> None:
    plane, one, other = two_nodes()
    plane.set_node(one, "offline", "its fan is broken")

    assert set_states(plane, silent=set(), heard={one, other}) == []


def test_what_is_on_a_lost_node_is_ended_only_while_it_is_offline() -> None:
    plane, one, _ = two_nodes()
    plane.deploy(plane.create_env(), web=make_process())
    for action in plan(plane.world(), Bounds(), Signs()).actions:
        plane.perform(action, plane.position)
    [(placed, replica)] = plane.replicas.items()
    plane.set_node(replica.node_id, "offline", "no heartbeat for 12 s")

    [end] = [each for each in plan(plane.world(), Bounds(), Signs()).actions if isinstance(each, EndLost)]

    assert end.instance_ids == (placed,)
    assert end.node.seq == plane.world().nodes[replica.node_id].seq
    assert end.reason == f"node {replica.node_id} is offline: no heartbeat for 12 s"
    assert one in plane.nodes
