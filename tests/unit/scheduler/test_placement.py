"""On which node an instance goes."""

import random
from collections import Counter

import pytest

from keelson.events.ids import read_aggregate_type
from keelson.scheduler.domain.actions import Allocate
from keelson.scheduler.domain.ids import instance_id
from keelson.scheduler.domain.placement import Room, Spread
from keelson.scheduler.domain.plan import Plan, plan
from keelson.scheduler.domain.rollout import Bounds
from keelson.scheduler.domain.signs import Signs
from support.convergence import MIB, ControlPlane, make_process


def plan_of(plane: ControlPlane, **signs: frozenset[str]) -> Plan:
    return plan(plane.world(), Bounds(), Signs(**signs))  # type: ignore[arg-type]


def placed(made: Plan) -> list[str]:
    return [each.node_id for each in made.actions if isinstance(each, Allocate)]


def wanting(plane: ControlPlane, replicas: int, memory_mib: int = 100) -> str:
    env = plane.create_env()
    plane.deploy(env, web=make_process(memory_mib))
    plane.scale(env, web=replicas)
    return env


def test_replicas_are_spread_over_domains_first_and_then_over_nodes() -> None:
    plane = ControlPlane()
    zones = {plane.enroll(1000, zone=zone): zone for zone in ("a", "a", "a", "b")}
    wanting(plane, 6)

    nodes = placed(plan_of(plane))

    assert Counter(zones[each] for each in nodes) == {"a": 3, "b": 3}
    assert set(Counter(each for each in nodes if zones[each] == "a").values()) == {1}


def test_a_node_without_a_zone_is_a_domain_of_its_own() -> None:
    plane = ControlPlane()
    zoned = [plane.enroll(1000, zone="a") for _ in range(2)]
    alone = plane.enroll(1000)
    wanting(plane, 2)

    nodes = placed(plan_of(plane))

    assert alone in nodes
    assert len(set(nodes) & set(zoned)) == 1


def test_of_equals_the_one_with_the_most_memory_left_is_taken_then_the_first_by_id() -> None:
    plane = ControlPlane()
    first, roomy, _ = plane.enroll(500), plane.enroll(600), plane.enroll(500)
    wanting(plane, 1)
    assert placed(plan_of(plane)) == [roomy]

    plane.set_node(roomy, "disabled")
    assert placed(plan_of(plane)) == [first]


def test_memory_is_never_promised_twice_within_a_plan() -> None:
    plane = ControlPlane()
    nodes = [plane.enroll(250), plane.enroll(150)]
    one, other = wanting(plane, 2), wanting(plane, 2)

    made = plan_of(plane)

    assert Counter(placed(made)) == {nodes[0]: 2, nodes[1]: 1}
    assert made.unplaced == {other: {"web": 1}}
    assert one not in made.unplaced


@pytest.mark.parametrize("seed", range(20))
def test_among_many_nodes_it_is_the_one_that_the_rule_names(seed: int) -> None:
    """Held against the rule, told once more: fewest in the domain, then on the node, most memory left, first by id."""
    chance, plane = random.Random(seed), ControlPlane()
    for _ in range(30):
        labels = {"zone": chance.choice("abc")} if chance.random() < 0.7 else {}
        plane.enroll(chance.choice((200, 400, 800)), **labels)
    world = plane.world()
    room, spread = Room(world), Spread(world, [])
    free = {node_id: node.memory_bytes for node_id, node in world.nodes.items()}
    zones, nodes = Counter[str](), Counter[str]()

    for _ in range(80):
        memory = chance.choice((50, 100, 300)) * MIB
        fitting = [node for node in world.nodes.values() if free[node.id] >= memory]
        expected = min(
            fitting,
            key=lambda node: (zones[node.zone or node.id], nodes[node.id], -free[node.id], node.id),
            default=None,
        )
        assert room.place(memory, spread) == expected
        if expected is not None:
            free[expected.id] -= memory
            zones[expected.zone or expected.id] += 1
            nodes[expected.id] += 1


def test_what_drains_holds_its_memory_until_it_has_stopped() -> None:
    plane = ControlPlane()
    plane.enroll(100)
    env = wanting(plane, 1)
    for action in plan_of(plane).actions:
        plane.perform(action, plane.position)
    [held] = plane.replicas
    plane.report(held, "ready")
    plane.scale(env, web=0)
    for action in plan_of(plane).actions:
        plane.perform(action, plane.position)

    plane.scale(env, web=1)
    assert placed(plan_of(plane)) == []
    plane.report(held, "stopped")
    assert len(placed(plan_of(plane))) == 1


def test_only_active_nodes_that_do_not_refuse_take_instances() -> None:
    plane = ControlPlane()
    nodes = [plane.enroll() for _ in range(5)]
    for node, state in zip(nodes, ("draining", "disabled", "offline"), strict=False):
        plane.set_node(node, state)  # type: ignore[arg-type]
    wanting(plane, 3)

    assert set(placed(plan_of(plane, refusing=frozenset({nodes[3]})))) == {nodes[4]}


def test_a_rollout_leaves_the_new_ones_as_spread_as_the_old_ones_were() -> None:
    plane = ControlPlane()
    for zone in ("a", "b"):
        plane.enroll(1000, zone=zone)
    env = wanting(plane, 2)
    for _ in range(20):
        for action in plan_of(plane).actions:
            plane.perform(action, plane.position)
        for each, replica in list(plane.replicas.items()):
            plane.report(each, "stopped" if replica.desired == "draining" else "ready")
        if plane.envs[env].variables == {}:
            plane.configure(env, MODE="new")

    assert len({each.node_id for each in plane.running(env, "web")}) == 2


def test_ids_are_well_formed_and_of_one_instance_each() -> None:
    made = {instance_id(env, process, k) for env in ("env_1", "env_2") for process in "ab" for k in range(50)}

    assert len(made) == 200
    assert {read_aggregate_type(each) for each in made} == {"instance"}


def test_an_id_is_the_same_for_ever() -> None:
    assert instance_id("env_00000000000000000000000001", "web", 1) == "instance_441mvyse2teazc9csxp7hdj70x"
