"""Reading views over HTTP: collections, rows, processes, activity."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from keelson.events.app import AppCreated, AppDeleted, AppRenamed
from keelson.events.deploy import DeployCreated, DeployStatusChanged
from keelson.events.env import EnvConfigSet, EnvProcess, EnvReleaseSet
from keelson.events.release import Port, Process, ReleaseCreated
from keelson.events.route import RouteCreated, RouteDeleted, RouteUpdated
from keelson.log.database import connect
from keelson.log.epochs import LineageError
from keelson.query.confinement import EVERYTHING
from keelson.query.freshness import Floor
from keelson.query.reads import View
from keelson.views import table_named
from keelson.views.sql import select_page, select_rows
from support.database import Database
from support.log import begin_epoch
from support.query_world import APP, ENV, ORG, PROJECT, Reader, World, make_id, open_world, served
from support.waiting import eventually

RELEASE, DEPLOY = make_id("release", 1), make_id("deploy", 1)
WEB = Process(command=("serve", "--fast"), ports=(Port("http", 8080),), cpu_millis=250, memory_bytes=2**28)


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database) as world:
        await world.append_base()
        yield world


@pytest.fixture
async def reader(database: Database, world: World) -> AsyncIterator[Reader]:
    await world.project()
    async with served(database) as reader:
        yield reader


async def deploy(world: World) -> None:
    """Append a release and its deploy."""
    await world.append((RELEASE, ReleaseCreated(number=1, image="shop@sha256:0", processes={"web": WEB})))
    process = EnvProcess(**msgspec.structs.asdict(WEB), replicas=2)
    await world.append(
        (DEPLOY, DeployCreated(release_id=RELEASE, release_number=1, kind="deploy")),
        (
            ENV,
            EnvReleaseSet(deploy_id=DEPLOY, release_id=RELEASE, release_number=1, processes={"web": process}),
        ),
    )


async def test_a_row_has_its_fields_its_ancestors_and_its_stamps(world: World, reader: Reader) -> None:
    answer = await reader.get(f"/v1/apps/{APP}")
    assert answer.status == 200
    created_at = answer.body.pop("created_at")
    assert created_at == answer.body.pop("updated_at")
    assert created_at.endswith("Z")
    assert answer.body == {
        "id": APP,
        "org_id": ORG,
        "project_id": PROJECT,
        "name": "shop",
        "deleted_at": None,
        "resource_version": 1,
        "position": 4,
    }
    assert answer.headers["Keelson-Position"] == str(world.head)
    assert answer.headers["Keelson-Epoch"] == world.epoch
    assert answer.headers["ETag"] == '"1"'


async def test_columns_of_json_are_json(world: World, reader: Reader) -> None:
    await deploy(world)
    await world.append((ENV, EnvConfigSet(variables={"MODE": 'a "b" \u20ac'})))
    await world.project()
    env = (await reader.get(f"/v1/envs/{ENV}")).body
    assert env["variables"] == {"MODE": 'a "b" \u20ac'}
    assert env["replicas"] == {"web": 2}
    release = (await reader.get(f"/v1/releases/{RELEASE}")).body
    assert release["processes"] == {"web": msgspec.json.decode(msgspec.json.encode(WEB))}
    assert release["source"] is None


async def test_a_row_that_is_known_is_not_sent_again(world: World, reader: Reader) -> None:
    path = f"/v1/apps/{APP}"
    for known in ('"1"', 'W/"1"', '"7", "1"', "*"):
        answer = await reader.get(path, headers={"If-None-Match": known})
        assert (answer.status, answer.body) == (304, b""), known
        assert answer.headers["Keelson-Position"] == str(world.head)
        assert answer.headers["ETag"] == '"1"'
    await world.append((APP, AppRenamed(name="store")))
    await world.project()
    answer = await reader.get(path, headers={"If-None-Match": '"1"'})
    assert (answer.status, answer.headers["ETag"], answer.body["name"]) == (200, '"2"', "store")


async def test_an_unknown_id_is_not_found_as_of_a_position(world: World, reader: Reader) -> None:
    for unknown in (make_id("app", 9), ORG, "app_", "shop", "%00", "app_01j\u00e9", "a" * 300):
        answer = await reader.get(f"/v1/apps/{unknown}")
        assert (answer.status, answer.code) == (404, "not_found"), unknown
        assert answer.headers["Keelson-Position"] == str(world.head)


async def test_what_was_deleted_is_read_by_its_id_and_listed_when_asked_for(world: World, reader: Reader) -> None:
    other = make_id("app", 2)
    await world.append((other, AppCreated(name="blog")))
    await world.append((APP, AppDeleted()))
    await world.project()
    assert (await reader.get(f"/v1/apps/{APP}")).body["deleted_at"] is not None
    assert [row["id"] for row in await reader.get_all("/v1/apps")] == [other]
    assert [row["id"] for row in await reader.get_all("/v1/apps", deleted="true")] == [APP, other]


async def test_pages_follow_each_other_to_the_end(world: World, reader: Reader) -> None:
    ids = [make_id("app", number) for number in range(2, 25)]
    for app_id in ids:
        await world.append((app_id, AppCreated(name="x")))
    await world.project()
    assert [row["id"] for row in await reader.get_all("/v1/apps", limit=7)] == [APP, *ids]
    assert [row["id"] for row in await reader.get_all("/v1/apps", limit=24)] == [APP, *ids]
    page = await reader.get("/v1/apps", limit=24)
    assert page.body["next"] is None, "a page that ends with the last row has no next"
    assert page.body["position"] == int(page.headers["Keelson-Position"]) == world.head


async def test_pages_are_stable_under_writes(world: World, reader: Reader) -> None:
    """What exists throughout is listed exactly once, whatever comes and goes between two pages."""
    throughout = [make_id("app", number) for number in range(10, 50, 2)]
    for app_id in throughout:
        await world.append((app_id, AppCreated(name="x")))
    await world.append((APP, AppDeleted()))
    seen: list[str] = []
    parameters: dict[str, Any] = {"limit": 3}
    for number in range(11, 51, 2):
        await world.append((make_id("app", number), AppCreated(name="later")))
        await world.project()
        page = await reader.get("/v1/apps", **parameters)
        seen += [row["id"] for row in page.body["items"]]
        if page.body["next"] is None:
            break
        parameters["cursor"] = page.body["next"]
    assert [app_id for app_id in seen if app_id in throughout] == throughout
    assert sorted(set(seen)) == seen


async def test_f4_a_filtered_page_without_a_match_says_so(world: World, reader: Reader) -> None:
    answer = await reader.get("/v1/apps", project_id=make_id("project", 9))
    assert answer.body == {"items": [], "next": None, "position": world.head}


async def test_filters_narrow_a_collection(world: World, reader: Reader) -> None:
    await deploy(world)
    second = make_id("deploy", 2)
    await world.append((second, DeployCreated(release_id=RELEASE, release_number=1, kind="deploy")))
    await world.append((DEPLOY, DeployStatusChanged(status="superseded")))
    await world.project()
    for filters, expected in (
        ({"status": "queued"}, [second]),
        ({"status": "superseded", "env_id": ENV}, [DEPLOY]),
        ({"env_id": ENV, "app_id": APP, "org_id": ORG}, [DEPLOY, second]),
        ({"env_id": make_id("env", 2)}, []),
    ):
        assert [row["id"] for row in await reader.get_all("/v1/deploys", **filters)] == expected, filters
    assert [row["id"] for row in await reader.get_all("/v1/orgs", name="acme")] == [ORG]
    assert await reader.get_all("/v1/orgs", name="null") == []


async def test_routes_are_found_by_their_hostname_and_their_environment(world: World, reader: Reader) -> None:
    first, second = make_id("route", 1), make_id("route", 2)
    await world.append((first, RouteCreated(hostname="a.example", process="web", port="http")))
    await world.append((second, RouteCreated(hostname="b.example", process="web", port="http")))
    await world.append((first, RouteUpdated(hostname="c.example", process="web", port="admin")))
    await world.project()
    row = (await reader.get(f"/v1/routes/{first}")).body
    leads = {"hostname": "c.example", "process": "web", "port": "admin", "resource_version": 2, "deleted_at": None}
    assert {
        "id": first,
        "org_id": ORG,
        "project_id": PROJECT,
        "app_id": APP,
        "env_id": ENV,
        **leads,
    }.items() <= row.items()
    for filters, expected in (
        ({"env_id": ENV, "app_id": APP, "project_id": PROJECT, "org_id": ORG}, [first, second]),
        ({"hostname": "c.example"}, [first]),
        ({"hostname": "a.example"}, []),
        ({"env_id": make_id("env", 2)}, []),
    ):
        assert [row["id"] for row in await reader.get_all("/v1/routes", **filters)] == expected, filters
    await world.append((first, RouteDeleted()))
    await world.project()
    assert await reader.get_all("/v1/routes", hostname="c.example") == []
    assert [row["id"] for row in await reader.get_all("/v1/routes", hostname="c.example", deleted="true")] == [first]
    history = (await reader.get(f"/v1/history/{first}")).body["items"]
    assert [item["type"] for item in history] == ["route.created", "route.updated", "route.deleted"]
    assert history[1]["changes"] == {"hostname": ["a.example", "c.example"], "port": ["http", "admin"]}
    assert (
        (await reader.get("/v1/activity", aggregate_id=first))
        .body["items"][0]["summary"]
        .startswith(f"operator deleted route {first}")
    )


async def test_what_cannot_be_asked_of_a_collection(reader: Reader) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"limit": 0}, "invalid"),
        ({"limit": 501}, "invalid"),
        ({"limit": "many"}, "invalid"),
        ({"deleted": "perhaps"}, "invalid"),
        ({"colour": "red"}, "invalid"),
        ({"status": "queued"}, "invalid"),
        ({"name": "a\0b"}, "invalid"),
        ({"min_position": "soon"}, "invalid"),
        ({"cursor": "!"}, "bad_cursor"),
        ({"cursor": "MQ"}, "bad_cursor"),
        ({"as_of": 3}, "not_supported"),
    ]
    for parameters, code in refused:
        answer = await reader.get("/v1/apps", **parameters)
        assert (answer.status, answer.code) == (400, code), parameters


async def test_an_environments_processes_are_those_of_its_release(world: World, reader: Reader) -> None:
    path = f"/v1/envs/{ENV}/processes"
    assert (await reader.get(path)).body == {"items": [], "position": world.head}
    await deploy(world)
    await world.project()
    answer = await reader.get(path)
    [process] = answer.body["items"]
    assert answer.body["position"] == world.head
    assert {name: process[name] for name in ("process", "release_id", "release_number", "replicas", "command")} == {
        "process": "web",
        "release_id": RELEASE,
        "release_number": 1,
        "replicas": 2,
        "command": ["serve", "--fast"],
    }
    assert process["ports"] == [{"name": "http", "port": 8080}]
    missing = await reader.get(f"/v1/envs/{make_id('env', 9)}/processes")
    assert (missing.status, missing.code) == (404, "not_found")


async def test_the_activity_is_newest_first_and_filtered(world: World, reader: Reader) -> None:
    await world.append((APP, AppRenamed(name="store")), actor_id="ada", actor_type="user", reason="a better name")
    await world.project()
    items = await reader.get_all("/v1/activity", limit=2)
    assert [item["position"] for item in items] == list(range(world.head, 0, -1))
    assert items[0]["reason"] == "a better name"
    for filters, expected in (
        ({"actor_id": "ada"}, [6]),
        ({"aggregate_id": APP}, [6, 4]),
        ({"aggregate_type": "env"}, [5]),
        ({"type": "org.created"}, [2]),
        ({"app_id": APP}, [6, 5, 4]),
    ):
        found = await reader.get_all("/v1/activity", **filters)
        assert [item["position"] for item in found] == expected, filters
    for not_built in ({"since": "x"}, {"correlation_id": "x"}, {"as_of": "x"}):
        assert (await reader.get("/v1/activity", **not_built)).code == "not_supported"
    assert (await reader.get("/v1/activity", cursor="MA")).code == "bad_cursor"


async def test_f3_position_and_rows_are_of_one_snapshot(world: World, reader: Reader) -> None:
    """Every page holds exactly the apps that there were at its position, while a projector works."""

    async def write() -> None:
        for number in range(2, 80):
            await world.append((make_id("app", number), AppCreated(name="x")))
            await world.project("platform")

    apps_before = 4  # the first app came at this position, and one with each position after the next
    writing = asyncio.create_task(write())
    while not writing.done():
        page = (await reader.get("/v1/apps", limit=500)).body
        assert len(page["items"]) == 1 + max(page["position"] - apps_before - 1, 0)
    await writing


async def test_min_position_waits_without_any_later_event(world: World, reader: Reader) -> None:
    position = await world.append((APP, AppRenamed(name="store")))
    reading = asyncio.create_task(reader.get(f"/v1/apps/{APP}", min_position=position, headers={"Prefer": "wait=20"}))
    done, _ = await asyncio.wait([reading], timeout=0.2)
    assert not done, "the view is not there yet"
    await world.project("platform")
    answer = await reading
    assert (answer.status, answer.body["name"]) == (200, "store")
    assert answer.headers["Preference-Applied"] == "wait=20"
    assert int(answer.headers["Keelson-Position"]) >= position


async def test_f19_min_position_waits_at_most_a_poll_for_a_checkpoint_nobody_announced(
    world: World, reader: Reader
) -> None:
    position = await world.append((APP, AppRenamed(name="store")))
    reading = asyncio.create_task(reader.get("/v1/apps", min_position=f"{world.epoch}-{position}"))
    await world.project("platform", announce=False)
    answer = await asyncio.wait_for(reading, 3)
    assert (answer.status, answer.body["position"]) == (200, position)


async def test_min_position_that_is_not_reached_in_time(world: World, reader: Reader) -> None:
    reached = world.head
    position = await world.append((APP, AppRenamed(name="store")))
    for path in (f"/v1/apps/{APP}", "/v1/apps", f"/v1/envs/{ENV}/processes", "/v1/activity"):
        answer = await reader.get(path, min_position=position, headers={"Prefer": "wait=0"})
        assert (answer.status, answer.code) == (504, "not_yet")
        assert answer.body["position"] == reached
        assert answer.headers["Keelson-Position"] == str(reached)
    beyond = await reader.get("/v1/apps", min_position=world.head + 1000, headers={"Prefer": "wait=0"})
    assert (beyond.status, beyond.code) == (504, "not_yet")


async def test_a_wait_is_clamped(world: World, reader: Reader) -> None:
    answer = await reader.get("/v1/apps", min_position=world.head, headers={"Prefer": "wait=4000"})
    assert (answer.status, answer.headers["Preference-Applied"]) == (200, "wait=30")


async def test_f26_a_position_of_another_epoch_is_gone(reader: Reader) -> None:
    answer = await reader.get("/v1/apps", min_position="other-1")
    assert (answer.status, answer.code) == (410, "cursor_expired")


async def test_a_stopped_projection_ends_the_wait_at_once(database: Database, world: World) -> None:
    await world.project()
    await world.projector.execute("UPDATE ops.checkpoints SET state = 'stopped' WHERE projection = 'platform'")
    position = await world.append((APP, AppRenamed(name="store")))
    async with served(database) as reader:
        waiting = reader.get("/v1/apps", min_position=position, headers={"Prefer": "wait=30"})
        answer = await asyncio.wait_for(waiting, 5)
        assert (answer.status, answer.code) == (504, "not_yet")
        assert "stopped" in answer.body["detail"]
        assert (await reader.get("/v1/projects")).status == 200, "the others go on"


async def test_waiting_holds_no_connection(database: Database, world: World) -> None:
    await world.project()
    async with served(database, pool_size=1) as reader:
        waiting = [
            asyncio.create_task(reader.get("/v1/apps", min_position=world.head + 1, headers={"Prefer": "wait=20"}))
            for _ in range(20)
        ]
        assert (await reader.get(f"/v1/apps/{APP}")).status == 200
        await world.append((APP, AppRenamed(name="store")))
        await world.project()
        assert [answer.status for answer in await asyncio.gather(*waiting)] == [200] * 20


async def test_a_view_that_is_not_built_is_a_matter_of_time(database: Database, world: World) -> None:
    async with served(database) as reader:
        await world.projector.execute("DROP TABLE views.apps")
        answer = await reader.get("/v1/apps")
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "unavailable", "1")


async def test_hot_reads_are_index_scans(world: World, database: Database) -> None:
    """Both of the hot reads find their rows by an index, however large the table is."""
    await world.project()
    projection, apps = table_named("apps")
    query = await connect(database.query_dsn, application_name="test-explain", enable_seqscan="off")
    try:
        for statement, arguments in (
            (select_rows(apps), (projection.name, [APP])),
            (select_page(apps, ("project_id",), deleted=False), (projection.name, "", 10, PROJECT)),
        ):
            plan = "\n".join(row[0] for row in await query.fetch(f"EXPLAIN {statement}", *arguments))
            assert "Index" in plan
            assert "Seq Scan on apps" not in plan
    finally:
        await query.close()


async def test_f26_a_wait_that_ends_in_another_epoch_shows_nothing_of_it(world: World, reader: Reader) -> None:
    """Whatever the view has reached by then: the position that was asked for is of a history that has ended."""
    waits = reader.app.state.freshness._checkpoints._waits
    wanted = f"{world.epoch}-{world.head + 2}"
    asking = asyncio.create_task(reader.get("/v1/apps", min_position=wanted, headers={"Prefer": "wait=20"}))
    await eventually(lambda: waits)
    await world.owner.execute("UPDATE log.head SET epoch = 'another'")
    for name in ("one", "two", "three"):
        await world.append((APP, AppRenamed(name=name)))
    await world.project()
    answer = await asking
    assert (answer.status, answer.code) == (410, "cursor_expired")
    assert answer.headers["Keelson-Epoch"] == "another"


async def test_f26_an_entity_tag_is_of_one_history(world: World, reader: Reader) -> None:
    """The same version of the same row may be something else in another; what was there before stays known."""
    await world.append((APP, AppRenamed(name="lost")))
    await world.project()
    lost = await reader.get(f"/v1/apps/{APP}")
    assert (lost.headers["ETag"], lost.body["name"]) == ('"2"', "lost")
    # As a log that was put back before the renaming, and got its epoch.
    await world.owner.execute("ALTER TABLE log.events DISABLE TRIGGER USER")
    await world.owner.execute("DELETE FROM log.events WHERE position = $1", world.head)
    await world.owner.execute("UPDATE log.head SET position = $1", world.head - 1)
    await world.projector.execute("DELETE FROM views.activity WHERE position = $1", world.head)
    await begin_epoch(world.owner, "another")
    world.forget_seq(APP)
    await world.append((APP, AppRenamed(name="another")))
    await world.projector.execute("UPDATE ops.checkpoints SET position = position - 1")
    await world.project()
    answer = await reader.get(f"/v1/apps/{APP}", headers={"If-None-Match": lost.headers["ETag"]})
    assert (answer.status, answer.headers["ETag"], answer.body["name"]) == (200, '"2.another"', "another")
    assert (await reader.get(f"/v1/apps/{APP}", headers={"If-None-Match": '"2.another"'})).status == 304
    assert (await reader.get(f"/v1/projects/{PROJECT}", headers={"If-None-Match": '"1"'})).status == 304


async def test_f26_rows_of_a_server_that_was_replaced_are_not_shown(world: World, reader: Reader) -> None:
    """They were asked for before the process knew, and came late."""
    reading = await View(*table_named("apps")).read_rows(reader.app.state.pool, [APP], reach=EVERYTHING)
    assert reading.epoch == world.epoch
    reader.app.state.epoch.learn("another")
    with pytest.raises(LineageError):
        reader.app.state.freshness.check(Floor(), "tenancy", reading.checkpoint, reading.epoch)
    assert (await reader.get("/v1/apps")).status == 503
