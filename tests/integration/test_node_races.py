"""Nodes and instances while another replica acts: the last memory, a token used twice, what goes under an instance."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from integration.test_route_races import faults, in_turns
from keelson.command.transaction import Transaction
from support.command_world import Replica, World, open_world
from support.database import Database

# What a process has where its release says nothing.
ONE_INSTANCE = 256 * 1024 * 1024


class Node(NamedTuple):
    """A node, and the credential by which it acts."""

    id: str
    credential: str


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database, replicas=2) as world:
        yield world


async def enroll(world: World, memory_bytes: int = ONE_INSTANCE) -> Node:
    """Let a machine of so much memory enrol."""
    awaited = (await world.replica.command("node.create_enrollment_token")).result
    machine = {"name": world.new_name(), "cpu_millis": 1000, "memory_bytes": memory_bytes}
    enrolled = (await world.replica.send_as(None, "node.enroll", token=awaited["token"], **machine)).result
    assert enrolled["node_id"] == awaited["node_id"]
    return Node(enrolled["node_id"], enrolled["credential"])


async def stop(replica: Replica, node: Node, instance_id: str) -> None:
    """Let the node say that an instance has stopped."""
    said = {"instance_id": instance_id, "status": "stopped"}
    assert (await replica.send_as(node.credential, "instance.report_status", **said)).status == 200


async def test_f12_of_two_instances_for_the_last_memory_of_a_node_one_is_placed(world: World) -> None:
    """Two hundred turns, each for memory that the turn before has just given back, on two replicas at once."""
    await last_memory_goes_once(world, turns=200)


async def last_memory_goes_once(world: World, *, turns: int) -> None:
    node = await enroll(world)
    envs = [(await world.create_running_env())[0] for _ in range(2)]
    for turn in range(turns):
        answers = await in_turns(
            turn,
            *(
                replica.command("instance.allocate", env_id=env_id, process="web", node_id=node.id)
                for replica, env_id in zip(world.replicas, envs, strict=True)
            ),
        )
        won, lost = sorted(answers, key=lambda answer: answer.status)
        assert (won.status, lost.status) == (200, 422)
        assert lost.code == "no_capacity"
        await stop(world.replicas[turn // 2 % 2], node, won.result["instance_id"])
    assert not await faults(world)


async def test_f12_memory_that_is_not_limited_is_caught(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transaction, "limit", lambda *_, **__: None)
    with pytest.raises(AssertionError):
        await last_memory_goes_once(world, turns=1)
    assert [fault for fault in await faults(world) if "has promised" in fault]


async def test_f12_of_two_machines_with_one_token_one_enrols(world: World) -> None:
    credentials = set()
    for turn in range(200):
        awaited = (await world.replicas[turn % 2].command("node.create_enrollment_token")).result
        answers = await in_turns(
            turn,
            *(
                replica.send_as(
                    None, "node.enroll", token=awaited["token"], name=world.new_name(), cpu_millis=1, memory_bytes=1
                )
                for replica in world.replicas
            ),
        )
        won, lost = sorted(answers, key=lambda answer: answer.status)
        assert (won.status, lost.status, lost.code) == (200, 401, "unauthenticated")
        credentials.add(won.result["credential"])
    assert len(credentials) == 200
    assert not await faults(world)


@pytest.mark.parametrize("gone", ["env", "node"])
async def test_f12_nothing_goes_under_an_instance(world: World, gone: str) -> None:
    app_id = await world.create_app()
    release_id = await world.create_release(app_id)

    async def race(turn: int) -> tuple[int, int]:
        node = await enroll(world)
        env_id = await world.create_env(app_id)
        await world.replicas[turn % 2].create("deploy", env_id=env_id, release_id=release_id)
        one, other = world.replicas[turn // 2 % 2], world.replicas[1 - turn // 2 % 2]
        end = one.command("env.delete", env_id=env_id) if gone == "env" else one.command("node.remove", node_id=node.id)
        ended, placed = await in_turns(
            turn, end, other.command("instance.allocate", env_id=env_id, process="web", node_id=node.id)
        )
        return ended.status, placed.status

    outcomes: Counter[tuple[int, int]] = Counter()
    for turn in range(0, 200, 20):
        outcomes.update(await asyncio.gather(*(race(each) for each in range(turn, turn + 20))))
    assert outcomes.keys() == {(200, 404), (409, 200)}, outcomes
    assert not await faults(world)
