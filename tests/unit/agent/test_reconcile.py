"""What to do next is a function of what should be and what is; done to its end, it leads from one to the other."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from keelson.agent.reconcile import (
    Drain,
    End,
    Forget,
    Observed,
    Phase,
    SayStopped,
    Start,
    Step,
    Stop,
    reconcile,
)
from keelson.client.reads.nodes import DesiredInstance
from support.instances import instance_id, wanted

OURS, OTHER = "0" * 64, "1" * 64
KEY = instance_id(1)
PHASES: Sequence[Phase] = ("running", "draining", "stopping", "ended")

Steps = Callable[[Iterable[DesiredInstance], Mapping[str, Observed]], Sequence[Step]]


def desired(state: str | None) -> list[DesiredInstance]:
    return [] if state is None else [wanted(1, desired_state=state)]


@pytest.mark.parametrize(
    ("state", "phase", "step"),
    [
        ("running", None, Start(wanted(1))),
        ("running", "running", None),
        ("running", "draining", None),
        ("running", "stopping", None),
        ("running", "ended", Start(wanted(1))),
        ("draining", None, SayStopped(KEY)),
        ("draining", "running", Drain(KEY)),
        ("draining", "draining", None),
        ("draining", "stopping", None),
        ("draining", "ended", SayStopped(KEY)),
        ("stopped", None, SayStopped(KEY)),
        ("stopped", "running", Stop(KEY)),
        ("stopped", "draining", Stop(KEY)),
        ("stopped", "stopping", None),
        ("stopped", "ended", SayStopped(KEY)),
        (None, "running", End(KEY)),
        (None, "draining", End(KEY)),
        (None, "stopping", None),
        (None, "ended", Forget(KEY)),
        (None, None, None),
    ],
)
def test_each_case_has_its_step(state: str | None, phase: Phase | None, step: Step | None) -> None:
    observed = {} if phase is None else {KEY: Observed(phase, OURS)}
    assert reconcile(desired(state), observed) == (() if step is None else (step,))


def test_one_that_runs_to_another_spec_is_ended_first() -> None:
    assert reconcile(desired("running"), {KEY: Observed("running", OTHER)}) == (End(KEY),)
    assert reconcile(desired("running"), {KEY: Observed("stopping", OTHER)}) == ()
    assert reconcile(desired("running"), {KEY: Observed("ended", OTHER)}) == (Start(wanted(1)),)


numbers = some.integers(1, 6)
worlds = some.tuples(
    some.dictionaries(numbers, some.sampled_from(["running", "draining", "stopped"])),
    some.dictionaries(numbers, some.builds(Observed, some.sampled_from(PHASES), some.sampled_from([OURS, OTHER]))),
)
World = tuple[dict[int, str], dict[int, Observed]]


@given(worlds, some.randoms(use_true_random=False))
def test_the_same_world_gives_the_same_steps_in_whichever_order_it_is_told(world: World, chance: random.Random) -> None:
    states, seen = world
    items = [wanted(number, desired_state=state) for number, state in states.items()]
    observed = {instance_id(number): each for number, each in seen.items()}
    steps = reconcile(items, observed)
    chance.shuffle(items)
    shuffled = list(observed.items())
    chance.shuffle(shuffled)
    assert reconcile(items, dict(shuffled)) == steps


class Machine:
    """A node whose steps take effect at once, and what is on its way out goes at the next tick."""

    def __init__(self, seen: Mapping[int, Observed]) -> None:
        self.observed = {instance_id(number): each for number, each in seen.items()}
        self.said: set[str] = set()

    def take(self, step: Step) -> None:
        """Take a step; fail if one that runs would be started."""
        match step:
            case Start(instance):
                assert self.observed.get(instance.instance_id, Observed("ended", "")).phase == "ended", "ran twice"
                self.observed[instance.instance_id] = Observed("running", instance.spec_hash)
            case Drain(key):
                self._enter(key, "draining")
            case Stop(key) | End(key):
                self._enter(key, "stopping")
            case SayStopped(key):
                self.said.add(key)
            case Forget(key):
                del self.observed[key]

    def tick(self) -> None:
        """Let what is on its way out be gone."""
        for key, each in list(self.observed.items()):
            if each.phase in ("draining", "stopping"):
                self._enter(key, "ended")

    def _enter(self, key: str, phase: Phase) -> None:
        self.observed[key] = Observed(phase, self.observed[key].spec_hash)


def converge(steps: Steps, world: World) -> None:
    """Take steps until there are none but to say again what was said; then all must be as it should be."""
    states, seen = world
    items = [wanted(number, desired_state=state) for number, state in states.items()]
    machine = Machine(seen)
    for _ in range(5):
        for step in steps(items, machine.observed):
            machine.take(step)
        machine.tick()
    running = {key for key, each in machine.observed.items() if each == Observed("running", OURS)}
    assert running == {instance_id(number) for number, state in states.items() if state == "running"}
    assert {key for key, each in machine.observed.items() if each.phase != "ended"} == running
    assert machine.said == {instance_id(number) for number, state in states.items() if state != "running"}
    assert machine.observed.keys() <= {instance_id(number) for number in states}


@given(worlds)
def test_steps_lead_to_what_should_be(world: World) -> None:
    converge(reconcile, world)


def ignores_specs(items: Iterable[DesiredInstance], observed: Mapping[str, Observed]) -> Sequence[Step]:
    return reconcile(items, {key: Observed(each.phase, OURS) for key, each in observed.items()})


def forgets_orphans(items: Iterable[DesiredInstance], observed: Mapping[str, Observed]) -> Sequence[Step]:
    return [step for step in reconcile(items, observed) if not isinstance(step, End)]


def starts_too_soon(items: Iterable[DesiredInstance], observed: Mapping[str, Observed]) -> Sequence[Step]:
    return reconcile(items, {key: each for key, each in observed.items() if each.phase != "stopping"})


@pytest.mark.parametrize("planted", [ignores_specs, forgets_orphans, starts_too_soon])
def test_what_does_not_lead_there_is_found(planted: Steps) -> None:
    found = 0
    for state, phase, spec_hash in product(["running", "draining", None], PHASES, [OURS, OTHER]):
        world = ({} if state is None else {1: state}, {1: Observed(phase, spec_hash)})
        try:
            converge(planted, world)
        except AssertionError:
            found += 1
    assert found


def test_steps_name_no_instance_twice() -> None:
    items = [wanted(number, desired_state="draining") for number in (3, 1, 2)]
    observed = {each.instance_id: Observed("running", each.spec_hash) for each in items}
    assert reconcile(items, observed) == (Drain(instance_id(1)), Drain(instance_id(2)), Drain(instance_id(3)))
    assert msgspec.json.encode(items[0])  # what is wanted can be kept
