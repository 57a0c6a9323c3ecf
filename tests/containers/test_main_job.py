"""The main job on containers: replicas and the database are killed, frozen, cut off and replaced under load.

Clients go through the front alone. Then code that shares nothing with Keelson's judges the log and folds the views, and
every request that failed must have a fault to blame.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest

from keelson.local.child import in_thread
from support.attempts import Attempts, Window
from support.containers import Composed, Container, is_healthy, pid_of, wait_until
from support.judging import judge
from support.load import Load
from support.reading import read_back
from support.repository import ROOT

WRITERS, READERS, NODES = 8, 2, 3
REPLICAS = {"command": 2, "query": 3, "projector": 2}
# How long a replica stays frozen or cut off: longer than a lease, and than the front takes to see it.
HELD_S = 6.0
TAKEN_OVER_S = 5.0
# A busy machine may take so many times longer; what it took is printed.
LEEWAY = 3
RECOVERED_S = 10.0
# Without a failure for so long, a fault is over.
QUIET_S = 3.0
SUCCEEDED = 0.9
# What the rules of the domain answer; anything else is a fault.
ANSWERS = frozenset({200, 404, 409, 422})


@dataclass
class Trial:
    """A stack under load, what was done to it, and what became of it."""

    stack: Composed
    attempts: Attempts = field(default_factory=Attempts)
    faults: list[Window] = field(default_factory=list)
    rolls: list[Window] = field(default_factory=list)
    takeovers: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """Name what is done within, and wait until its effects are over, which must be soon."""
        begun = time.monotonic()
        yield
        ended = time.monotonic()
        wait_until(lambda: self._is_quiet(ended), RECOVERED_S + QUIET_S + 1)
        settled = max([ended, *(each.ended for each in self.attempts.failures(ended))])
        self.faults.append(Window(name, begun, ended, settled))
        assert settled - ended <= RECOVERED_S, f"after {name}, requests failed for {settled - ended:.1f} s"

    def _is_quiet(self, since: float) -> bool:
        """Tell whether requests were answered for a while, and none failed."""
        start = time.monotonic() - QUIET_S
        recent = [each for each in self.attempts.made[-5000:] if each.begun >= start]
        paths = {each.path.split("/")[2] for each in recent}
        return start >= since and "commands" in paths and len(paths) > 1 and not self.attempts.failures(start)

    def roll(self, service: str) -> None:
        """Replace all replicas of a service one by one, as the Makefile does."""
        before = {each.id for each in self.stack.replicas(service)}
        begun = time.monotonic()
        self.stack.run("deploy/compose/roll.sh", service)
        ended = time.monotonic()
        self.rolls.append(Window(service, begun, ended, ended))
        after = {each.id for each in self.stack.replicas(service)}
        assert len(after) == len(before)
        assert not after & before

    # ---- faults of one replica ----

    def kill(self, service: str) -> None:
        """SIGKILL a replica, which must come back by itself."""
        victim = self._choose(service)
        pid = pid_of(victim)
        with self.fault(f"{service} killed"):
            self._watching_takeover(f"{service} killed", victim, lambda: self.stack.kill(victim))
            wait_until(lambda: is_healthy(victim) and pid_of(victim) != pid, 60)

    def freeze(self, service: str) -> None:
        """Pause a replica for a while."""
        victim = self._choose(service)
        name = f"{service} frozen"
        with self.fault(name), self.stack.paused(victim):
            self._watching_takeover(name, victim, lambda: time.sleep(0))
            time.sleep(HELD_S)

    def cut_off(self, service: str) -> None:
        """Part a replica from the database for a while."""
        victim = self._choose(service)
        name = f"{service} cut off"
        with self.fault(name), self.stack.cut_off(victim):
            self._watching_takeover(name, victim, lambda: time.sleep(0))
            time.sleep(HELD_S)

    def kill_database(self) -> None:
        """SIGKILL PostgreSQL, which must come back by itself."""
        (victim,) = self.stack.replicas("postgres")
        pid = pid_of(victim)
        with self.fault("postgres killed"):
            self.stack.kill(victim)
            wait_until(lambda: is_healthy(victim) and pid_of(victim) != pid, 60)

    def _choose(self, service: str) -> Container:
        """Choose a replica; of projectors, one that runs something."""
        replicas = self.stack.replicas(service)
        holders = self.stack.holders().values() if service == "projector" else []
        return max(replicas, key=lambda each: sum(holder.startswith(each.id[:12]) for holder in holders))

    def _watching_takeover(self, name: str, victim: Container, act: Callable[[], None]) -> None:
        """Do it, and note how long it takes until all that the victim ran is run by another."""
        held = {name: holder for name, holder in self.stack.holders().items() if holder.startswith(victim.id[:12])}
        begun = time.monotonic()
        act()
        if held:
            wait_until(lambda: all(self.stack.holders().get(each, held[each]) != held[each] for each in held), 30, 0.05)
            self.takeovers[f"{name}, {len(held)} projections"] = time.monotonic() - begun


def break_everything(trial: Trial) -> None:
    """Do to the stack all that is to be done, one after the other."""
    for service in ("command", "projector", "query"):
        trial.kill(service)
        trial.freeze(service)
        trial.cut_off(service)
    trial.kill_database()
    for service in ("command", "query", "projector"):
        trial.roll(service)
    with trial.fault("nothing"):
        time.sleep(HELD_S)


@pytest.mark.timeout(600)
async def test_nothing_acknowledged_is_lost_and_only_faults_make_requests_fail(stack: Composed) -> None:
    await in_thread(lambda: tell_the_demo(stack))
    await in_thread(lambda: scale(stack))
    async with alone(stack):
        await trial_by_load(stack)


@asynccontextmanager
async def alone(stack: Composed) -> AsyncIterator[None]:
    """Stop the scheduler: what the load promises is held against all that is written, and so nobody else may write."""
    await in_thread(lambda: stack.compose("stop", "scheduler"))
    try:
        yield
    finally:
        await in_thread(lambda: stack.compose("start", "scheduler"))


async def trial_by_load(stack: Composed) -> None:
    """Load the stack while it is broken, and judge what it answered and wrote."""
    (before,) = await in_thread(lambda: stack.select("SELECT to_jsonb(position) FROM log.head"))
    trial = Trial(stack)
    load = Load([stack.command_url], stack.operator_token, seed=1)
    try:
        reads = await run_under_load(trial, load)
        events, views = await in_thread(stack.read_when_caught_up)
    except BaseException:
        print(await in_thread(lambda: stack.compose("logs", "--no-color", "--tail", "40")))  # noqa: T201 - to look at
        raise
    finally:
        tell(trial, load)
    judge(load, events, views, after=before)
    assert not trial.attempts.unexcused(trial.faults)
    assert not [each for each in trial.attempts.failures() if any(roll.touches(each) for roll in trial.rolls)]
    outcomes = trial.attempts.summary()
    assert sum(count for outcome, count in outcomes.items() if outcome in ANSWERS) >= SUCCEEDED * outcomes.total()
    assert {outcome for outcome in outcomes if isinstance(outcome, int) and outcome < 500} <= ANSWERS
    assert len(trial.takeovers) == 3
    assert max(trial.takeovers.values()) <= LEEWAY * TAKEN_OVER_S
    assert reads > 100
    await in_thread(lambda: all_do_their_part(stack))
    await in_thread(lambda: keelson_agrees(stack))


async def run_under_load(trial: Trial, load: Load) -> int:
    """Load the stack while it is broken; give how many writes were read back."""
    stop = asyncio.Event()
    async with (
        aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=40, sock_connect=5),
            connector=aiohttp.TCPConnector(limit=2 * (WRITERS + READERS)),
            trace_configs=[trial.attempts.trace()],
        ) as session,
        asyncio.TaskGroup() as group,
    ):
        await load.enroll(session, NODES)
        for writer in range(WRITERS):
            group.create_task(load.write(session, writer, stop))
        url = trial.stack.query_url
        readers = [group.create_task(read_back(session, url, load, stop)) for _ in range(READERS)]
        try:
            await in_thread(lambda: break_everything(trial))
        finally:
            stop.set()
    return sum(reader.result() for reader in readers)


def tell_the_demo(stack: Composed) -> None:
    """Run the demo against the stack, as a user does."""
    told = stack.run(sys.executable, "-m", "keelson.local", "demo")
    assert "acorn-bakery" in told


def scale(stack: Composed) -> None:
    """Run several of each, and wait until the front knows them."""
    stack.run("make", "scale", *(f"{service}={number}" for service, number in REPLICAS.items()))
    assert {service: len(stack.replicas(service)) for service in REPLICAS} == REPLICAS
    for service in ("command", "query"):
        wait_until(lambda service=service: stack.front_knows(service) == REPLICAS[service], 10)  # type: ignore[misc]


def all_do_their_part(stack: Composed) -> None:
    """Check that every replica had requests, and that each projection is run by one projector and no other."""
    for service in ("command", "query"):
        for replica in stack.replicas(service):
            assert stack.metric(replica, "keelson_http_requests_total") > 0, replica.name
    held = [stack.metric(each, "keelson_projection_held") for each in stack.replicas("projector")]
    assert sum(held) == len(stack.holders()) == 3


def keelson_agrees(stack: Composed) -> None:
    """Let Keelson's own commands compare claims and views with the log, as an operator runs them in containers."""
    stack.compose("run", "--rm", "migrate", "claims", "verify")
    stack.compose("exec", "-T", "projector", "python", "-m", "keelson.projector", "verify")


def tell(trial: Trial, load: Load) -> None:
    """Print what happened: it is worth seeing."""
    outcomes = dict(trial.attempts.summary())
    lines = [f"{len(load.acknowledged)} acknowledged of {len(load.answered)}; requests by outcome: {outcomes}"]
    for each in trial.faults:
        failed = sum(each.touches(attempt) for attempt in trial.attempts.failures())
        took = each.ended - each.begun
        lines.append(f"  {each.name:18} {took:5.1f} s, {failed:4} failed, the last {each.recovered_s:.1f} s after it")
    for each in trial.rolls:
        failed = sum(each.touches(attempt) for attempt in trial.attempts.failures())
        lines.append(f"  {each.name} rolled in {each.ended - each.begun:.1f} s, {failed} failed")
    lines += [
        f"  {name}: taken over in {seconds:.1f} s (at most {TAKEN_OVER_S:g})"
        for name, seconds in trial.takeovers.items()
    ]
    print("\n" + "\n".join(lines))  # noqa: T201


def test_make_knows_the_programs_that_are_run_here() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "roll", "service=query"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout
    assert shown.split() == ["deploy/compose/roll.sh", "query"]
