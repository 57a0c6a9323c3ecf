"""The query service as a service: who may ask, what is not built, whether it is ready, what it documents."""

import asyncio
from typing import Any

from keelson.query.app import build_app
from keelson.query.settings import QuerySettings
from keelson.views import PROJECTIONS
from support.database import Cluster, Database
from support.log import connected
from support.query_world import APP, TOKEN, open_world, served
from support.waiting import eventually

PUBLIC = {"/healthz", "/readyz", "/metrics", "/openapi.json"}


def paths_of(database: Database) -> list[str]:
    """Give every path that the service has, its parameters filled in."""
    app = build_app(QuerySettings(database_url=database.query_dsn, operator_token=TOKEN))
    templates = [str(getattr(route, "path", "")) for route in app.routes]
    return [path.replace("{id}", APP).replace("{aggregate_id}", APP) for path in templates]


async def test_f41_every_path_but_the_public_ones_needs_the_operator(database: Database) -> None:
    paths = paths_of(database)
    assert set(paths) > PUBLIC
    async with open_world(database), served(database) as reader:
        for path in paths:
            for token in (None, "wrong", TOKEN[:-1]):
                answer = await reader.get(path, token=token)
                if path in PUBLIC:
                    assert answer.status == 200, path
                else:
                    assert (answer.status, answer.code) == (401, "unauthenticated"), path


async def test_every_answer_says_the_epoch(database: Database) -> None:
    async with open_world(database) as world, served(database) as reader:
        for path in paths_of(database):
            answer = await reader.get(path)
            assert answer.headers["Keelson-Epoch"] == world.epoch, path
            assert answer.status < 500, path


async def test_what_is_not_built_yet_says_so(database: Database) -> None:
    async with open_world(database), served(database) as reader:
        for path in (
            f"/v1/nodes/{APP}/desired?as_of=5",
            "/v1/edge/desired?as_of=1",
            "/v1/diff?from=1&to=2",
        ):
            answer = await reader.get(path)
            assert (answer.status, answer.code) == (400, "not_supported"), path
        for path in ("/v1/ships", "/v1/apps/", "/v2/apps", f"/v1/apps/{APP}/crew"):
            answer = await reader.get(path)
            assert (answer.status, answer.code) == (404, "not_found"), path


async def test_a_header_that_means_nothing_here_is_not_ignored(database: Database) -> None:
    async with open_world(database), served(database) as reader:
        for path in ("/v1/apps", f"/v1/apps/{APP}", "/v1/events", f"/v1/history/{APP}", "/v1/projections"):
            answer = await reader.get(path, headers={"Keelson-Reason": "curiosity"})
            assert (answer.status, answer.code) == (400, "not_supported"), path


async def test_ready_when_the_views_are_there_in_this_version(database: Database) -> None:
    async with open_world(database) as world, served(database) as reader:

        async def read_checks() -> tuple[int, Any]:
            answer = await reader.get("/readyz", token=None)
            return answer.status, answer.body["checks"]["views"]

        assert await read_checks() == (200, "ok")
        await world.projector.execute("UPDATE ops.checkpoints SET state = 'stopped' WHERE projection = 'tenancy'")
        assert await read_checks() == (200, "ok"), "views of a stopped projection still serve"
        await world.projector.execute("UPDATE ops.checkpoints SET version = 99 WHERE projection = 'tenancy'")
        status, verdict = await read_checks()
        assert (status, "version 99" in verdict, "tenancy" in verdict) == (503, True, True)
        version = PROJECTIONS["tenancy"].version
        await world.projector.execute("UPDATE ops.checkpoints SET version = $1 WHERE projection = 'tenancy'", version)
        await world.projector.execute("DROP VIEW views.edge_desired")
        assert await read_checks() == (503, "views are missing: edge_desired")
        await world.projector.execute("DROP TABLE views.projects")
        status, verdict = await read_checks()
        assert (status, "projects" in verdict) == (503, True)
        async with connected(database.admin_dsn) as admin:  # no service may
            await admin.execute("DELETE FROM ops.checkpoints WHERE projection = 'tenancy'")
        status, verdict = await read_checks()
        assert (status, "tenancy" in verdict) == (503, True)


async def test_not_ready_on_a_database_that_was_not_migrated(cluster: Cluster) -> None:
    async with cluster.fresh_database(migrated=False) as empty:
        app = build_app(QuerySettings(database_url=empty.query_dsn, operator_token=TOKEN))
        async with app.lifecycle.run_within():
            await eventually(lambda: "migrations are missing" in app.lifecycle.waits_for)
            assert not app.lifecycle.answers


async def test_f8_reads_come_back_with_the_database(database: Database, cluster: Cluster) -> None:
    """While the database refuses, answers are 503 and readiness says so; afterwards all is as before."""
    async with open_world(database) as world, served(database) as reader:
        await world.append_base()
        await world.project()
        assert (await reader.get(f"/v1/apps/{APP}")).status == 200
        await asyncio.to_thread(cluster.server.stop)
        try:
            answer = await reader.get(f"/v1/apps/{APP}")
            assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "unavailable", "1")
            ready = await reader.get("/readyz", token=None)
            assert (ready.status, ready.body["ready"]) == (503, False)
            assert (await reader.get("/healthz", token=None)).status == 200
        finally:
            await asyncio.to_thread(cluster.server.start)

        async def is_back() -> bool:
            return (await reader.get("/readyz", token=None)).status == 200

        await eventually(is_back)
        answer = await reader.get(f"/v1/apps/{APP}")
        assert (answer.status, answer.body["name"]) == (200, "shop")


async def test_f24_a_rebuild_is_swapped_in_under_reads(database: Database) -> None:
    """Tables that are exchanged under cached plans cost no reader an error."""
    async with open_world(database) as world, served(database) as reader:
        await world.append_base()
        await world.project()

        async def swap() -> None:
            for _ in range(30):
                async with world.projector.transaction():
                    await world.projector.execute("CREATE TABLE views_next.apps (LIKE views.apps INCLUDING ALL)")
                    await world.projector.execute("INSERT INTO views_next.apps SELECT * FROM views.apps")
                    await world.projector.execute("DROP TABLE views.apps")
                    await world.projector.execute("ALTER TABLE views_next.apps SET SCHEMA views")

        swapping = asyncio.create_task(swap())
        while not swapping.done():
            answers = await asyncio.gather(*(reader.get(f"/v1/apps/{APP}") for _ in range(8)), reader.get("/v1/apps"))
            assert [answer.status for answer in answers] == [200] * 9, [answer.body for answer in answers]
        await swapping


async def test_the_document_describes_every_path(database: Database) -> None:
    async with open_world(database), served(database) as reader:
        document = (await reader.get("/openapi.json", token=None)).body
    paths = document["paths"]
    collections = {table.name for each in PROJECTIONS.values() for table in each.tables if table.collection}
    assert {f"/v1/{name}" for name in collections} | {f"/v1/{name}/{{id}}" for name in collections} <= set(paths)
    assert {"/v1/events", "/v1/history/{aggregate_id}", "/v1/projections", "/v1/activity"} <= set(paths)
    assert "/v1/envs/{id}/processes" in paths
    parameters = [each for each in paths["/v1/deploys"]["get"]["parameters"] if "$ref" not in each]
    deploys = {each["name"]: each["schema"] for each in parameters}
    assert set(deploys) == {
        *("min_position", "limit", "cursor", "deleted"),
        *("org_id", "project_id", "app_id", "env_id", "status", "Prefer"),
    }
    assert deploys["status"]["enum"] == ["failed", "queued", "rolling", "succeeded", "superseded"]
    row = document["components"]["schemas"]["AppRow"]["properties"]
    assert {"id", "org_id", "project_id", "name", "resource_version", "position", "created_at"} <= set(row)


def test_its_port_by_default() -> None:
    assert QuerySettings(database_url="postgresql://localhost/x", operator_token=TOKEN).port == 8082
