"""The main job under fire: everything is killed at random moments, and nothing acknowledged is lost, doubled or wrong.

Writers with keys and retries send commands to two command replicas while those, the projectors, the query service and
PostgreSQL are SIGKILLed. Then code that shares nothing with Keelson's judges the log and folds the views (F7).
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

from support.database import Cluster, running_cluster
from support.independent import Event, faults_of_log, faults_of_rules, faults_of_views, fold_views
from support.judging import judge, keep_log, read_when_caught_up, require_claims
from support.load import Load
from support.reading import read_back
from support.stack import Stack, running_stack
from support.waiting import eventually

SEEDS = (1, 2, 3, 4)
KILLS_OF_EACH = 5  # a seed: 20 over all of them, of each service and of the database
ACKNOWLEDGED = 2_500  # a seed: 10,000 over all of them
WRITERS = 24
NODES = 3
KINDS = ("command", "projector", "query", "database")


@pytest.fixture(scope="module")
def doomed_cluster() -> Iterator[Cluster]:
    """Start a server of its own: this one gets killed."""
    with running_cluster() as cluster:
        yield cluster


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
async def test_f7_nothing_acknowledged_is_lost_doubled_or_wrong_while_everything_is_killed(
    doomed_cluster: Cluster, tmp_path: Path, seed: int
) -> None:
    async with (
        doomed_cluster.fresh_database() as database,
        running_stack(doomed_cluster, database, tmp_path, commands=2, projectors=2) as stack,
    ):
        load = Load([each.url for each in stack.commands], stack.operator_token, seed)
        try:
            kills, reads = await run_under_fire(stack, load, seed)
            await stack.wait_until_ready()
            events, views = await read_when_caught_up(database)
            judge(load, events, views)
            await require_claims(database, events)
        except BaseException:
            await keep_log(database, tmp_path / "events.json")
            raise
    print(  # noqa: T201 - what a run did is worth seeing
        f"seed {seed}: {len(load.acknowledged)} acknowledged of {len(load.answered)} in {load.attempts} attempts, "
        f"{load.replays} repeated, {reads} read back, {len(events)} events, "
        f"{load.refused_by_quota} times a quota, kills {dict(kills)}"
    )
    assert all(kills[kind] >= KILLS_OF_EACH for kind in KINDS)
    assert len(load.acknowledged) >= ACKNOWLEDGED
    assert load.refused_by_quota > 0


async def run_under_fire(stack: Stack, load: Load, seed: int) -> tuple[Counter[str], int]:
    """Load the stack until enough was killed and acknowledged; tell how often what was killed, and rows read back."""
    stop = asyncio.Event()
    timeout = aiohttp.ClientTimeout(total=15, sock_connect=2)
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session,
        asyncio.TaskGroup() as group,
    ):
        await load.enroll(session, NODES)
        for writer in range(WRITERS):
            group.create_task(load.write(session, writer, stop))
        reader = group.create_task(read_back(session, stack.queries[0].url, load, stop))
        try:
            kills = await kill_at_random(stack, load, Random(seed))
        finally:
            stop.set()
    return kills, reader.result()


async def kill_at_random(stack: Stack, load: Load, random: Random) -> Counter[str]:
    """Kill each kind so often, in random order at random moments, and go on loading until enough is acknowledged."""
    kills: Counter[str] = Counter()
    order = random.sample([kind for kind in KINDS for _ in range(KILLS_OF_EACH)], len(KINDS) * KILLS_OF_EACH)
    for kind in order:
        # A moment in the load, not in time: so many commands after the last one.
        await acknowledge(load, len(load.acknowledged) + random.randint(0, 2 * ACKNOWLEDGED // len(order)))
        await asyncio.sleep(random.uniform(0, 0.2))
        kills[kind] += 1
        if kind == "database":
            await stack.kill_database()
            await asyncio.sleep(random.uniform(0, 0.3))
            await stack.restart_database()
        else:
            victims = {"command": stack.commands, "projector": stack.projectors, "query": stack.queries}[kind]
            victim = random.choice(victims)
            await stack.kill(victim)
            await stack.restart(victim, wait=False)
    await acknowledge(load, ACKNOWLEDGED)
    return kills


async def acknowledge(load: Load, goal: int) -> None:
    """Wait until so many commands are acknowledged in all."""
    await eventually(lambda: len(load.acknowledged) >= goal, 120, interval_s=0.01)


async def test_the_judges_see_what_they_should() -> None:
    """Each kind of fault, planted, is named: a check that could not fail would prove nothing."""
    created = _event(1, "org_1", 1, "org.created", {"name": "acme"}, org_id="org_1")
    renamed = _event(2, "org_1", 2, "org.renamed", {"name": "apex"}, org_id="org_1")
    twin = _event(3, "org_2", 1, "org.created", {"name": "apex"}, org_id="org_2")
    assert not faults_of_log([created, renamed, twin])
    assert faults_of_log([created, twin])  # a position is missing
    assert faults_of_log([created, {**renamed, "seq": 3}])
    assert faults_of_log([created, {**renamed, "recorded_at": 0}])
    assert faults_of_log([created, {**renamed, "command_id": created["command_id"]}])
    assert faults_of_log([created, {**renamed, "command_end": False}])
    assert not faults_of_rules([created, renamed])
    assert faults_of_rules([created, renamed, twin])  # two have one name
    where = {"env_id": "env_1"}
    web = {"processes": {"web": {"replicas": 1, "ports": [{"name": "http", "port": 80}]}}}
    released = _event(1, "env_1", 1, "env.release_set", web, **where)
    leads = {"hostname": "a.example", "process": "web", "port": "http"}
    route = _event(2, "route_1", 1, "route.created", leads, **where)
    gone = _event(3, "route_1", 2, "route.deleted", {}, **where)
    ended = _event(4, "env_1", 2, "env.deleted", {}, **where)
    assert not faults_of_rules([released, route, gone, ended])
    assert faults_of_rules([released, route, _event(3, "route_2", 1, "route.created", leads, **where)])  # one hostname
    assert faults_of_rules([released, route, ended])
    assert faults_of_rules([released, _event(2, "route_1", 1, "route.created", {**leads, "port": "admin"}, **where)])
    assert faults_of_rules([released, route, {**released, "payload": json.dumps({"processes": {}})}])
    machine = {"name": "one", "cpu_millis": 1, "memory_bytes": 3}
    node = _event(1, "node_1", 1, "node.enrolled", machine, node_id="node_1")
    off = _event(2, "node_1", 2, "node.state_changed", {"state": "offline"}, node_id="node_1")
    on = {"env_id": "env_1", "node_id": "node_1"}
    placed = [
        _event(place, f"instance_{place}", 1, "instance.allocated", {"spec": {"memory_bytes": 2}}, **on)
        for place in (2, 3)
    ]
    stopped = _event(3, "instance_2", 2, "instance.status_changed", {"status": "stopped"}, **on)
    removed = _event(4, "node_1", 2, "node.removed", {}, node_id="node_1")
    assert not faults_of_rules([node, placed[0], stopped, placed[1]])
    assert not faults_of_rules([node, placed[0], stopped, removed, ended])
    assert faults_of_rules([node, *placed])  # more memory than there is
    assert faults_of_rules([node, placed[0], _event(3, "node_1", 2, "node.capacity_set", {"memory_bytes": 1})])
    assert faults_of_rules([node, off, placed[1]])  # on a node that takes none
    assert faults_of_rules([node, placed[0], removed])
    assert faults_of_rules([node, placed[0], ended])
    assert faults_of_rules([node, {**node, "position": 2}])  # enrolled twice
    assert faults_of_rules([node, {**node, "aggregate_id": "node_2"}])  # two have one name
    views = fold_views([created, renamed])
    rows = {
        name: [{**row, "summary": "said"} if name == "activity" else row for row in view.values()]
        for name, view in views.items()
    }
    assert not faults_of_views(views, rows)
    assert faults_of_views(views, {**rows, "orgs": []})
    assert faults_of_views(views, {**rows, "orgs": [{**rows["orgs"][0], "name": "acme"}]})
    assert faults_of_views(fold_views([created]), rows)


def _event(position: int, aggregate_id: str, seq: int, type_: str, payload: dict[str, Any], **ids: str) -> Event:
    empty = dict.fromkeys(["org_id", "project_id", "app_id", "env_id", "node_id", "reason"])
    return {
        **empty,
        **ids,
        "position": position,
        "aggregate_id": aggregate_id,
        "seq": seq,
        "type": type_,
        "version": 1,
        "payload": json.dumps(payload),
        "command_id": f"command_{position}",
        "command_end": True,
        "recorded_at": position,
        "actor_type": "system",
        "actor_id": "operator",
        "request_id": f"r{position}",
    }
