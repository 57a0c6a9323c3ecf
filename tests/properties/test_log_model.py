"""Random decisions in random groups against a model of the log: what becomes of each, and what is there afterwards."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from keelson.log.database import Connection
from keelson.log.group import Group
from keelson.log.read import read_head
from support.database import Cluster
from support.log import append_group, connected, plant, read_epoch
from support.log_model import STEPS, Model, Step, assert_same

_rounds = st.lists(st.lists(STEPS, min_size=1, max_size=5), min_size=1, max_size=8)
_examples = count(1)


async def _compare(connection: Connection, rounds: list[list[Step]]) -> None:
    """Let the log and the model come to each outcome, and then to the same tables."""
    before = (await read_head(connection)).position
    model = Model(await read_epoch(connection), f"e{next(_examples)}", before)
    numbers = count(1)
    for steps in rounds:
        waiting = [model.decide(step, next(numbers)) for step in steps]
        while waiting:
            group = Group()
            left = [each for each in waiting if not group.admit(each[0])]
            taken = [each for each in waiting if not any(each is other for other in left)]
            expected = model.append(group.decisions, [changes for _, changes in taken])
            assert await append_group(connection, *group.decisions) == expected
            waiting = left
    await assert_same(connection, model, before)


@contextmanager
def _comparing(cluster: Cluster, *planted: tuple[str, str]) -> Iterator[Callable[[list[list[Step]]], None]]:
    """Lend a function that compares, all on one database; each example has names of its own."""
    with asyncio.Runner() as runner:
        lent = cluster.fresh_database()
        database = runner.run(lent.__aenter__())
        if planted:
            runner.run(plant(database.admin_dsn, "append_v2", *planted))
        connecting = connected(database.admin_dsn, plan_cache_mode="force_generic_plan")
        connection = runner.run(connecting.__aenter__())
        try:
            yield lambda rounds: runner.run(_compare(connection, rounds))
        finally:
            runner.run(connecting.__aexit__(None, None, None))
            runner.run(lent.__aexit__(None, None, None))


def _run(check: Callable[[list[list[Step]]], None], **options: Any) -> None:
    suppressed = [HealthCheck.too_slow, HealthCheck.data_too_large]
    settings(deadline=None, suppress_health_check=suppressed, database=None, **options)(given(_rounds)(check))()


def test_the_log_does_what_its_model_does(cluster: Cluster) -> None:
    with _comparing(cluster) as compare:
        _run(compare, max_examples=60)


BUGS = {
    "a decision settled twice": ("settled := settled || failed;", "settled := settled || failed || failed;"),
    "a version that stays": ("version = s.version + 1", "version = s.version"),
    "an amount that is forgotten": ("amount = s.amount + excluded.amount", "amount = s.amount"),
    "limits unchecked": ("o.held > l_held[o.n]", "o.held > l_held[o.n] + 1"),
    "a key freed too late": ("f.at <= t.at", "f.at < 0"),
    "a stale seq": ("r.seq <> coalesce((", "r.seq < coalesce(("),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_found(cluster: Cluster, bug: str) -> None:
    with _comparing(cluster, BUGS[bug]) as compare, pytest.raises((AssertionError, ExceptionGroup)):
        _run(compare, max_examples=600, phases=[Phase.generate], derandomize=True)
