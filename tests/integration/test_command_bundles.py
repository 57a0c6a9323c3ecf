"""Bundles over HTTP: several commands that succeed or fail as one."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from keelson.log.claims import verify_claims
from support.command_world import IMAGE, Answer, Replica, World, open_world
from support.database import Database
from support.specs import APP, DEPLOY, ENV, ORG, PROJECT, RELEASE, ROUTE, id_of


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database) as world:
        yield world


@pytest.fixture
def replica(world: World) -> Replica:
    return world.replica


def part(name: str, /, *, if_match: int | None = None, **data: Any) -> dict[str, Any]:
    """Give one command of a bundle."""
    return {"name": name, "data": data} | ({} if if_match is None else {"if_match": if_match})


WEB = {"command": ["x"], "ports": [{"name": "http", "port": 8080}]}
PLATFORM = (
    part("org.create", org_id=ORG, name="acme"),
    part("project.create", project_id=PROJECT, org_id=ORG, name="web"),
    part("app.create", app_id=APP, project_id=PROJECT, name="shop"),
    part("env.create", env_id=ENV, app_id=APP, name="production"),
    part("release.create", release_id=RELEASE, app_id=APP, image=IMAGE, processes={"web": WEB}),
    part("deploy.create", deploy_id=DEPLOY, env_id=ENV, release_id=RELEASE),
)


async def test_ids_chosen_by_the_client_tie_the_commands_together(world: World, replica: Replica) -> None:
    answer = await replica.bundle(*PLATFORM, part("org.rename", org_id=ORG, name="acme"))
    assert answer.status == 200, answer.body
    assert (answer.body["position"], answer.body["changed"], answer.body["projected"]) == (8, True, False)
    assert answer.headers["Keelson-Position"] == "8"
    results = answer.body["results"]
    assert [each["changed"] for each in results] == [True] * 6 + [False]
    assert [[event["type"] for event in each["events"]] for each in results] == [
        ["org.created"],
        ["project.created"],
        ["app.created"],
        ["env.created"],
        ["release.created"],
        ["deploy.created", "env.release_set"],
        [],
    ]
    assert results[4]["result"] == {"release_id": RELEASE, "number": 1}
    assert [event["position"] for each in results for event in each["events"]] == list(range(2, 9))
    assert await world.head() == 8


async def test_all_its_events_are_of_one_command(world: World, replica: Replica) -> None:
    await replica.bundle(*PLATFORM, headers={"Keelson-Correlation-Id": "c", "X-Request-Id": "r"})
    events = await world.events(1)
    assert len({event.command_id for event in events}) == 1
    assert [event.command_end for event in events] == [False] * 6 + [True]
    assert {(event.reason, event.correlation_id, event.request_id) for event in events} == {("a test", "c", "r")}
    assert len({event.recorded_at for event in events}) == 1


def refused(answer: Answer, status: int, code: str, index: int | None) -> None:
    assert (answer.status, answer.code) == (status, code), answer.body
    assert answer.body.get("command_index") == index


async def test_nothing_is_done_when_one_is_refused(world: World, replica: Replica) -> None:
    answer = await replica.bundle(*PLATFORM, part("env.scale", env_id=ENV, replicas={"jobs": 2}))
    refused(answer, 422, "unknown_process", 6)
    assert await world.head() == 1
    assert (await replica.bundle(*PLATFORM)).status == 200


async def test_a_refusal_names_its_command_in_a_bundle_of_one_too(replica: Replica) -> None:
    refused(await replica.bundle(part("org.rename", org_id=ORG, name="x")), 404, "not_found", 0)
    alone = await replica.command("org.rename", org_id=ORG, name="x")
    assert "command_index" not in alone.body


async def test_a_taken_name_is_the_fault_of_the_command_that_took_it(replica: Replica) -> None:
    await replica.bundle(*PLATFORM)
    app_2 = id_of("app", 2)
    # The same name goes in other scopes, after and before: only that of the apps has it already.
    answer = await replica.bundle(
        part("org.create", name="shop"),
        part("app.create", app_id=app_2, project_id=PROJECT, name="shop"),
        part("env.create", app_id=app_2, name="shop"),
    )
    refused(answer, 409, "name_taken", 1)
    renamed = await replica.bundle(
        part("app.create", app_id=app_2, project_id=PROJECT, name="store"),
        part("app.rename", app_id=app_2, name="shop"),
        part("app.rename", app_id=app_2, name="shop"),
        part("org.create", name="shop"),
    )
    refused(renamed, 409, "name_taken", 1)


async def test_a_name_freed_by_an_earlier_one_is_free(world: World, replica: Replica) -> None:
    await replica.bundle(*PLATFORM)
    answer = await replica.bundle(
        part("env.delete", env_id=ENV),
        part("env.create", app_id=APP, name="production"),
        part("app.rename", app_id=APP, name="store"),
        part("app.create", project_id=PROJECT, name="shop"),
    )
    assert answer.status == 200, answer.body
    assert [event["type"] for event in answer.body["results"][0]["events"]] == ["deploy.status_changed", "env.deleted"]
    taken = await replica.command("app.create", project_id=PROJECT, name="shop")
    assert taken.code == "name_taken"
    assert await world.head() == 8 + 5


async def test_in_a_bundle_a_hostname_goes_from_route_to_route(world: World, replica: Replica) -> None:
    leads: dict[str, Any] = {"env_id": ENV, "process": "web", "port": "http"}
    other = id_of("route", 2)
    answer = await replica.bundle(
        *PLATFORM,
        part("route.create", route_id=ROUTE, hostname="a.example", **leads),
        part("route.update", route_id=ROUTE, hostname="b.example"),
        part("route.create", route_id=other, hostname="a.example", **leads),
        part("route.delete", route_id=other),
        part("route.update", route_id=ROUTE, hostname="A.example"),
    )
    assert answer.status == 200, answer.body
    assert await verify_claims(world.log) == []
    refused(await replica.bundle(part("route.create", hostname="a.example", **leads)), 409, "name_taken", 0)
    freed = await replica.bundle(part("route.create", hostname="b.example", **leads), part("env.delete", env_id=ENV))
    refused(freed, 409, "in_use", 1)
    assert (await replica.command("route.create", hostname="b.example", **leads)).status == 200


async def test_a_name_that_only_a_later_one_frees_is_taken(replica: Replica) -> None:
    """In order: what the log says in between must be true too, though it is never seen alone."""
    await replica.bundle(*PLATFORM, part("env.create", env_id=id_of("env", 2), app_id=APP, name="staging"))
    swap = [
        part("env.rename", env_id=id_of("env", 2), name="production"),
        part("env.rename", env_id=ENV, name="staging"),
    ]
    refused(await replica.bundle(*swap), 409, "name_taken", 0)
    given_back = part("env.rename", env_id=id_of("env", 2), name="preview")
    refused(await replica.bundle(swap[0], given_back), 409, "name_taken", 0)
    through_a_third = [part("env.rename", env_id=ENV, name="aside"), *swap]
    assert (await replica.bundle(*through_a_third)).status == 200


async def test_a_tree_is_torn_down_at_once(replica: Replica) -> None:
    await replica.bundle(*PLATFORM)
    down = [part("env.delete", env_id=ENV), part("app.delete", app_id=APP), part("project.delete", project_id=PROJECT)]
    refused(await replica.bundle(*reversed(down)), 409, "in_use", 0)
    assert (await replica.bundle(*down)).status == 200
    refused(await replica.bundle(*down), 404, "not_found", 0)
    assert (await replica.command("project.create", org_id=ORG, name="web")).status == 200


async def test_if_match_is_the_seq_that_the_earlier_ones_left(replica: Replica) -> None:
    await replica.bundle(*PLATFORM)
    rename = [
        part("org.rename", org_id=ORG, name="a", if_match=1),
        part("org.rename", org_id=ORG, name="b", if_match=2),
    ]
    assert (await replica.bundle(*rename)).status == 200
    refused(
        await replica.bundle(part("org.rename", org_id=ORG, name="c", if_match=3), rename[0]), 412, "seq_mismatch", 1
    )
    fresh = [
        part("org.create", org_id=id_of("org", 2), name="new"),
        part("org.rename", org_id=id_of("org", 2), name="x"),
    ]
    refused(await replica.bundle(fresh[0], fresh[1] | {"if_match": 0}), 412, "seq_mismatch", 1)
    assert (await replica.bundle(fresh[0], fresh[1] | {"if_match": 1})).status == 200


async def test_a_bundle_that_changes_nothing_says_so(world: World, replica: Replica) -> None:
    await replica.bundle(*PLATFORM)
    answer = await replica.bundle(
        part("org.rename", org_id=ORG, name="acme"), part("app.rename", app_id=APP, name="shop")
    )
    assert answer.body == {
        "position": 8,
        "changed": False,
        "projected": False,
        "results": [
            {"changed": False, "result": {"org_id": ORG}, "events": []},
            {"changed": False, "result": {"app_id": APP}, "events": []},
        ],
    }
    assert await world.head() == 8


async def test_a_hundred_commands_are_a_bundle_and_one_more_is_not(world: World, replica: Replica) -> None:
    names = [part("org.create", name=f"org-{number}") for number in range(101)]
    answer = await replica.bundle(*names)
    assert (answer.status, answer.code) == (400, "invalid")
    assert [error["pointer"] for error in answer.body["errors"]] == ["/commands"]
    assert (await replica.bundle(*names[:100])).status == 200
    assert await world.head() == 101


async def test_a_small_bundle_of_large_consequences_is_too_large(world: World, replica: Replica) -> None:
    """Each deploy tells its release's processes again: without a bound, 10 KB of commands would append 100 MB."""
    await replica.bundle(*PLATFORM)
    processes = {f"p{number}": {"command": ["x" * 450] * 10} for number in range(100)}
    release = await replica.command("release.create", app_id=APP, image=IMAGE, processes=processes)
    head = await world.head()
    deploy = part("deploy.create", env_id=ENV, release_id=release.result["release_id"])
    refused(await replica.bundle(*[deploy] * 20), 413, "too_large", None)
    assert await world.head() == head
    assert (await replica.bundle(*[deploy] * 2)).status == 200


async def test_an_empty_bundle_is_invalid(replica: Replica) -> None:
    answer = await replica.bundle()
    assert (answer.status, answer.code) == (400, "invalid")


async def test_what_is_wrong_with_one_is_pointed_at(world: World, replica: Replica) -> None:
    good = part("org.create", name="acme")
    invalid = await replica.bundle(good, part("org.create", name="Acme"))
    refused(invalid, 400, "invalid", 1)
    assert [error["pointer"] for error in invalid.body["errors"]] == ["/commands/1/data/name"]
    unfit = await replica.bundle(good, part("org.create", name="x", owner_email="a@b"))
    refused(unfit, 400, "invalid", 1)
    assert [error["pointer"] for error in unfit.body["errors"]] == ["/commands/1/data/owner_email"]
    refused(await replica.bundle(good, part("org.destroy")), 404, "unknown_command", 1)
    refused(await replica.bundle(good, part("org.create", name="x", if_match=1)), 400, "invalid", 1)
    shape = await replica.bundle(good, {**good, "date": {}})
    assert [error["pointer"] for error in shape.body["errors"]] == ["/commands/1/date"]
    assert await world.head() == 1


async def test_deleting_in_a_bundle_needs_the_bundles_reason(replica: Replica) -> None:
    commands = [part("org.create", name="x"), part("app.delete", app_id=APP)]
    body = msgspec.json.encode({"commands": commands})
    answer = await replica.send("POST", "/v1/commands", headers={"Content-Type": "application/json"}, body=body)
    refused(answer, 400, "reason_required", 1)


async def test_a_bundle_has_no_header_if_match(replica: Replica) -> None:
    answer = await replica.bundle(part("org.create", name="x"), headers={"If-Match": '"1"'})
    assert (answer.status, answer.code) == (400, "invalid")
