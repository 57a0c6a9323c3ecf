"""Nodes under random faults, by seed: what they are told is what the log wants of them, and in the end they do it.

Agents follow their nodes' desired state and report, through proxies that cut and stall, to services that restart, while
an operator places instances and lets them go, and epochs begin. Beside each agent two more listen. What everybody was
told is held against an independent fold of the log, and so is, in the end, what runs and what was reported.

KEELSON_TEST_TIMES and KEELSON_TEST_SEEDS do what they do for the feed's model.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest

from keelson.agent.reports import Reports
from keelson.client.commands.instance import ReportStatus
from keelson.query.desired import snapshots
from keelson.query.desired.snapshots import Reading, Snapshot
from keelson.query.desired.watching import Watching
from keelson.query.feed import frames
from support.convergence_run import Plan, run_convergence
from support.database import Cluster

TIMES = int(os.environ.get("KEELSON_TEST_TIMES", "1"))
SEEDS = [int(seed) for seed in os.environ.get("KEELSON_TEST_SEEDS", "").split(",") if seed] or range(2 * TIMES)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients come back at once."""
    monkeypatch.setattr(frames, "RETRY_MS", (10, 50))


@pytest.mark.parametrize("seed", SEEDS)
async def test_nodes_come_to_do_what_the_log_wants(cluster: Cluster, seed: int) -> None:
    faults = await run_convergence(cluster, seed, Plan())
    assert not faults, f"seed {seed}: {len(faults)} faults, the first {faults[:5]}"


Plant = Callable[[pytest.MonkeyPatch], None]


def _look_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look when a stream begins, and hear of nothing that changes afterwards."""

    def hear(self: Watching, _quiet_to: int) -> None:
        self._heard = max(self._heard, self._hub.end)

    monkeypatch.setattr(Watching, "hear", hear)


def _confirm_what_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Confirm what was told last as of the head, whether or not the view has got there."""
    monkeypatch.setattr(Watching, "confirmed", property(lambda self: self._hub.end))
    monkeypatch.setattr(Watching, "is_current", property(lambda _self: True))


def _change(monkeypatch: pytest.MonkeyPatch, change: Callable[[Snapshot], Snapshot]) -> None:
    reading_of = snapshots._reading_of

    def changed(rows: Any, key: str) -> Reading:
        reading = reading_of(rows, key)
        told = None if reading.snapshot is None else change(reading.snapshot)
        return Reading(reading.position, reading.epoch, told)

    monkeypatch.setattr(snapshots, "_reading_of", changed)


def _count_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take for the version how much there is to do."""
    _change(monkeypatch, lambda told: Snapshot(len(told.items) // 100, told.digest, told.items, told.position))


def _digest_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the digest of the version alone."""
    _change(monkeypatch, lambda told: Snapshot(told.version, f"{told.version:064x}", told.items, told.position))


def _lose_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget that an instance is ready, before it could be told."""
    tell = Reports.tell

    def tell_some(self: Reports, report: ReportStatus) -> None:
        if report.status != "ready":
            tell(self, report)

    monkeypatch.setattr(Reports, "tell", tell_some)


_PLAN = Plan(steps=6, faults={"cut": 1, "restart_agent": 1}, doomed=0.1, patience_s=1.0)

BUGS: dict[str, tuple[str, Plant]] = {
    "a change unnoticed": ("reliable", _look_only_once),
    "confirmed without looking": ("reliable", _confirm_what_arrived),
    "versions that go back": ("ordered", _count_what_there_is),
    "a digest of something else": ("faithful", _digest_something_else),
    "reports that are lost": ("faithful", _lose_reports),
}


@pytest.mark.parametrize("bug", BUGS)
async def test_planted_bugs_are_seen(cluster: Cluster, bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one of some seeds, mostly the first, and as a breach of what they break."""
    guarantee, plant = BUGS[bug]
    plant(monkeypatch)
    seen: set[str] = set()
    for seed in range(12):
        seen |= {fault.guarantee for fault in await run_convergence(cluster, seed, _PLAN)}
        if guarantee in seen:
            return
    pytest.fail(f"{bug} was not seen, but {sorted(seen)}")
