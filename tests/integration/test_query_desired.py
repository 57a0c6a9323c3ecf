"""Derived views over HTTP: how an environment is, what a node should run, where hostnames lead."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from keelson.events import Event
from keelson.events.app import AppRenamed
from keelson.events.deploy import DeployCreated
from keelson.events.env import EnvCreated, EnvDeleted, EnvProcess, EnvReleaseSet
from keelson.events.ids import AggregateId
from keelson.events.instance import (
    Endpoint,
    InstanceAllocated,
    InstanceDesiredStateChanged,
    InstanceSpec,
    InstanceStatusChanged,
)
from keelson.events.node import NodeCapacitySet, NodeEnrolled, NodeEnrollmentCreated, NodeRemoved, NodeStateChanged
from keelson.events.release import Health, Port
from keelson.events.route import RouteCreated, RouteDeleted
from keelson.log.database import connect
from keelson.views import derived_named
from keelson.views.sql import select_rows
from support.database import Database
from support.independent_desired import digest_of, expected_at
from support.query_world import APP, ENV, INSTANCE_IDS, NODE, ORG, PROJECT, Reader, World, make_id, open_world, served
from support.story import Story

RELEASE, OLDER = make_id("release", 1), make_id("release", 2)
OTHER_NODE = make_id("node", 2)
ROUTE, OTHER_ROUTE = make_id("route", 1), make_id("route", 2)
SPEC = InstanceSpec(
    image="shop@sha256:0",
    command=("serve",),
    ports=(Port("http", 8080),),
    cpu_millis=250,
    memory_bytes=2**28,
    health=Health(path="/", port="http"),
    variables={"MODE": "fast"},
)
READY = InstanceStatusChanged(status="ready", endpoints={"http": Endpoint("10.0.0.7", 31000)})
BOOTING = InstanceStatusChanged(status="booting")
FAILED = InstanceStatusChanged(status="failed", reason_code="exited", exit_code=1)
STOPPED = InstanceStatusChanged(status="stopped")
DRAIN = InstanceDesiredStateChanged(desired_state="draining")


def enrolled(name: str) -> NodeEnrolled:
    return NodeEnrolled(
        name=name, labels={"zone": "a"}, cpu_millis=4000, memory_bytes=2**33, credential_id=make_id("credential", 2)
    )


def released(**replicas: int) -> EnvReleaseSet:
    """Give what sets the release, with so many replicas of its processes."""
    processes = {
        name: EnvProcess(
            command=("run",), ports=(Port("http", 8080),), cpu_millis=250, memory_bytes=2**28, replicas=number
        )
        for name, number in replicas.items()
    }
    return EnvReleaseSet(deploy_id=make_id("deploy", 1), release_id=RELEASE, release_number=1, processes=processes)


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database) as world:
        await world.append_base()
        for node, name in ((NODE, "one"), (OTHER_NODE, "two")):
            created = NodeEnrollmentCreated(datetime(2026, 1, 2, tzinfo=UTC), make_id("credential", 1))
            await world.append((node, created))
            await world.append((node, enrolled(name)))
        yield world


@pytest.fixture
async def reader(database: Database, world: World) -> AsyncIterator[Reader]:
    await world.project()
    async with served(database) as reader:
        yield reader


async def place(
    world: World,
    number: int,
    *events: Event,
    process: str = "web",
    release_id: str = RELEASE,
    node: AggregateId = NODE,
) -> AggregateId:
    """Allocate an instance, and let this happen to it."""
    instance = make_id("instance", number)
    allocated = InstanceAllocated(process=process, release_id=release_id, release_number=1, spec=SPEC, spec_hash="0")
    ids = msgspec.structs.replace(INSTANCE_IDS, node_id=node)
    for event in (allocated, *events):
        await world.append((instance, event), ids=ids)
    return instance


async def status_of(world: World, reader: Reader) -> Any:
    await world.project()
    answer = await reader.get(f"/v1/envs/{ENV}/status")
    assert answer.status == 200, answer.body
    assert answer.body.pop("position") == world.head == int(answer.headers["Keelson-Position"])
    return answer.body


Step = tuple[Event, ...]


@pytest.mark.parametrize(
    ("desired", "instances", "ready", "status"),
    [
        (0, [], 0, "healthy"),
        (2, [], 0, "progressing"),
        (2, [(), (READY,)], 1, "progressing"),
        (2, [(BOOTING,), (BOOTING,)], 0, "progressing"),
        (2, [(READY,), (READY,)], 2, "healthy"),
        (1, [(READY,), (READY,)], 2, "healthy"),
        (2, [(READY,), (FAILED,)], 1, "degraded"),
        (2, [(FAILED,), (FAILED,)], 0, "failed"),
        (2, [(FAILED,), (READY,), (READY,)], 2, "healthy"),
        (2, [(FAILED, BOOTING), (READY,)], 1, "progressing"),
        (2, [(READY, STOPPED), (READY,)], 1, "progressing"),
        (2, [(READY, DRAIN), (READY,)], 1, "progressing"),
        (1, [(FAILED, DRAIN)], 0, "progressing"),
    ],
)
async def test_a_process_is_as_its_instances_are(  # noqa: PLR0917 - a case, by its parts' names
    world: World, reader: Reader, desired: int, instances: list[Step], ready: int, status: str
) -> None:
    await world.append((ENV, released(web=desired)))
    for number, events in enumerate(instances, start=1):
        await place(world, number, *events)
    said = await status_of(world, reader)
    assert said == {
        "status": status,
        "processes": [{"process": "web", "desired": desired, "ready": ready, "status": status}],
    }


async def test_what_is_on_an_offline_node_is_not_ready(world: World, reader: Reader) -> None:
    await world.append((ENV, released(web=2)))
    await place(world, 1, READY)
    await place(world, 2, READY, node=OTHER_NODE)
    await world.append((OTHER_NODE, NodeStateChanged(state="draining")))
    assert (await status_of(world, reader))["status"] == "healthy"
    await world.append((OTHER_NODE, NodeStateChanged(state="offline")))
    said = await status_of(world, reader)
    assert (said["status"], said["processes"][0]["ready"]) == ("degraded", 1)
    await world.append((NODE, NodeStateChanged(state="offline")))
    assert (await status_of(world, reader))["status"] == "failed"


async def test_instances_of_another_release_are_on_their_way_out(world: World, reader: Reader) -> None:
    await world.append((ENV, released(web=1)))
    await place(world, 1, READY, release_id=OLDER)
    said = await status_of(world, reader)
    assert (said["status"], said["processes"][0]["ready"]) == ("progressing", 0)
    await place(world, 2, READY)
    assert (await status_of(world, reader))["status"] == "progressing"
    await world.append((make_id("instance", 1), DRAIN))
    assert (await status_of(world, reader))["status"] == "healthy"


async def test_a_process_that_left_the_release_is_shown_while_it_is_wanted_running(
    world: World, reader: Reader
) -> None:
    await world.append((ENV, released(web=1)))
    await place(world, 1, READY)
    await place(world, 2, READY, process="worker")
    said = await status_of(world, reader)
    assert said["processes"] == [
        {"process": "web", "desired": 1, "ready": 1, "status": "healthy"},
        {"process": "worker", "desired": 0, "ready": 0, "status": "progressing"},
    ]
    await world.append((make_id("instance", 2), DRAIN))
    said = await status_of(world, reader)
    assert [each["process"] for each in said["processes"]] == ["web"]


async def test_an_environment_is_as_its_worst_process(world: World, reader: Reader) -> None:
    assert await status_of(world, reader) == {"status": "healthy", "processes": []}
    await world.append((ENV, released(web=1, worker=1)))
    await place(world, 1, READY)
    assert (await status_of(world, reader))["status"] == "progressing"
    await place(world, 2, FAILED, process="worker")
    assert (await status_of(world, reader))["status"] == "failed"


async def test_there_is_no_status_of_what_is_not_there(world: World, reader: Reader) -> None:
    other = make_id("env", 2)
    await world.append((other, EnvCreated(name="staging")))
    await world.append((other, EnvDeleted()))
    await world.project()
    for unknown in (other, make_id("env", 9), APP, "x"):
        answer = await reader.get(f"/v1/envs/{unknown}/status")
        assert (answer.status, answer.code) == (404, "not_found")
        assert answer.headers["Keelson-Position"] == str(world.head)


async def desired_of(world: World, reader: Reader, path: str) -> Any:
    await world.project()
    answer = await reader.get(path)
    assert answer.status == 200, answer.body
    assert answer.body["position"] == world.head
    assert answer.body["digest"] == digest_of(answer.body["items"])
    return answer.body


async def test_a_node_is_told_of_its_instances_until_they_have_stopped(world: World, reader: Reader) -> None:
    path = f"/v1/nodes/{NODE}/desired"
    empty = await desired_of(world, reader, path)
    assert (empty["items"], empty["version"]) == ([], 0)

    first = await place(world, 1)
    allocated = world.head
    await place(world, 2, node=OTHER_NODE)
    told = await desired_of(world, reader, path)
    assert told["version"] == allocated
    assert told["items"] == [
        {
            "instance_id": first,
            "org_id": ORG,
            "project_id": PROJECT,
            "app_id": APP,
            "env_id": ENV,
            "process": "web",
            "release_id": RELEASE,
            "release_number": 1,
            "secret_version": None,
            "spec": json.loads(msgspec.json.encode(SPEC)),
            "spec_hash": "0",
            "desired_state": "running",
        }
    ]

    await world.append((first, READY))
    assert (await desired_of(world, reader, path))["version"] == allocated, "its own reports change nothing"
    await world.append((first, DRAIN))
    draining = await desired_of(world, reader, path)
    assert (draining["version"], draining["items"][0]["desired_state"]) == (world.head, "draining")
    second = await place(world, 3)
    await world.append((second, STOPPED))
    stopped = await desired_of(world, reader, path)
    assert (stopped["version"], len(stopped["items"])) == (world.head, 1), "an end is a change, and never goes back"
    await world.append((first, STOPPED))
    ended = world.head
    await world.append((APP, AppRenamed(name="store")))
    nothing = await desired_of(world, reader, path)
    assert (nothing["version"], nothing["items"]) == (ended, []), "and what others do moves nothing"


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_what_nodes_are_told_is_what_the_log_says(database: Database, seed: int) -> None:
    """The view against a fold that shares no code with it, at several positions of a long story."""
    async with open_world(database) as world, served(database) as reader:
        story = Story(seed, first=world.head + 1)
        seen: set[int] = set()
        for _ in range(4):
            for envelope in story.tell(150):
                await world.insert(envelope)
            await world.project()
            events = [dict(row) for row in await world.owner.fetch("SELECT * FROM log.events ORDER BY position")]
            for node in await reader.get_all("/v1/nodes"):
                told = await desired_of(world, reader, f"/v1/nodes/{node['id']}/desired")
                expected = expected_at(events, node["id"], world.head)
                assert (told["version"], told["items"]) == (expected.version, expected.items)
                seen.add(len(told["items"]))
    assert len(seen) > 2


async def test_one_nodes_row_is_read_by_indexes(world: World, database: Database) -> None:
    """However many it has had: its version by the last entry of an index, its items without those that have stopped."""
    live = await place(world, 1)
    await world.project()
    columns = await world.projector.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'views' AND table_name = 'instances'"
    )
    others = ", ".join(row[0] for row in columns if row[0] not in ("id", "status"))
    await world.projector.execute(
        f"INSERT INTO views.instances (id, status, {others}) "  # noqa: S608 - columns of the table
        f"SELECT 'gone_' || n, 'stopped', {others} FROM views.instances, generate_series(1, 5000) AS n"
    )
    await world.projector.execute("ANALYZE views.instances")
    projection, view = derived_named("node_desired")
    settings = {"enable_seqscan": "off", "plan_cache_mode": "force_generic_plan"}
    query = await connect(database.query_dsn, application_name="test-explain", **settings)
    try:
        rows = await query.fetch(f"EXPLAIN {select_rows(view)}", projection.name, [NODE])
        [row] = await query.fetch(select_rows(view), projection.name, [NODE])
    finally:
        await query.close()
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan on instances" not in plan
    assert "Index Only Scan Backward using instances_by_node_id_desired_position" in plan
    assert "instances_by_node_id_status" in plan
    assert "nodes_pkey" in plan
    assert [each["instance_id"] for each in json.loads(row["items"])] == [live]


async def test_a_node_that_is_not_there_should_do_nothing(world: World, reader: Reader) -> None:
    await world.append((OTHER_NODE, NodeRemoved()))
    await world.project()
    for unknown in (OTHER_NODE, make_id("node", 9), APP, "x"):
        answer = await reader.get(f"/v1/nodes/{unknown}/desired")
        assert (answer.status, answer.code) == (404, "not_found")


async def test_edges_are_told_of_ready_backends(world: World, reader: Reader) -> None:
    path = "/v1/edge/desired"
    empty = await desired_of(world, reader, path)
    assert (empty["items"], empty["version"]) == ([], 0)
    await world.append((ENV, released(web=2, worker=1)))
    await world.append((ROUTE, RouteCreated(hostname="shop.example", process="web", port="http")))
    await world.append((OTHER_ROUTE, RouteCreated(hostname="admin.example", process="web", port="admin")))
    await place(world, 2, READY)
    await place(world, 1, READY)
    await place(world, 3, BOOTING)
    await place(world, 4, READY, DRAIN)
    await place(world, 5, READY, process="worker")
    told = await desired_of(world, reader, path)
    assert told["version"] == world.head
    assert [each["hostname"] for each in told["items"]] == ["admin.example", "shop.example"]
    assert told["items"][0]["backends"] == []
    assert told["items"][1]["backends"] == [
        {"host": "10.0.0.7", "port": 31000, "instance_id": make_id("instance", number)} for number in (1, 2)
    ]
    assert (told["items"][1]["route_id"], told["items"][1]["env_id"]) == (ROUTE, ENV)

    await world.append((NODE, NodeStateChanged(state="offline")))
    again = await desired_of(world, reader, path)
    assert (again["version"], again["digest"]) == (told["version"], told["digest"]), "edges ask the backends themselves"
    await world.append((make_id("instance", 1), FAILED))
    await world.append((OTHER_ROUTE, RouteDeleted()))
    left = await desired_of(world, reader, path)
    assert left["version"] == world.head
    assert [len(each["backends"]) for each in left["items"]] == [1]


async def test_nodes_and_instances_are_listed(world: World, reader: Reader) -> None:
    await world.append((NODE, NodeStateChanged(state="draining", message="new kernel")))
    await world.append((NODE, NodeCapacitySet(cpu_millis=1, memory_bytes=2)))
    awaited = make_id("node", 3)
    await world.append((awaited, NodeEnrollmentCreated(datetime(2026, 1, 2, tzinfo=UTC), make_id("credential", 3))))
    await world.append((ENV, released(web=1)))
    await world.append((make_id("deploy", 1), DeployCreated(release_id=RELEASE, release_number=1, kind="deploy")))
    for number, events in enumerate(((), (READY,), (FAILED,), (STOPPED,)), start=1):
        await place(world, number, *events)
    await world.project()

    [node] = await reader.get_all("/v1/nodes", state="draining")
    assert {name: node[name] for name in ("name", "message", "labels", "cpu_millis", "memory_bytes")} == {
        "name": "one",
        "message": "new kernel",
        "labels": {"zone": "a"},
        "cpu_millis": 1,
        "memory_bytes": 2,
    }
    assert [each["state"] for each in await reader.get_all("/v1/nodes")] == ["draining", "active", None]
    assert [each["id"] for each in await reader.get_all("/v1/nodes", name="two")] == [OTHER_NODE]
    waiting = (await reader.get(f"/v1/nodes/{awaited}")).body
    assert (waiting["name"], waiting["expires_at"]) == (None, "2026-01-02T00:00:00Z")

    for status, number in (("booting", 1), ("ready", 2), ("failed", 3), ("stopped", 4)):
        listed = await reader.get_all("/v1/instances", status=status, node_id=NODE, env_id=ENV)
        assert [each["id"] for each in listed] == [make_id("instance", number)]
    ready = (await reader.get(f"/v1/instances/{make_id('instance', 2)}")).body
    assert ready["endpoints"] == {"http": {"host": "10.0.0.7", "port": 31000}}
    failed = (await reader.get(f"/v1/instances/{make_id('instance', 3)}")).body
    assert (failed["reason_code"], failed["exit_code"], failed["endpoints"]) == ("exited", 1, None)
    answer = await reader.get("/v1/instances", status="gone")
    assert (answer.status, answer.code) == (400, "invalid")
