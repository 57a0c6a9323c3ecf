"""Nodes that fall silent, and those that are heard again: as signs say it, and as heartbeats make the signs."""

import random
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

import pytest

from keelson.scheduler.domain.actions import EndLost, SetNodeState
from keelson.scheduler.domain.plan import plan
from keelson.scheduler.domain.rollout import Bounds
from keelson.scheduler.domain.signs import Signs
from keelson.scheduler.heartbeats import Heartbeats
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


@pytest.mark.parametrize("message", ["its fan is broken", None])
def test_a_lost_one_that_an_operator_takes_offline_is_not_brought_back(message: str | None) -> None:
    plane, quiet, other = two_nodes()
    [lost] = set_states(plane, silent={quiet}, heard={other})
    plane.perform(lost, plane.position)

    plane.set_node(quiet, "offline", message)

    assert set_states(plane, silent=set(), heard={quiet, other}) == []


def test_what_is_on_a_lost_node_is_ended_only_while_it_is_offline() -> None:
    plane, one, _ = two_nodes()
    plane.deploy(plane.create_env(), web=make_process())
    for action in plan(plane.world(), Bounds(), Signs()).actions:
        plane.perform(action, plane.position)
    [(placed, replica)] = plane.replicas.items()
    plane.set_node(replica.node_id, "offline", "no heartbeat for 12 s")

    [end] = [each for each in plan(plane.world(), Bounds(), Signs()).actions if isinstance(each, EndLost)]
    plane.perform(end, plane.position)

    assert plane.world().nodes[replica.node_id].was_lost, "the guard has changed what it guards"
    assert end.instance_ids == (placed,)
    assert end.node.seq == plane.world().nodes[replica.node_id].seq
    assert end.reason == f"node {replica.node_id} is offline: no heartbeat for 12 s"
    assert one in plane.nodes


def test_what_an_operator_wrote_of_a_node_is_a_reason_in_one_line() -> None:
    plane, *_ = two_nodes()
    plane.deploy(plane.create_env(), web=make_process())
    for action in plan(plane.world(), Bounds(), Signs()).actions:
        plane.perform(action, plane.position)
    [replica] = plane.replicas.values()
    plane.set_node(replica.node_id, "offline", "its fan\r\nis\x01 bröken\x7f: " + "x" * 500)

    [end] = [each for each in plan(plane.world(), Bounds(), Signs()).actions if isinstance(each, EndLost)]

    assert end.reason.startswith(f"node {replica.node_id} is offline: its fan is bröken : xxx")
    assert len(end.reason) == 500


BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
BEAT_S = 3.0
FOR_EVER = 1e9
Span = tuple[float, float]


class Fleet:
    """Ten nodes that beat every 3 s, each in its turn, are looked at every second, and planned for by what is seen."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.plane = ControlPlane()
        self.turns = {self.plane.enroll(): chance.uniform(0, BEAT_S) for _ in range(10)}
        self.nodes = list(self.turns)
        # When.
        self.lost: dict[str, int] = {}
        self.found: dict[str, int] = {}

    def watch(self, until_s: int, cuts: Mapping[str, Span], outages: Collection[Span] = ()) -> None:
        """Look until then; a node's heartbeats do not arrive in its cut, and nobody answers in an outage."""
        heartbeats = Heartbeats(12.0, longest_s=2.0)
        for now in range(until_s):
            if any(began <= now < ended for began, ended in outages):
                heartbeats.failed()
                continue
            heartbeats.looked(now, {each: self._last_beat(each, now, cuts, outages) for each in self.nodes})
            signs = Signs(silent=heartbeats.silent, heard=heartbeats.heard, silent_s=12)
            for action in plan(self.plane.world(), Bounds(), signs).actions:
                assert isinstance(action, SetNodeState)
                self.plane.perform(action, self.plane.position)
                (self.lost if action.state == "offline" else self.found)[action.node.id] = now

    def _last_beat(
        self, node_id: str, now: float, cuts: Mapping[str, Span], outages: Collection[Span]
    ) -> datetime | None:
        missed = [cuts.get(node_id, (0, 0)), *outages]
        at = self.turns[node_id] + (now - self.turns[node_id]) // BEAT_S * BEAT_S
        while any(began <= at < ended for began, ended in missed):
            at -= BEAT_S
        return BEGAN + timedelta(seconds=at) if at >= 0 else None


@pytest.fixture(params=range(10))
def fleet(request: pytest.FixtureRequest) -> Fleet:
    return Fleet(request.param)


def test_all_that_are_cut_off_at_once_are_kept_whatever_their_turns(fleet: Fleet) -> None:
    fleet.watch(100, dict.fromkeys(fleet.nodes, (30, FOR_EVER)))

    assert not fleet.lost


def test_all_that_are_back_after_it_are_kept_whoever_beats_first(fleet: Fleet) -> None:
    fleet.watch(100, dict.fromkeys(fleet.nodes, (30, 60)))

    assert not fleet.lost


def test_half_of_them_are_lost_as_long_as_the_others_are_heard(fleet: Fleet) -> None:
    half = fleet.nodes[:5]

    fleet.watch(100, dict.fromkeys(half, (30, 60)))

    assert sorted(fleet.lost) == sorted(fleet.found) == half


def test_who_is_not_back_when_the_others_are_is_lost_then(fleet: Fleet) -> None:
    dead, *others = fleet.nodes

    fleet.watch(100, dict.fromkeys(others, (30, 60)) | {dead: (30, FOR_EVER)})

    assert fleet.lost.keys() == {dead}
    assert 71 <= fleet.lost[dead] <= 75


def test_an_outage_brings_nobody_back_who_is_dead(fleet: Fleet) -> None:
    dead = fleet.nodes[0]

    fleet.watch(100, {dead: (20, FOR_EVER)}, outages=[(50, 60)])

    assert fleet.lost.keys() == {dead}
    assert not fleet.found
