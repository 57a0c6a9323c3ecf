"""What one process needs: instances allocated, and others drained, within the bounds of a rollout.

Everything is a rollout: a scaled process, another release, other variables or secrets, a node that gives its instances
away. Wanted are so many of the present revision; what is not that is outdated, and replaced.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import count, islice
from typing import NamedTuple

import msgspec

from keelson.scheduler.domain.actions import MAX_PARTS, Allocate, AnyAction, Drain, Seen
from keelson.scheduler.domain.ids import instance_id
from keelson.scheduler.domain.model import Instance, Workload
from keelson.scheduler.domain.placement import Room, Spread
from keelson.scheduler.domain.world import World

# So many at once: the next plan goes on, and knows more by then.
MAX_ALLOCATED = 20
MAX_DRAINED = 20


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How many more than wanted may run, and how many fewer may be ready, for as long as others take their places."""

    surge: int = 1
    unavailable: int = 0

    def __post_init__(self) -> None:
        if self.surge < 0 or self.unavailable < 0 or self.surge + self.unavailable == 0:
            raise ValueError("a rollout needs room to move: surge or unavailable must be over 0")


class Standing(NamedTuple):
    """How a process stands: its instances that should run, lost ones apart, in the order of their allocation."""

    wanted: int
    current: Sequence[Instance]
    outdated: Sequence[Instance]
    lost: int

    @property
    def running(self) -> list[Instance]:
        """All that should run and may."""
        return [*self.current, *self.outdated]

    @property
    def ready(self) -> list[Instance]:
        """Those of them that serve."""
        return [each for each in self.running if each.is_ready]


class Steps(NamedTuple):
    """What to do about a process, in order; `unplaced` are instances for which no node has room."""

    actions: list[AnyAction]
    unplaced: int


def standing_of(world: World, workload: Workload, going: Collection[str] = ()) -> Standing:
    """Say how a process stands; nodes that are `going` offline count for gone.

    While its environment is paused, what runs is current whatever its revision.
    """
    env = world.envs.get(workload.env_id)
    revision = env.revisions.get(workload.process) if env else None
    wanted = env.replicas.get(workload.process, 0) if env and revision else 0
    paused = env is not None and env.paused
    current, outdated, lost = [], [], 0
    for instance in workload.instances.values():
        if instance.desired != "running":
            continue
        if world.is_lost(instance) or instance.node_id in going:
            lost += 1
        elif world.is_leaving(instance) or not (paused or instance.revision == revision):
            outdated.append(instance)
        else:
            current.append(instance)
    return Standing(wanted, current, outdated, lost)


def roll(world: World, workload: Workload, bounds: Bounds, room: Room, going: Collection[str] = ()) -> Steps:
    """Go as far with a process as the bounds allow for now."""
    standing = standing_of(world, workload, going)
    useless, ready = _surplus(standing, bounds)
    allocated, unplaced = _allocate(world, workload, standing, bounds, room)
    actions: list[AnyAction] = [*_drain(workload, standing, useless, ()), *allocated]
    if ready:
        actions += _drain(workload, standing, ready, _relied_on(standing, ready, bounds))
    return Steps(actions, unplaced)


def _surplus(standing: Standing, bounds: Bounds) -> tuple[list[Instance], list[Instance]]:
    """Give the instances that can go now: those that serve nobody, and those that serve and are not needed for it."""
    kept_first = sorted(standing.current, key=lambda each: not each.is_ready)
    excess = kept_first[standing.wanted :][::-1]
    leaving = [*standing.outdated, *excess]
    spare = len(standing.ready) - (standing.wanted - bounds.unavailable)
    useless = [each for each in leaving if not each.is_ready]
    ready = [each for each in leaving if each.is_ready]
    return useless[:MAX_DRAINED], ready[: max(0, min(spare, MAX_DRAINED))]


def _relied_on(standing: Standing, going: list[Instance], bounds: Bounds) -> list[Instance]:
    """Give as many that serve as must, when these are gone: current ones first, since they are to stay.

    A bundle holds a hundred commands; what is relied on beyond that is so unguarded.
    """
    needed = max(0, standing.wanted - bounds.unavailable)
    staying = [each for each in standing.ready if each not in going]
    return staying[: min(needed, MAX_PARTS - len(going))]


def _drain(
    workload: Workload, standing: Standing, going: Sequence[Instance], relied_on: Sequence[Instance]
) -> Iterator[Drain]:
    if going:
        yield Drain(
            env_id=workload.env_id,
            process=workload.process,
            instances=tuple(Seen(each.id, each.seq) for each in going),
            relied_on=tuple(Seen(each.id, each.seq) for each in relied_on),
            reason=f"{workload.process}: {_tally(standing)}",
            cause=workload.moved,
        )


def _allocate(
    world: World, workload: Workload, standing: Standing, bounds: Bounds, room: Room
) -> tuple[list[Allocate], int]:
    """Allocate what is missing, as far as the surge allows; what is lost counts until it is known to have ended."""
    running = len(standing.current) + len(standing.outdated) + standing.lost
    missing = min(standing.wanted - len(standing.current), standing.wanted + bounds.surge - running)
    if missing <= 0:
        return [], 0
    process = world.envs[workload.env_id].processes[workload.process]
    spread = Spread(world, standing.current)
    allocated: list[Allocate] = []
    for number, free_id in enumerate(islice(_free_ids(workload), min(missing, MAX_ALLOCATED))):
        node = room.place(process.memory_bytes, spread)
        if node is None:
            return allocated, missing - number
        allocated.append(
            Allocate(
                instance_id=free_id,
                env_id=workload.env_id,
                process=workload.process,
                node_id=node.id,
                reason=f"{workload.process}: {_tally(standing)}",
                cause=max(workload.moved, node.moved),
            )
        )
    return allocated, 0


def _free_ids(workload: Workload) -> Iterator[str]:
    """Give the ids that the next instances are to have."""
    ids = (instance_id(workload.env_id, workload.process, number) for number in count(workload.next))
    return (each for each in ids if each not in workload.ahead)


def _tally(standing: Standing) -> str:
    counted = {
        "ready": len(standing.ready),
        "starting or failed": len(standing.running) - len(standing.ready),
        "to be replaced": len(standing.outdated),
        "lost with their nodes": standing.lost,
    }
    parts = [f"{number} {what}" for what, number in counted.items() if number]
    return f"{standing.wanted} wanted, {', '.join(parts) or 'none there'}"
