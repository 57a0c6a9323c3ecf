"""What to do next: from what should be and what is, and from nothing else. No I/O, no clock, no chance."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, TypeAlias

from keelson.client.reads.nodes import DesiredInstance

# running: started, or to be started again. draining and stopping: on its way out. ended: nothing of it runs any more.
Phase = Literal["running", "draining", "stopping", "ended"]


class Observed(NamedTuple):
    """An instance as it is here."""

    phase: Phase
    spec_hash: str


class Start(NamedTuple):
    """Begin to run it, and keep it running."""

    instance: DesiredInstance


class Drain(NamedTuple):
    """Say that it drains, let it serve a little longer, stop it, and say so."""

    instance_id: str


class Stop(NamedTuple):
    """Stop it now, and say so."""

    instance_id: str


class SayStopped(NamedTuple):
    """Say that it has stopped: nothing of it runs here."""

    instance_id: str


class End(NamedTuple):
    """Stop it, and say nothing: nobody asks about it any more."""

    instance_id: str


class Forget(NamedTuple):
    """Remove what is left of it."""

    instance_id: str


Step: TypeAlias = Start | Drain | Stop | SayStopped | End | Forget


def reconcile(desired: Iterable[DesiredInstance], observed: Mapping[str, Observed]) -> tuple[Step, ...]:
    """Give the steps that lead from what is to what should be, in the order of the instances' ids.

    The same input gives the same steps. Where all is as it should be, or on its way there, there are none but to say
    again what has stopped. Once a step is taken and its end is observed, the next steps are those of another call: an
    instance whose spec is another than what runs is ended by one, and started by a later one.
    """
    wanted = {each.instance_id: each for each in desired}
    steps = (_step(wanted.get(key), observed.get(key), key) for key in sorted(wanted.keys() | observed.keys()))
    return tuple(step for step in steps if step is not None)


def _step(wanted: DesiredInstance | None, is_: Observed | None, key: str) -> Step | None:
    phase = "ended" if is_ is None else is_.phase
    if wanted is None:
        return _step_of_unwanted(phase, key)
    if wanted.desired_state == "running":
        return _step_of_running(wanted, is_, key)
    if phase == "ended":
        return SayStopped(key)
    if wanted.desired_state == "draining":
        return Drain(key) if phase == "running" else None
    return Stop(key) if phase in ("running", "draining") else None


def _step_of_unwanted(phase: Phase, key: str) -> Step | None:
    if phase == "ended":
        return Forget(key)
    return End(key) if phase in ("running", "draining") else None


def _step_of_running(wanted: DesiredInstance, is_: Observed | None, key: str) -> Step | None:
    """Give the step for one that should run. What is on its way out is let go first."""
    if is_ is None or is_.phase == "ended":
        return Start(wanted)
    return End(key) if is_.phase == "running" and is_.spec_hash != wanted.spec_hash else None
