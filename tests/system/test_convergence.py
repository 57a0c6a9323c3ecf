"""What is declared comes to run, whatever is changed and whatever dies meanwhile: real processes on real nodes.

Judged by the log as folded here, by asking what runs, and by the kernel's list of processes. One stack serves all of
it; each test begins with three replicas as declared.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest

from support.greeters import processes_of
from support.stage import SURGE, Stage
from support.supervised import Supervised, supervised
from support.waiting import eventually

REPLICAS = 3


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    with supervised(tmp_path_factory.mktemp("converging") / "home") as stack:
        asyncio.run(stack.start())
        yield stack
        assert asyncio.run(stack.end()) == 0


@pytest.fixture(scope="module")
def deployed(stack: Supervised, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Deploy three greeters, and see them be reachable."""
    stage = Stage(stack, tmp_path_factory.mktemp("beside"))

    async def deploy() -> None:
        async with stage:
            await stage.declare()
            async with stage.converging("deploy"):
                deploy_id = await stage.deploy(await stage.release())
                await stage.scale(REPLICAS)
            await eventually(partial(has_succeeded, stage, deploy_id), 10.0)

    asyncio.run(deploy())
    return stage


@pytest.fixture
async def stage(deployed: Stage) -> AsyncIterator[Stage]:
    async with deployed:
        await deployed.scale(REPLICAS)
        await eventually(deployed.is_as_declared, 60.0)
        yield deployed


async def has_succeeded(stage: Stage, deploy_id: str) -> bool:
    await stage.ledger.read(stage.client)
    assert stage.ledger.deploys[deploy_id] == "succeeded"
    return True


async def test_replicas_are_spread_over_the_nodes(stage: Stage) -> None:
    placed = {node_id: stage.ledger.on(stage.env_id, node_id) for node_id in stage.ledger.nodes}
    assert sorted(placed.values()) == [1, 2]


async def test_scale_up_and_down_and_to_nothing(stage: Stage) -> None:
    async with stage.converging("scale up", floor=3):
        await stage.scale(6)
    async with stage.converging("scale down", floor=2):
        await stage.scale(2)
    async with stage.converging("scale to nothing"):
        await stage.scale(0)
    assert not processes_of(stage.env_id)
    async with stage.converging("scale from nothing"):
        await stage.scale(REPLICAS)


async def test_a_second_release_and_back(stage: Stage) -> None:
    before = str(stage.ledger.wanted[stage.env_id].release_id)
    async with stage.converging("second release", floor=REPLICAS) as watch:
        deploy_id = await stage.deploy(await stage.release())
    assert len(watch.releases) == 2
    await eventually(partial(has_succeeded, stage, deploy_id))
    async with stage.converging("rollback", floor=REPLICAS) as watch:
        answer = await stage.client.env.rollback(env_id=stage.env_id, release_id=before, reason="back")
    assert len(watch.releases) == 2
    await eventually(partial(has_succeeded, stage, str(answer.result.deploy_id)))


async def test_configuration_and_secret(stage: Stage) -> None:
    async with stage.converging("configuration", floor=REPLICAS):
        await stage.greet_with("Good evening")
    async with stage.converging("secret", floor=REPLICAS):
        await stage.set_secret("another key")


async def test_a_node_is_drained_and_takes_more_again(stage: Stage) -> None:
    node_id = stage.ledger.names["node-a"]
    assert stage.ledger.on(stage.env_id, node_id)
    async with stage.converging("drain", floor=REPLICAS):
        await stage.client.node.set_state(node_id=node_id, state="draining", reason="maintenance")
    assert not stage.ledger.on(stage.env_id, node_id)
    await stage.client.node.set_state(node_id=node_id, state="active", reason="maintained")
    async with stage.converging("scale up after the drain", floor=REPLICAS):
        await stage.scale(5)
    assert stage.ledger.on(stage.env_id, node_id)


async def test_an_agent_that_is_killed_finds_its_instances_again(stage: Stage) -> None:
    before, names = set(processes_of(stage.env_id)), ("node-a", "node-b")
    adopted = sum(map(stage.adopted, names))
    async with stage.converging("SIGKILL of both agents", floor=REPLICAS):
        await asyncio.gather(*(stage.kill(name) for name in names))
        await eventually(lambda: sum(map(stage.adopted, names)) == adopted + REPLICAS, 60.0)
    assert set(processes_of(stage.env_id)) == before
    async with stage.converging("configuration after the agents were killed", floor=REPLICAS):
        await stage.greet_with("Good night")


async def test_an_instance_that_is_killed_is_started_again(stage: Stage) -> None:
    victim = min(processes_of(stage.env_id))
    async with stage.converging("SIGKILL of an instance", floor=REPLICAS - 1) as watch:
        os.kill(victim, signal.SIGKILL)
        await eventually(lambda: victim not in processes_of(stage.env_id))
    assert min(watch.answered) < REPLICAS, "who asks must see that one is away"


@pytest.mark.parametrize("name", ["scheduler", "command", "projector", "query", "database"])
async def test_what_is_killed_while_something_is_declared_keeps_nothing_from_it(stage: Stage, name: str) -> None:
    async with stage.converging(f"configuration, and SIGKILL of {name}", floor=REPLICAS):
        await stage.greet_with(f"Hello in spite of {name}")
        killing = asyncio.create_task(stage.kill(name))
        await stage.scale(REPLICAS + 1)
        await killing


async def test_two_schedulers_never_place_twice(stage: Stage) -> None:
    async with stage.second_scheduler():
        for replicas in (6, 1, 5):
            before, placed = stage.ledger.position, len(stage.ledger.instances)
            was = len(stage.ledger.live(stage.env_id))
            async with stage.converging(f"two schedulers, {was} to {replicas}", floor=min(was, replicas)):
                await stage.scale(replicas)
            assert len(stage.ledger.instances) - placed == max(0, replicas - was)
            most = max(each.running for each in stage.ledger.since(stage.env_id, before))
            assert most == max(was, replicas)
        before, placed = stage.ledger.position, len(stage.ledger.instances)
        async with stage.converging("two schedulers, configuration", floor=5):
            await stage.greet_with("Hello from two")
        assert len(stage.ledger.instances) - placed == 5
        assert max(each.running for each in stage.ledger.since(stage.env_id, before)) <= 5 + SURGE
        async with stage.converging("two schedulers, one killed", floor=5):
            await stage.greet_with("Hello from the other")
            await stage.kill("scheduler")


async def test_a_node_that_is_lost_and_comes_back(stage: Stage) -> None:
    async with stage.third_node("node-c") as agent:
        await eventually(partial(is_enrolled, stage, "node-c"), 30.0)
        node_id = stage.ledger.names["node-c"]
        async with stage.converging("scale up onto a new node", floor=REPLICAS):
            await stage.scale(5)
        there = stage.ledger.on(stage.env_id, node_id)
        assert there
        with stage.lost(node_id):
            async with stage.converging("node lost", floor=5 - there):
                agent.kill()
                await eventually(partial(is_in_state, stage, node_id, "offline"), 90.0)
            assert not stage.ledger.on(stage.env_id, node_id)
            assert len(orphans(stage, node_id)) == there
        await agent.start()
        async with stage.converging("node back", floor=5):
            await eventually(partial(is_in_state, stage, node_id, "active"), 90.0)
            await eventually(lambda: not orphans(stage, node_id), 90.0)
        async with stage.converging("node away for good", floor=5):
            await stage.client.node.set_state(node_id=node_id, state="draining", reason="it is taken away")
        await stage.client.node.remove(node_id=node_id, reason="it is taken away")


async def test_a_stop_ends_all_that_runs_and_the_next_start_goes_on_with_it(stage: Stage) -> None:
    async with stage.converging("stop and start"):
        assert await stage.stack.end(signal.SIGINT) == 0
        assert not processes_of(stage.env_id)
        await stage.stack.start()


async def test_what_a_killed_supervisor_left_running_is_found_again(stage: Stage) -> None:
    """The scheduler of the start after it has a planted bug, besides: what is judged here must be able to fail."""
    async with stage.converging("SIGKILL of the supervisor, and start"):
        assert await stage.stack.end(signal.SIGKILL) == -signal.SIGKILL
        await stage.scale(REPLICAS + 1)
        await stage.stack.start(KEELSON_ROLLOUT_SURGE="0", KEELSON_ROLLOUT_UNAVAILABLE="1")
    with pytest.raises(AssertionError, match="less than 4 were ready, by the log"):
        async with stage.converging("configuration, by a scheduler that takes one away first", floor=REPLICAS + 1):
            await stage.greet_with("Hello from fewer")


async def is_enrolled(stage: Stage, name: str) -> bool:
    await stage.ledger.read(stage.client)
    return name in stage.ledger.names


async def is_in_state(stage: Stage, node_id: str, state: str) -> bool:
    await stage.ledger.read(stage.client)
    assert stage.ledger.nodes[node_id] == state
    return True


def orphans(stage: Stage, node_id: str) -> list[int]:
    """Give the processes that a node still runs and that nobody wants there."""
    live = stage.ledger.live(stage.env_id)
    told = processes_of(stage.env_id).items()
    return [pid for pid, each in told if each["KEELSON_NODE_ID"] == node_id and each["KEELSON_INSTANCE_ID"] not in live]
