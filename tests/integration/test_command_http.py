"""The command service over HTTP, on a real PostgreSQL: headers, answers, problems, as the API says."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from keelson.command.registry import HANDLERS
from keelson.log.database import Connection, connect
from keelson.service.checkpoints import CHANNEL
from keelson.views import PROJECTIONS
from support.command_world import IMAGE, TOKEN, Replica, World, open_world
from support.database import Database
from support.specs import id_of
from support.waiting import eventually

JSON = {"Content-Type": "application/json"}
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database) as world:
        yield world


@pytest.fixture
def replica(world: World) -> Replica:
    return world.replica


async def test_a_change_is_answered_with_its_events(world: World, replica: Replica) -> None:
    answer = await replica.command("org.create", name="acme")
    assert answer.status == 200
    org_id = answer.body["result"].pop("org_id")
    assert answer.body == {
        "position": 2,
        "changed": True,
        "projected": False,
        "result": {},
        "events": [{"position": 2, "type": "org.created", "version": 1, "aggregate_id": org_id, "seq": 1}],
    }
    assert answer.headers["Keelson-Position"] == "2"
    assert answer.headers["Keelson-Epoch"] == await world.epoch()
    assert answer.headers["Content-Type"] == "application/json"
    assert "Preference-Applied" not in answer.headers
    assert [event.aggregate_id for event in await world.events(1)] == [org_id]


async def test_no_change_is_answered_with_the_position_that_was_confirmed(world: World, replica: Replica) -> None:
    org_id = await replica.create("org", name="acme")
    await replica.create("org", name="other")
    answer = await replica.command("org.rename", org_id=org_id, name="acme")
    assert answer.body == {
        "position": 3,
        "changed": False,
        "projected": False,
        "result": {"org_id": org_id},
        "events": [],
    }
    assert answer.headers["Keelson-Position"] == "3"
    assert await world.head() == 3


async def test_a_command_of_several_events_answers_with_all(world: World, replica: Replica) -> None:
    app_id = await world.create_app()
    env_id, release_id = await world.create_env(app_id), await world.create_release(app_id)
    first = (await replica.command("deploy.create", env_id=env_id, release_id=release_id)).result["deploy_id"]
    answer = await replica.command("deploy.create", env_id=env_id, release_id=release_id)
    head = await world.head()
    second = answer.result["deploy_id"]
    assert [
        (event["position"], event["type"], event["aggregate_id"], event["seq"]) for event in answer.body["events"]
    ] == [
        (head - 2, "deploy.status_changed", first, 2),
        (head - 1, "deploy.created", second, 1),
        (head, "env.release_set", env_id, 3),
    ]
    assert answer.body["position"] == head


async def test_the_events_say_who_why_and_in_which_connection(world: World, replica: Replica) -> None:
    app_id = await world.create_app()
    env_id, release_id = await world.create_env(app_id), await world.create_release(app_id)
    before = await world.head()
    headers = {
        "Keelson-Reason": "größer, weil nötig",
        "X-Request-Id": "request-1",
        "Keelson-Correlation-Id": "incident-7",
        "Keelson-Causation": "3",
        "traceparent": TRACEPARENT,
    }
    answer = await replica.command("deploy.create", headers=headers, env_id=env_id, release_id=release_id)
    assert answer.headers["X-Request-Id"] == "request-1"
    events = await world.events(before)
    assert [event.command_end for event in events] == [False, True]
    assert len({event.command_id for event in events}) == 1
    for event in events:
        assert (event.actor_type, event.actor_id) == ("system", "operator")
        assert event.reason == "größer, weil nötig"
        assert event.request_id == "request-1"
        assert event.correlation_id == "incident-7"
        assert event.causation_id == 3
        assert event.traceparent == TRACEPARENT
        assert (event.app_id, event.env_id) == (app_id, env_id)


async def test_without_headers_the_events_say_less(world: World, replica: Replica) -> None:
    answer = await replica.send("POST", "/v1/commands/org.create", headers=JSON, body=b'{"name": "acme"}')
    (event,) = await world.events(1)
    assert event.request_id == answer.headers["X-Request-Id"] != ""
    assert (event.reason, event.correlation_id, event.causation_id, event.traceparent) == (None, None, None, None)
    assert event.command_id.startswith("command_")
    assert event.command_end


async def test_an_unfit_request_id_is_replaced_and_an_unfit_traceparent_left_out(
    world: World, replica: Replica
) -> None:
    headers = {"X-Request-Id": "not fit", "traceparent": "not fit"}
    answer = await replica.command("org.create", headers=headers, name="acme")
    (event,) = await world.events(1)
    assert event.request_id == answer.headers["X-Request-Id"] != "not fit"
    assert event.traceparent is None


async def test_every_command_works(replica: Replica) -> None:  # noqa: PLR0915 - one history, and ever more commands
    """One history in which every command that exists is carried out."""
    done: list[str] = []

    async def do(name: str, /, by: str | None = TOKEN, **data: Any) -> dict[str, Any]:
        answer = await replica.send_as(by, name, **data)
        assert answer.status == 200, answer.body
        assert answer.body["changed"], name
        done.append(name)
        result: dict[str, Any] = answer.body["result"]
        return result

    org_id = (await do("org.create", name="acme"))["org_id"]
    await do("org.rename", org_id=org_id, name="umbrella")
    await do("org.set_quota", org_id=org_id, quota={"apps": 3})
    await do("org.add_member", org_id=org_id, email="grace@acme.example", role="owner")
    added = await do("org.add_member", org_id=org_id, email="ada@acme.example", role="admin", name="Ada")
    member = {"org_id": org_id, "member_id": added["member_id"]}
    await do("org.change_member_role", **member, role="owner")
    issued = await do("org.issue_credential", **member, expires_at="2100-01-01T00:00:00Z")
    await do("org.revoke_credential", **member, credential_id=issued["credential_id"])
    await do("org.remove_member", **member)
    await do("org.erase_member", **member)
    principal_id = (await do("principal.create", org_id=org_id, name="ci", scopes=["apps:read"]))["principal_id"]
    await do("principal.set_scopes", principal_id=principal_id, scopes=["apps:read", "deploys:write"])
    issued = await do("principal.issue_credential", principal_id=principal_id)
    await do("principal.revoke_credential", principal_id=principal_id, credential_id=issued["credential_id"])
    await do("principal.delete", principal_id=principal_id)
    project_id = (await do("project.create", org_id=org_id, name="web"))["project_id"]
    await do("project.rename", project_id=project_id, name="site")
    app_id = (await do("app.create", project_id=project_id, name="shop"))["app_id"]
    await do("app.rename", app_id=app_id, name="store")
    env_id = (await do("env.create", app_id=app_id, name="production"))["env_id"]
    await do("env.rename", env_id=env_id, name="live")
    web = {
        "command": ["serve"],
        "ports": [{"name": "http", "port": 80}],
        "health": {"port": "http"},
        "needs_secrets": True,
    }
    release = await do("release.create", app_id=app_id, image=IMAGE, processes={"web": web})
    assert release["number"] == 1
    deploy_id = (await do("deploy.create", env_id=env_id, release_id=release["release_id"]))["deploy_id"]
    await do("deploy.set_status", deploy_id=deploy_id, status="rolling", message="on its way")
    await do("env.scale", env_id=env_id, replicas={"web": 2})
    await do("env.set_config", env_id=env_id, variables={"MODE": "fast"})
    route = {"hostname": "shop.example", "process": "web", "port": "http"}
    route_id = (await do("route.create", env_id=env_id, **route))["route_id"]
    await do("route.update", route_id=route_id, hostname="www.shop.example")
    await do("route.delete", route_id=route_id)
    secret_id = (await do("secret.set", env_id=env_id, values={"KEY": "value"}))["secret_id"]
    machine = await do("node.create_enrollment_token")
    node_id = machine["node_id"]
    capacity = {"cpu_millis": 1000, "memory_bytes": 2**30}
    node = (await do("node.enroll", by=None, token=machine["token"], name="rack-1", **capacity))["credential"]
    placed = await do("instance.allocate", env_id=env_id, process="web", node_id=node_id)
    instance = {"instance_id": placed["instance_id"]}
    endpoints = {"http": {"host": "10.0.0.1", "port": 31000}}
    await do("instance.report_status", by=node, **instance, status="ready", endpoints=endpoints)
    assert (await do("secret.reveal", by=node, **instance))["values"] == {"KEY": "value"}
    await do("instance.set_desired_state", **instance, desired_state="stopped")
    await do("instance.report_status", by=node, **instance, status="stopped")
    await do("node.set_capacity", node_id=node_id, cpu_millis=2000, memory_bytes=2**30)
    await do("node.set_state", node_id=node_id, state="disabled")
    await do("node.remove", node_id=node_id)
    await do("secret.delete", secret_id=secret_id)
    second = await do("release.create", app_id=app_id, image=IMAGE, processes={"web": web})
    await do("deploy.create", env_id=env_id, release_id=second["release_id"])
    await do("env.rollback", env_id=env_id, release_id=release["release_id"])
    await do("env.delete", env_id=env_id)
    await do("app.delete", app_id=app_id)
    await do("project.delete", project_id=project_id)
    assert set(done) == HANDLERS.keys()


# Problems that a handler or the append finds.


async def test_conflicts_with_what_exists(world: World, replica: Replica) -> None:
    app_id = await world.create_app()
    env_id = await world.create_env(app_id)
    head = await world.head()
    project_id = (await world.events(2))[1].project_id
    taken = await replica.command("app.create", project_id=project_id, name="n3")
    assert (taken.status, taken.code) == (409, "name_taken")
    renamed = await replica.command(
        "app.rename", app_id=await replica.create("app", project_id=project_id, name="x"), name="n3"
    )
    assert (renamed.status, renamed.code) == (409, "name_taken")
    again = await replica.command("env.create", app_id=app_id, name="other", env_id=env_id)
    assert (again.status, again.code) == (409, "id_taken")
    used = await replica.command("app.delete", app_id=app_id)
    assert (used.status, used.code) == (409, "in_use")
    assert await world.head() == head + 1


async def test_rules_of_state_are_unprocessable(world: World, replica: Replica) -> None:
    app_id = await world.create_app()
    env_id, release_id = await world.create_env(app_id), await world.create_release(app_id)
    foreign = await world.create_release(await world.create_app())
    wrong = await replica.command("deploy.create", env_id=env_id, release_id=foreign)
    assert (wrong.status, wrong.code) == (422, "wrong_app")
    deploy_id = (await replica.command("deploy.create", env_id=env_id, release_id=release_id)).result["deploy_id"]
    head = await world.head()
    early = await replica.command("deploy.set_status", deploy_id=deploy_id, status="succeeded")
    assert (early.status, early.code) == (422, "invalid_transition")
    unknown = await replica.command("env.scale", env_id=env_id, replicas={"jobs": 1})
    assert (unknown.status, unknown.code) == (422, "unknown_process")
    many = await replica.command("env.scale", env_id=env_id, replicas={"web": 1001})
    assert (many.status, many.code) == (422, "quota_exceeded")
    assert await world.head() == head


async def test_what_a_route_leads_to_must_be_there_and_stay(world: World, replica: Replica) -> None:
    env_id, without_jobs = await world.create_running_env()
    leads = {"env_id": env_id, "process": "jobs", "port": "http"}
    unknown = await replica.command("route.create", hostname="a.example", **leads | {"process": "cron"})
    assert (unknown.status, unknown.code) == (422, "unknown_process")
    unknown = await replica.command("route.create", hostname="a.example", **leads | {"port": "admin"})
    assert (unknown.status, unknown.code) == (422, "unknown_port")
    route_id = await replica.create("route", hostname="Jobs.Shop.Example", **leads)
    head = await world.head()
    taken = await replica.command("route.create", hostname="jobs.shop.EXAMPLE", **leads)
    assert (taken.status, taken.code) == (409, "name_taken")
    broken = await replica.command("deploy.create", env_id=env_id, release_id=without_jobs)
    assert (broken.status, broken.code) == (422, "route_would_break")
    assert f"{route_id} (jobs.shop.example to http of jobs)" in broken.body["detail"]
    used = await replica.command("env.delete", env_id=env_id)
    assert (used.status, used.code) == (409, "in_use")
    assert await world.head() == head
    await replica.command("route.update", route_id=route_id, process="web")
    assert (await replica.command("deploy.create", env_id=env_id, release_id=without_jobs)).status == 200
    await replica.command("route.delete", route_id=route_id)
    assert (await replica.command("env.delete", env_id=env_id)).status == 200


async def test_what_is_deleted_is_not_found_and_its_name_is_free(world: World, replica: Replica) -> None:
    org_id = await world.create_org()
    project_id = await replica.create("project", org_id=org_id, name="web")
    await replica.command("project.delete", project_id=project_id)
    gone = await replica.command("project.rename", project_id=project_id, name="x")
    assert (gone.status, gone.code) == (404, "not_found")
    orphan = await replica.command("app.create", project_id=project_id, name="x")
    assert (orphan.status, orphan.code) == (404, "not_found")
    assert await replica.create("project", org_id=org_id, name="web") != project_id


# If-Match.


async def test_if_match_acts_at_that_seq_only(world: World, replica: Replica) -> None:
    org_id = await world.create_org()
    first = await replica.command("org.rename", headers={"If-Match": '"1"'}, org_id=org_id, name="a")
    assert first.status == 200
    second = await replica.command("org.rename", headers={"If-Match": '"1"'}, org_id=org_id, name="b")
    assert (second.status, second.code) == (412, "seq_mismatch")
    assert await world.head() == 3


async def test_if_match_comes_before_other_refusals_but_not_before_404(world: World, replica: Replica) -> None:
    app_id = await world.create_app()
    await world.create_env(app_id)
    mismatch = {"If-Match": '"9"'}
    used = await replica.command("app.delete", headers=mismatch, app_id=app_id)
    assert (used.status, used.code) == (412, "seq_mismatch")
    unchanged = await replica.command("app.rename", headers=mismatch, app_id=app_id, name="n3")
    assert (unchanged.status, unchanged.code) == (412, "seq_mismatch")
    gone = await replica.command("app.delete", headers=mismatch, app_id=id_of("app"))
    assert (gone.status, gone.code) == (404, "not_found")


# Prefer: wait. No projector runs here; the tests say what it would.


@pytest.fixture
async def projector(database: Database) -> AsyncIterator[Connection]:
    """Lend a connection of the projector, all of whose projections have reached position 1."""
    connection = await connect(database.projector_dsn, application_name="test-projector")
    try:
        for name in PROJECTIONS:
            await connection.execute("INSERT INTO ops.checkpoints VALUES ($1, 1, 1, 'running')", name)
        yield connection
    finally:
        await connection.close()


async def move(projector: Connection, position: int, *names: str) -> None:
    """Say that projections have reached a position."""
    for name in names:
        await projector.execute("UPDATE ops.checkpoints SET position = $2 WHERE projection = $1", name, position)
        await projector.execute("SELECT pg_notify($1, $2)", CHANNEL, f"{name} {position}")


async def test_waiting_ends_in_time_and_says_what_was_applied(replica: Replica) -> None:
    answer = await replica.command("org.create", headers={"Prefer": "wait=0"}, name="acme")
    assert answer.status == 200
    assert answer.body["projected"] is False
    assert answer.headers["Preference-Applied"] == "wait=0"


async def test_a_command_waits_for_the_views_that_its_events_concern_and_no_others(
    projector: Connection, world: World, replica: Replica
) -> None:
    waiting = asyncio.create_task(replica.command("org.create", headers={"Prefer": "wait=60"}, name="acme"))
    await eventually(lambda: _is_at(world, 2))
    await move(projector, 2, "activity", "tenancy")
    answer = await waiting
    assert (answer.status, answer.body["projected"]) == (200, True)
    assert answer.headers["Preference-Applied"] == "wait=30"


async def test_no_change_waits_for_what_was_confirmed(projector: Connection, world: World, replica: Replica) -> None:
    org_id = await replica.create("org", name="acme")
    rename = replica.command("org.rename", headers={"Prefer": "wait=30"}, org_id=org_id, name="acme")
    waiting = asyncio.create_task(rename)
    await move(projector, await world.head(), *PROJECTIONS)
    answer = await waiting
    assert (answer.body["changed"], answer.body["position"], answer.body["projected"]) == (False, 2, True)


async def test_nobody_waits_for_a_projection_that_is_stopped(projector: Connection, replica: Replica) -> None:
    await projector.execute("UPDATE ops.checkpoints SET state = 'stopped' WHERE projection = 'tenancy'")
    state = replica.app.state.checkpoints.state_of
    await eventually(lambda: state("tenancy") == "stopped")
    async with asyncio.timeout(10):
        answer = await replica.command("org.create", headers={"Prefer": "wait=30"}, name="acme")
    assert (answer.status, answer.body["projected"]) == (200, False)


async def _is_at(world: World, position: int) -> bool:
    return await world.head() == position


# Lists and documents.


async def test_the_commands_are_listed_with_their_schemas(replica: Replica) -> None:
    answer = await replica.send("GET", "/v1/commands")
    items = {item["name"]: item for item in answer.body["items"]}
    assert items.keys() == HANDLERS.keys()
    assert all(item["summary"] for item in items.values())
    schema = items["app.create"]["schema"]
    definition = schema["$defs"]["CreateApp"] if "$defs" in schema else schema
    assert definition["additionalProperties"] is False
    assert set(definition["required"]) == {"project_id", "name"}


async def test_openapi_describes_every_command(replica: Replica) -> None:
    document = (await replica.send("GET", "/openapi.json", token=None)).body
    assert document["openapi"].startswith("3.1")
    for name in HANDLERS:
        operation = document["paths"][f"/v1/commands/{name}"]["post"]
        assert "200" in operation["responses"]
    assert {"get", "post"} <= document["paths"]["/v1/commands"].keys()
    _require_no_dangling_reference(document, document)


def _require_no_dangling_reference(document: dict[str, Any], part: Any) -> None:
    if isinstance(part, list):
        for each in part:
            _require_no_dangling_reference(document, each)
    elif isinstance(part, dict):
        if isinstance(reference := part.get("$ref"), str):
            target: Any = document
            for step in reference.removeprefix("#/").split("/"):
                target = target[step.replace("~1", "/").replace("~0", "~")]
        for each in part.values():
            _require_no_dangling_reference(document, each)


async def test_health_readiness_and_metrics_are_public(replica: Replica) -> None:
    assert (await replica.send("GET", "/healthz", token=None)).status == 200
    ready = await replica.send("GET", "/readyz", token=None)
    assert (ready.status, ready.body["ready"]) == (200, True)
    metrics = await replica.send("GET", "/metrics", token=None)
    assert b"keelson_append_group_decisions" in metrics.body
