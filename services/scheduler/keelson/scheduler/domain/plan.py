"""The plan: what to do now, as a function of the world and of nothing else."""

from collections.abc import Mapping
from typing import NamedTuple

from keelson.scheduler.domain.actions import AnyAction
from keelson.scheduler.domain.deploys import advance
from keelson.scheduler.domain.nodes import end_lost, watch
from keelson.scheduler.domain.placement import Room
from keelson.scheduler.domain.rollout import Bounds, roll
from keelson.scheduler.domain.signs import Signs
from keelson.scheduler.domain.world import World


class Plan(NamedTuple):
    """Actions in order, and for how many instances no node has room, by environment and process."""

    actions: list[AnyAction]
    unplaced: Mapping[str, Mapping[str, int]]


def plan(world: World, bounds: Bounds, signs: Signs) -> Plan:
    """Plan from where the world is to what is declared: the same world gives the same plan, on whatever machine.

    A plan is a step, not the whole way: what must wait for something to become ready is in a later one. A world in
    which everything is as it should be gives an empty plan.
    """
    states = [*watch(world, signs)]
    going = {each.node.id for each in states if each.state == "offline"}
    returning = {each.node.id for each in states} - going
    actions: list[AnyAction] = [*states, *end_lost(world, returning)]
    room = Room(world, signs.refusing | signs.silent)
    unplaced: dict[str, dict[str, int]] = {}
    for workload in world.all_workloads():
        steps = roll(world, workload, bounds, room, going)
        actions += steps.actions
        if steps.unplaced:
            unplaced.setdefault(workload.env_id, {})[workload.process] = steps.unplaced
    for env_id, env in sorted(world.envs.items()):
        actions += advance(world, env, signs.overdue, unplaced.get(env_id, {}), going)
    return Plan(actions, unplaced)
