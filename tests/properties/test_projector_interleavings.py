"""Replicas, rebuilds and a reader of the projector, their statements interleaved: readers see what the log says.

The processes run the service's own runner and the operator's own rebuild, each statement of which is a step. Between
any two of them events arrive, leases lapse without their holders' hearing of it, notifications come, come twice or get
lost, connections break, replies to what was done get lost, and processes die.
"""

import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from keelson.events import REGISTRY
from keelson.log.database import Database, Pool
from keelson.projector import checkpoints, pages, rebuild
from keelson.projector.applier import Applier
from keelson.projector.batch import Batch
from keelson.projector.folding import Folded
from keelson.projector.writer import write_rows
from support.database import Cluster
from support.interleaving import Process
from support.projector_stage import POLL_INTERVAL_S, PROJECTIONS, REPLICAS, ProjectorStage, projector_staged

# How many times as many examples as usual.
TIMES = int(os.environ.get("KEELSON_TEST_TIMES", "1"))

# Where it matters who comes first: in a swap, the checkpoint about to be locked, and about to be replaced; else a page
# read, rows written but not committed, a checkpoint about to move.
SWAP_PLACES = ["-- Gives a projection's position and keeps", "-- Puts a projection where"]
PLACES = ["COMMIT", "-- Gives the events after", "-- Moves a checkpoint", *SWAP_PLACES]
# More statements than any page, or any rebuild's way to its swap, takes.
STRETCH = 90
# How many steps an example has.
STEPS = 20

_whose = st.integers(0, 11)
_picks = st.integers(0, 2)


class Interleavings(RuleBasedStateMachine):
    """Steps of replicas and rebuilds, and what befalls them."""

    def __init__(self, projector: ProjectorStage) -> None:
        super().__init__()
        self._projector = projector
        self._stage = projector.stage
        self._failed = False
        self._do(projector.begin())

    def _do(self, work: Any) -> None:
        self._failed = True
        self._stage.run(work)
        self._stage.run(self._projector.check())
        self._failed = False

    def _process(self, number: int) -> Process:
        processes = self._projector.processes
        return processes[number % len(processes)]

    @rule(numbers=st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True))
    def append(self, numbers: list[int]) -> None:
        """Append a command of so many events."""
        self._do(self._projector.append(numbers))

    @rule(who=_whose, pick=_picks, statements=st.integers(1, 9))
    def go_on(self, who: int, pick: int, statements: int) -> None:
        """Let a process go on a little."""
        self._do(self._go_on(self._process(who), pick, statements))

    @rule(who=_whose, place=st.sampled_from(PLACES))
    def go_until(self, who: int, place: str) -> None:
        """Let a process go on until it comes, again, to a place where it may well be overtaken."""
        self._do(self._go_until(self._process(who), place))

    @rule(who=_whose, place=st.sampled_from(PLACES), lapse=st.booleans())
    def overtake(self, who: int, place: str, *, lapse: bool) -> None:
        """Let a process freeze in such a place, and all the others go on as far as they can, with one event more."""
        self._do(self._overtake(self._process(who), place, lapse=lapse))

    async def _overtake(self, frozen: Process, place: str, *, lapse: bool = False) -> None:
        await self._go_until(frozen, place)
        if lapse:
            await self._projector.lapse()
        await self._give_work()
        for process in self._projector.processes:
            if process is not frozen:
                await self._go_on(process, 0, STRETCH)

    async def _give_work(self) -> None:
        await self._projector.append([0])
        await self._stage.pass_time(POLL_INTERVAL_S)

    async def _go_until(self, process: Process, place: str) -> None:
        await self._give_work()
        for _ in range(STRETCH):
            await self._go_on(process, 0, 1)
            if _find(process, place) is not None:
                return

    async def _go_on(self, process: Process, pick: int, statements: int, *, lose_reply: bool = False) -> None:
        for _ in range(statements):
            if process.waiting:
                await self._stage.step(process, pick, lose_reply=lose_reply)

    @rule(replica=st.integers(0, REPLICAS - 1), times=st.sampled_from([1, 0, 2]))
    def notify(self, replica: int, times: int) -> None:
        """Deliver a replica's notifications, or lose them, or deliver each twice."""
        self._projector.replicas[replica].notifications.deliver(times)
        self._do(self._stage.settle())

    @rule()
    def time_passes(self) -> None:
        """Let it be time for everybody to look at the log, and to renew the leases."""
        self._do(self._stage.pass_time(POLL_INTERVAL_S))

    @rule()
    def leases_lapse(self) -> None:
        """Let the leases lapse; and let it be time to take them."""
        self._do(self._lapse())

    async def _lapse(self) -> None:
        await self._projector.lapse()
        await self._stage.pass_time(POLL_INTERVAL_S)

    @rule(name=st.sampled_from(sorted(PROJECTIONS)), place=st.sampled_from(["", *SWAP_PLACES]), lapse=st.booleans())
    def start_rebuild(self, name: str, place: str, *, lapse: bool) -> None:
        """Begin a rebuild, which takes over from another if leases lapse; and let it be overtaken in such a place."""
        self._do(self._start_rebuild(name, place, lapse=lapse))

    async def _start_rebuild(self, name: str, place: str, *, lapse: bool) -> None:
        if lapse:
            await self._projector.lapse()
        await self._projector.start_rebuild(name)
        if place:
            await self._overtake(self._projector.rebuilds[-1], place)

    @rule(who=_whose, place=st.sampled_from(["", *PLACES]), how=st.sampled_from(["crash", "cut", "lose reply", "wait"]))
    def go_wrong(self, who: int, place: str, how: str) -> None:
        """Let something befall a process: where it is, or in such a place; a reply is best lost to a commit."""
        self._do(self._go_wrong(self._process(who), "COMMIT" if how == "lose reply" else place, how))

    async def _go_wrong(self, process: Process, place: str, how: str) -> None:
        if place:
            await self._go_until(process, place)
        match how:
            case "crash":
                await self._projector.crash(process)
            case "cut":
                await self._stage.cut(process)
            case "lose reply":
                await self._go_on(process, _find(process, place) or 0, 1, lose_reply=True)
            case _:
                await self._stage.time_out(process)

    def teardown(self) -> None:
        """Let all settle, if all went well so far."""
        try:
            if not self._failed:
                self._do(self._projector.settle_all())
        finally:
            self._stage.run(self._projector.end())


def _find(process: Process, place: str) -> int | None:
    """Give which of the statements that wait to be let through is such a place."""
    return next((index for index, statement in enumerate(process.waiting) if statement.startswith(place)), None)


def _run(cluster: Cluster, *, poll_interval_s: float = POLL_INTERVAL_S, **options: Any) -> None:
    chosen = settings(
        deadline=None, suppress_health_check=list(HealthCheck), database=None, stateful_step_count=STEPS, **options
    )
    with projector_staged(cluster, poll_interval_s=poll_interval_s) as projector:
        run_state_machine_as_test(lambda: Interleavings(projector), settings=chosen)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing depend on how long a step takes: who waits for a lock waits until he is told that it was too long."""
    monkeypatch.setattr(rebuild, "SWAP_LOCK_TIMEOUT_MS", 600_000)
    monkeypatch.setattr(pages, "KEPT_S", 3600.0)


def test_whatever_interleaves_readers_see_what_the_log_says(cluster: Cluster) -> None:
    _run(cluster, max_examples=25 * TIMES, derandomize=TIMES == 1)


def write_the_checkpoint_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant F16: the checkpoint is moved in a transaction of its own."""

    async def write(self: Applier, folded: Folded, rate: float) -> None:
        batch = folded.batch
        async with self._pool.acquire() as connection:
            await checkpoints.move(connection, self._projection, batch, rate)
        async with self._pool.acquire() as connection, connection.transaction():
            await write_rows(connection, folded.fold)

    monkeypatch.setattr(Applier, "_write", write)


def move_again_from_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant: a page that got no reply moves the checkpoint again, from where it is by then, past others."""
    original = Applier._write

    async def write(self: Applier, folded: Folded, rate: float) -> None:
        try:
            await original(self, folded, rate)
        except ConnectionError:
            async with self._pool.acquire() as connection, connection.transaction():
                checkpoint = await checkpoints.read_checkpoint(connection, self._projection.name)
                at = checkpoint.position if checkpoint else 0
                batch = Batch(at, folded.batch.envelopes, at, REGISTRY, epoch=folded.batch.epoch)
                await checkpoints.move(connection, self._projection, batch, rate)

    monkeypatch.setattr(Applier, "_write", write)


def _plant_sql(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, old: str, new: str) -> None:
    statement = vars(module)[name]
    assert old in statement, f"{name} no longer says {old!r}: plant the bug anew"
    monkeypatch.setattr(module, name, statement.replace(old, new))


def set_without_comparing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant F17: whoever comes moves the checkpoint, wherever it is by then."""
    _plant_sql(monkeypatch, checkpoints, "_MOVE", "position = $3\n", "$3::bigint IS NOT NULL\n")


def swap_without_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant F23: the checkpoint may move between what the swap reads and the swap."""
    _plant_sql(monkeypatch, rebuild, "_LOCK_CHECKPOINT", " FOR UPDATE", "")


def swap_without_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant F23: what came since the last page is not applied before the swap."""

    async def read(db: Database, after: int, limit: int) -> Batch:
        nothing = Batch(after, [], after, REGISTRY, epoch="")
        return await pages.read_batch(db, after, limit) if isinstance(db, Pool) else nothing

    monkeypatch.setattr(rebuild, "read_batch", read)


PLANTED = {
    "f16_checkpoint_apart": write_the_checkpoint_apart,
    "f17_no_compare": set_without_comparing,
    "moved_twice": move_again_from_where_it_is,
    "f23_no_lock": swap_without_the_lock,
    "f23_no_rest": swap_without_the_rest,
}


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
def test_planted_bugs_of_the_projector_are_found(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    plant(monkeypatch)

    with pytest.raises(AssertionError):
        _run(cluster, max_examples=200, phases=[Phase.generate], derandomize=True)


def test_planted_f19_a_notification_lost_without_a_poll_is_found(cluster: Cluster) -> None:
    with pytest.raises(AssertionError, match="came to the head"):
        _run(cluster, poll_interval_s=1e6, max_examples=200, phases=[Phase.generate], derandomize=True)
