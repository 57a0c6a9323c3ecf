"""A node over HTTP: it enrols by its token, acts by its credential, is heard, and may do nothing else."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from integration.test_node_races import ONE_INSTANCE, Node, enroll, stop
from support.command_world import Answer, World, open_world
from support.database import Database
from support.projecting import caught_up, pooled, replica
from support.query_world import TOKEN as READING
from support.query_world import served


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database) as world:
        yield world


async def place(world: World, node: Node) -> str:
    """Place an instance of a new environment on a node."""
    env_id, _ = await world.create_running_env()
    placed = await world.replica.command("instance.allocate", env_id=env_id, process="web", node_id=node.id)
    return str(placed.result["instance_id"])


async def beat(world: World, node_id: str, token: str | None, body: Any = None) -> Answer:
    """Send a heartbeat."""
    return await world.replica.send(
        "POST",
        f"/v1/nodes/{node_id}/heartbeat",
        token=token,
        headers={"Content-Type": "application/json"},
        body=msgspec.json.encode({"observed_position": 3} if body is None else body),
    )


async def test_tokens_are_shown_once(world: World) -> None:
    headers = {"Idempotency-Key": "the-same"}
    first = (await world.replica.command("node.create_enrollment_token", headers=headers)).result
    again = (await world.replica.command("node.create_enrollment_token", headers=headers)).result
    assert (again["node_id"], again["token"]) == (first["node_id"], None)
    assert first["token"].startswith("kls_")
    texts = [event.payload for event in await world.events()]
    assert not [text for text in texts if first["token"] in text]


async def test_a_spent_token_and_a_made_up_one_are_refused_alike(world: World) -> None:
    awaited = (await world.replica.command("node.create_enrollment_token")).result
    machine = {"name": "one", "cpu_millis": 1, "memory_bytes": 1}
    spent = awaited["token"]
    assert (await world.replica.send_as(None, "node.enroll", token=spent, **machine)).status == 200
    for token in (spent, spent[:-1], "kls_" + "0" * 48, "x"):
        answer = await world.replica.send_as(None, "node.enroll", token=token, **machine)
        assert (answer.status, answer.code) == (401, "unauthenticated")


async def test_an_enrolment_token_enrols_and_does_nothing_else(world: World) -> None:
    awaited = (await world.replica.command("node.create_enrollment_token")).result
    answer = await world.replica.send_as(awaited["token"], "node.set_state", node_id=awaited["node_id"], state="active")
    assert answer.status in (401, 403, 404)
    assert (await beat(world, awaited["node_id"], awaited["token"])).status in (401, 404)


async def test_a_node_reports_its_own_instances_and_nothing_more(world: World) -> None:
    node, other = await enroll(world), await enroll(world)
    instance_id = await place(world, node)
    ready = {
        "instance_id": instance_id,
        "status": "ready",
        "endpoints": {"http": {"host": "10.0.0.7", "port": 31000}},
    }
    assert (await world.replica.send_as(other.credential, "instance.report_status", **ready)).code == "not_found"
    said = await world.replica.send_as(node.credential, "instance.report_status", **ready)
    assert (said.status, said.body["changed"]) == (200, True)
    [event] = await world.events(said.body["position"] - 1)
    assert (event.actor_type, event.actor_id, event.node_id) == ("node", node.id, node.id)
    again = await world.replica.send_as(node.credential, "instance.report_status", **ready)
    assert (again.status, again.body["changed"]) == (200, False)
    for name, data in (
        ("node.set_state", {"node_id": node.id, "state": "draining"}),
        ("node.set_capacity", {"node_id": node.id, "cpu_millis": 1, "memory_bytes": 1}),
        ("instance.set_desired_state", {"instance_id": instance_id, "desired_state": "stopped"}),
        ("org.create", {"name": "mine"}),
    ):
        answer = await world.replica.send_as(node.credential, name, **data)
        assert (answer.status, answer.code) == (403, "forbidden"), name


async def test_a_removed_node_is_nobody(world: World) -> None:
    node = await enroll(world)
    instance_id = await place(world, node)
    assert (await world.replica.command("node.remove", node_id=node.id)).code == "in_use"
    await stop(world.replica, node, instance_id)
    assert (await beat(world, node.id, node.credential)).status == 200
    assert (await world.replica.command("node.remove", node_id=node.id)).status == 200
    said = {"instance_id": instance_id, "status": "stopped"}
    assert (await world.replica.send_as(node.credential, "instance.report_status", **said)).status == 401


async def test_a_heartbeat_is_noted_and_is_no_event(world: World, database: Database) -> None:
    node = await enroll(world)
    async with pooled(database.projector_dsn) as pool, replica(database), served(database) as reader:
        await caught_up(pool)
        path = f"/v1/nodes/{node.id}"
        silent = await reader.get(path, token=READING)
        assert (silent.status, silent.body["heartbeat_at"]) == (200, None)
        head = await world.head()
        for load in (None, {"cpu_millis": 250, "load_1": 0.5}):
            assert (await beat(world, node.id, node.credential, {"observed_position": 7, "load": load})).status == 200
        assert await world.head() == head
        heard = await reader.get(path)
        assert heard.body["heartbeat_at"] is not None
        assert heard.headers["ETag"] == silent.headers["ETag"] == f'"{heard.body["resource_version"]}"'
        [listed] = (await reader.get("/v1/nodes")).body["items"]
        assert listed == heard.body
        properties = (await reader.get("/openapi.json", token=None)).body["components"]["schemas"]
        assert "heartbeat_at" in properties["Node"]["properties"]
    row = await world.log.fetchrow("SELECT observed_position, load FROM ops.heartbeats WHERE node_id = $1", node.id)
    assert row is not None
    assert (row["observed_position"], msgspec.json.decode(row["load"])) == (7, {"cpu_millis": 250, "load_1": 0.5})


async def test_only_the_node_itself_says_that_it_is_there(world: World) -> None:
    node, other = await enroll(world), await enroll(world)
    assert (await beat(world, node.id, other.credential)).code == "not_found"
    assert (await beat(world, "x", other.credential)).code == "not_found"
    assert (await beat(world, node.id, None)).code == "unauthenticated"
    answer = await world.replica.send("GET", f"/v1/nodes/{node.id}/heartbeat")
    assert answer.status in (404, 405)
    operator = await world.replica.send(
        "POST", f"/v1/nodes/{node.id}/heartbeat", headers={"Content-Type": "application/json"}, body=b"{}"
    )
    assert operator.code == "forbidden"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"observed_position": -1},
        {"observed_position": 2**63},
        {"observed_position": 1, "load": {"CPU": 1}},
        {"observed_position": 1, "load": {"cpu": "much"}},
        {"observed_position": 1, "mood": "good"},
    ],
)
async def test_a_heartbeat_that_says_anything_else_is_refused(world: World, body: dict[str, Any]) -> None:
    node = await enroll(world)
    answer = await beat(world, node.id, node.credential, body)
    assert (answer.status, answer.code) == (400, "invalid")


async def test_memory_counts_what_is_promised_and_not_what_is_used(world: World) -> None:
    node = await enroll(world, 2 * ONE_INSTANCE)
    first = await place(world, node)
    await place(world, node)
    env_id, _ = await world.create_running_env()
    third = {"env_id": env_id, "process": "web", "node_id": node.id}
    assert (await world.replica.command("instance.allocate", **third)).code == "no_capacity"
    fewer = await world.replica.command(
        "node.set_capacity", node_id=node.id, cpu_millis=1, memory_bytes=2 * ONE_INSTANCE - 1
    )
    assert (fewer.status, fewer.code) == (422, "no_capacity")
    await stop(world.replica, node, first)
    assert (await world.replica.command("instance.allocate", **third)).status == 200
