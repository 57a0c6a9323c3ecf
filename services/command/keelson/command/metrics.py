"""Metrics of deciding and appending, for Prometheus."""

import asyncio
from contextlib import suppress

from prometheus_client import Counter, Histogram

from keelson.log.append import FAILURES, Appender, Failure
from keelson.log.database import UNAVAILABLE, Database
from keelson.log.decision import Done, KeyReused, KeyTaken, Moved, Outcome, OverLimit, Replayed
from keelson.log.queries import load

# How often it is asked whether the writer waits for the head's lock.
SAMPLED_EACH_S = 0.5

_WAITS_FOR_LOCK = load(__file__, "waits_for_lock")

GROUP_DECISIONS = Histogram(
    "keelson_append_group_decisions", "Decisions in an append group", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
GROUP_SECONDS = Histogram(
    "keelson_append_group_seconds",
    "From sending an append group to its outcome",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)
EVENTS = Counter("keelson_append_events_total", "Events that this replica appended")
_OUTCOMES = Counter("keelson_append_decisions_total", "Decisions submitted, by what became of them", ("outcome",))
_FAILURES = Counter("keelson_append_failures_total", "Append groups that did not come to an outcome", ("kind",))
_RERUNS = Counter("keelson_command_reruns_total", "Times that a command was decided again, by what moved", ("cause",))
LOCK_WAIT = Counter(
    "keelson_append_lock_wait_seconds_total",
    f"Time that the writer waited for the head's lock, sampled each {SAMPLED_EACH_S:g} s",
)

_DONE = {
    Done: _OUTCOMES.labels("done"),
    Replayed: _OUTCOMES.labels("replayed"),
    KeyReused: _OUTCOMES.labels("key_reused"),
    KeyTaken: _OUTCOMES.labels("taken"),
    Moved: _OUTCOMES.labels("moved"),
    OverLimit: _OUTCOMES.labels("over_limit"),
}
_FAILED = {kind: _FAILURES.labels(kind) for kind in FAILURES}
# Somebody of this process was first, and it is known before the append; or another replica was.
RERUN_HERE = _RERUNS.labels("here")
RERUN_ELSEWHERE = _RERUNS.labels("elsewhere")


def group_appended(decisions: int, seconds: float) -> None:
    """Count an append group that came to an outcome."""
    GROUP_DECISIONS.observe(decisions)
    GROUP_SECONDS.observe(seconds)


def append_failed(failure: Failure) -> None:
    """Count an append group that did not."""
    _FAILED[failure].inc()


def decision_settled(outcome: Outcome, events: int) -> None:
    """Count what became of a decision of so many events."""
    _DONE[type(outcome)].inc()
    if isinstance(outcome, Done):
        EVENTS.inc(events)


async def keep_sampling(appender: Appender, db: Database) -> None:
    """Sample, until cancelled, whether the writer waits for the head's lock; an idle one costs no query.

    PostgreSQL counts no such waits, and the append function could tell of them only when it has ended, which is not
    when somebody hangs. So each sample that finds the writer waiting stands for the time between two: right in the
    mean, exact for no single wait, and each wait longer than that is seen.
    """
    while True:
        await asyncio.sleep(SAMPLED_EACH_S)
        with suppress(*UNAVAILABLE):
            if appender.session is not None and await db.fetchval(_WAITS_FOR_LOCK, appender.session):
                LOCK_WAIT.inc(SAMPLED_EACH_S)
