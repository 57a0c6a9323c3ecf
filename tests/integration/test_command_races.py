"""Two replicas of the command service at once: what the log decides, whatever each of them believed.

Each promise is a check on a world; where a bug is planted, the same check must fail.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from keelson.command import decide
from keelson.log.confirm import Confirmation, confirm
from keelson.log.database import Database as Queried
from keelson.log.decision import IdempotencyKey, ReadSet
from support.command_world import IMAGE, OTHER_TOKEN, Answer, Replica, World, open_world
from support.database import Database
from support.specs import APP, ORG, PROJECT, id_of

Check = Callable[[World], Awaitable[None]]
Send = Callable[[Replica, int], Awaitable[Answer]]


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database, replicas=2) as world:
        yield world


async def at_once(world: World, callers: int, send: Send) -> list[Answer]:
    """Let so many callers send, spread over the replicas."""
    return await asyncio.gather(*(send(world.replicas[n % len(world.replicas)], n) for n in range(callers)))


def statuses(answers: list[Answer]) -> Counter[int]:
    return Counter(answer.status for answer in answers)


# F12: one name.


async def test_f12_of_two_creates_of_one_name_at_once_one_wins(world: World) -> None:
    org_id = await world.create_org()
    # The two of each name go to different replicas.
    answers = await at_once(world, 20, lambda r, n: r.command("project.create", org_id=org_id, name=f"web-{n // 2}"))
    for pair in zip(answers[::2], answers[1::2], strict=True):
        won, lost = sorted(pair, key=lambda answer: answer.status)
        assert (won.status, lost.status, lost.code) == (200, 409, "name_taken")
    assert await world.head() == 2 + 10


async def test_f12_of_many_in_one_append_group_one_wins(world: World) -> None:
    org_id = await world.create_org()
    answers = await at_once(world, 40, lambda r, _: r.command("project.create", org_id=org_id, name="web"))
    assert statuses(answers) == {200: 1, 409: 39}
    assert {answer.code for answer in answers if answer.status == 409} == {"name_taken"}
    assert await world.head() == 3


async def test_f12_of_two_creates_of_one_id_at_once_one_wins(world: World) -> None:
    answers = await at_once(world, 20, lambda r, n: r.command("org.create", org_id=ORG, name=f"org-{n}"))
    assert statuses(answers) == {200: 1, 409: 19}
    assert {answer.code for answer in answers if answer.status == 409} == {"id_taken"}


async def test_f12_a_parent_is_never_deleted_under_a_child(world: World) -> None:
    project_id = await world.create_project()
    for turn in range(10):
        app_id = await world.replica.create("app", project_id=project_id, name=f"app-{turn}")
        deleted, created = await asyncio.gather(
            world.replicas[turn % 2].command("app.delete", app_id=app_id),
            world.replicas[1 - turn % 2].command("env.create", app_id=app_id, name="x"),
        )
        assert (deleted.status, created.status) in {(200, 404), (409, 200)}


# F13: contention on one aggregate.


async def test_f13_callers_contending_for_one_aggregate_succeed_or_hear_409(world: World) -> None:
    env_id = await world.create_env()
    before = await world.head()
    answers = await at_once(
        world, 32, lambda r, n: r.command("env.set_config", env_id=env_id, variables={"CALLER": str(n)})
    )
    assert statuses(answers).keys() <= {200, 409}, statuses(answers)
    assert {answer.code for answer in answers if answer.status == 409} <= {"concurrent_change"}
    done = [answer.body["position"] for answer in answers if answer.status == 200]
    assert sorted(done) == list(range(before + 1, await world.head() + 1))
    assert [event.seq for event in await world.events(before)] == list(range(2, 2 + len(done)))
    # Within a replica they take turns: it is not luck that most succeed.
    assert len(done) >= 16


async def test_f13_releases_made_at_once_are_numbered_without_gaps(world: World) -> None:
    app_id = await world.create_app()
    processes = {"web": {"command": ["x"]}}
    answers = await at_once(
        world, 32, lambda r, _: r.command("release.create", app_id=app_id, image=IMAGE, processes=processes)
    )
    assert statuses(answers).keys() <= {200, 409}, statuses(answers)
    numbers = sorted(answer.result["number"] for answer in answers if answer.status == 200)
    assert numbers == list(range(1, len(numbers) + 1))


async def test_f13_deploys_made_at_once_leave_one_open(world: World) -> None:
    app_id = await world.create_app()
    env_id, release_id = await world.create_env(app_id), await world.create_release(app_id)
    before = await world.head()
    answers = await at_once(world, 32, lambda r, _: r.command("deploy.create", env_id=env_id, release_id=release_id))
    assert statuses(answers).keys() <= {200, 409}, statuses(answers)
    types = Counter(event.type for event in await world.events(before))
    done = statuses(answers)[200]
    assert types == {"deploy.created": done, "env.release_set": done, "deploy.status_changed": done - 1}


async def test_f13_within_one_replica_nobody_hears_409(database: Database) -> None:
    async with open_world(database) as world:
        app_id = await world.create_app()
        env_id, release_id = await world.create_env(app_id), await world.create_release(app_id)
        answers = await at_once(
            world, 60, lambda r, _: r.command("deploy.create", env_id=env_id, release_id=release_id)
        )
        assert statuses(answers) == {200: 60}


# F13a: what appends nothing was decided on a stale cache.


async def refusals_are_confirmed(world: World) -> None:
    first, second = world.replicas
    app_id = await world.create_app()
    env_id = await world.create_env(app_id)
    assert (await second.command("app.delete", app_id=app_id)).code == "in_use"
    assert (await first.command("env.delete", env_id=env_id)).status == 200
    # The second one still believes that the app has an environment.
    assert (await second.command("app.delete", app_id=app_id)).status == 200


async def transitions_are_confirmed(world: World) -> None:
    first, second = world.replicas
    app_id = await world.create_app()
    env_id, release_id = await world.create_env(app_id), await world.create_release(app_id)
    deploy_id = (await first.command("deploy.create", env_id=env_id, release_id=release_id)).result["deploy_id"]
    early = await second.command("deploy.set_status", deploy_id=deploy_id, status="succeeded")
    assert early.code == "invalid_transition"
    assert (await first.command("deploy.set_status", deploy_id=deploy_id, status="rolling")).status == 200
    # The second one still believes that it is queued.
    assert (await second.command("deploy.set_status", deploy_id=deploy_id, status="succeeded")).status == 200


async def no_changes_are_confirmed(world: World) -> None:
    first, second = world.replicas
    org_id = await world.create_org()
    assert (await second.command("org.rename", org_id=org_id, name="acme")).body["changed"]
    assert (await first.command("org.rename", org_id=org_id, name="umbrella")).body["changed"]
    # The second one still believes that the name is acme.
    answer = await second.command("org.rename", org_id=org_id, name="acme")
    assert (answer.status, answer.body["changed"]) == (200, True)


async def mismatches_are_confirmed(world: World) -> None:
    first, second = world.replicas
    org_id = await world.create_org()
    assert (await second.command("org.rename", org_id=org_id, name="a")).body["events"][0]["seq"] == 2
    assert (await first.command("org.rename", org_id=org_id, name="b")).body["events"][0]["seq"] == 3
    # The second one still believes that it is at seq 2.
    answer = await second.command("org.rename", headers={"If-Match": '"3"'}, org_id=org_id, name="c")
    assert answer.status == 200


CONFIRMED: list[Check] = [
    refusals_are_confirmed,
    transitions_are_confirmed,
    no_changes_are_confirmed,
    mismatches_are_confirmed,
]


@pytest.mark.parametrize("check", CONFIRMED)
async def test_f13a_nothing_is_answered_from_a_stale_cache(world: World, check: Check) -> None:
    await check(world)


@pytest.mark.parametrize("check", CONFIRMED)
async def test_f13a_a_skipped_confirmation_is_caught(
    world: World, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def believe(db: Queried, key: IdempotencyKey | None, reads: ReadSet) -> Confirmation:
        return msgspec.structs.replace(await confirm(db, key, reads), moved=False)

    monkeypatch.setattr(decide, "confirm", believe)
    with pytest.raises(AssertionError):
        await check(world)


async def test_f13a_a_change_on_stale_state_is_decided_again_too(world: World) -> None:
    first, second = world.replicas
    app_id = await world.create_app()
    assert (await second.command("app.rename", app_id=app_id, name="store")).status == 200
    assert (await first.command("app.delete", app_id=app_id)).status == 200
    # The second one still believes that the app is there.
    assert (await second.command("env.create", app_id=app_id, name="x")).code == "not_found"


async def test_f13a_no_change_answers_with_a_position_that_includes_what_was_answered_before(world: World) -> None:
    first, second = world.replicas
    org_id = await world.create_org()
    await second.command("org.rename", org_id=org_id, name="acme")
    for _ in range(5):
        position = (await first.command("org.create", name=world.new_name())).body["position"]
        unchanged = await second.command("org.rename", org_id=org_id, name="acme")
        assert (unchanged.body["changed"], unchanged.body["position"]) == (False, position)


# F14: one key, many requests.


def keyed(key: str = "key", **headers: str) -> dict[str, str]:
    return {"Idempotency-Key": key, **headers}


async def test_f14_identical_requests_at_once_make_one_set_of_events(world: World) -> None:
    app_id = await world.create_app()
    before = await world.head()
    processes = {"web": {"command": ["x"]}}
    answers = await at_once(
        world,
        50,
        lambda r, n: r.command(
            "release.create",
            headers=keyed(**{"X-Request-Id": f"request-{n}"}),
            app_id=app_id,
            image=IMAGE,
            processes=processes,
        ),
    )
    assert statuses(answers) == {200: 50}
    assert all(answer.body == answers[0].body for answer in answers)
    assert [event.type for event in await world.events(before)] == ["release.created"]


async def test_f14_identical_bundles_at_once_make_one_set_of_events(world: World) -> None:
    bundle = [
        {"name": "org.create", "data": {"org_id": ORG, "name": "acme"}},
        {"name": "project.create", "data": {"project_id": PROJECT, "org_id": ORG, "name": "web"}},
        {"name": "project.rename", "data": {"project_id": PROJECT, "name": "web"}},
        {"name": "app.create", "data": {"app_id": APP, "project_id": PROJECT, "name": "shop"}},
    ]
    answers = await at_once(world, 50, lambda r, _: r.bundle(*bundle, headers=keyed()))
    assert statuses(answers) == {200: 50}
    assert all(answer.body == answers[0].body for answer in answers)
    assert [part["changed"] for part in answers[0].body["results"]] == [True, True, False, True]
    assert await world.head() == 4


async def test_f14_identical_requests_that_change_nothing_are_answered_alike(world: World) -> None:
    org_id = await world.replica.create("org", name="acme")
    answers = await at_once(
        world, 50, lambda r, _: r.command("org.rename", headers=keyed(), org_id=org_id, name="acme")
    )
    assert statuses(answers) == {200: 50}
    assert all(answer.body == answers[0].body for answer in answers)
    assert answers[0].body["changed"] is False
    # Also later, when it would be a change.
    await world.replica.command("org.rename", org_id=org_id, name="umbrella")
    again = await world.replicas[1].command("org.rename", headers=keyed(), org_id=org_id, name="acme")
    assert again.body == answers[0].body
    assert await world.head() == 3


async def repeated_deletes_are_answered_alike(world: World) -> None:
    app_id = await world.create_app()
    answers = await at_once(world, 30, lambda r, _: r.command("app.delete", headers=keyed(), app_id=app_id))
    assert statuses(answers) == {200: 30}
    assert all(answer.body == answers[0].body for answer in answers)


async def a_repeated_delete_is_answered_as_before(world: World) -> None:
    app_id = await world.create_app()
    answer = await world.replica.command("app.delete", headers=keyed(), app_id=app_id)
    assert (answer.status, answer.body["changed"]) == (200, True)
    for replica in world.replicas:
        again = await replica.command("app.delete", headers=keyed(), app_id=app_id)
        assert (again.status, again.body) == (200, answer.body)
        assert again.headers["Keelson-Position"] == answer.headers["Keelson-Position"]


@pytest.mark.parametrize("check", [a_repeated_delete_is_answered_as_before, repeated_deletes_are_answered_alike])
async def test_f14a_a_repeated_delete_gets_its_stored_answer(world: World, check: Check) -> None:
    await check(world)


@pytest.mark.parametrize("check", [a_repeated_delete_is_answered_as_before, repeated_deletes_are_answered_alike])
async def test_f14a_a_key_that_only_the_append_looks_up_is_caught(
    world: World, monkeypatch: pytest.MonkeyPatch, check: Check
) -> None:
    """What the handler refuses never comes to the append: it would be answered with the refusal."""

    async def ignore_key(db: Queried, _key: IdempotencyKey | None, reads: ReadSet) -> Confirmation:
        return await confirm(db, None, reads)

    monkeypatch.setattr(decide, "confirm", ignore_key)
    with pytest.raises(AssertionError):
        await check(world)


async def test_f14a_refusals_are_not_stored(world: World) -> None:
    app_id = await world.create_app()
    env_id = await world.create_env(app_id)
    refused = await world.replica.command("app.delete", headers=keyed(), app_id=app_id)
    assert refused.code == "in_use"
    await world.replicas[1].command("env.delete", env_id=env_id)
    assert (await world.replica.command("app.delete", headers=keyed(), app_id=app_id)).status == 200


# F15: one key, other requests.


async def test_f15_a_key_of_another_request_is_refused(world: World) -> None:
    org_id = await world.create_org()
    assert (await world.replica.command("org.rename", headers=keyed(), org_id=org_id, name="a")).status == 200
    head = await world.head()
    others: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({"org_id": org_id, "name": "b"}, {}),
        ({"org_id": id_of("org"), "name": "a"}, {}),
        ({"org_id": org_id, "name": "a"}, {"If-Match": '"2"'}),
    ]
    for replica in world.replicas:
        for data, headers in others:
            answer = await replica.command("org.rename", headers=keyed(**headers), **data)
            assert (answer.status, answer.code) == (409, "idempotency_key_reuse")
    assert await world.head() == head


async def test_f15_a_key_used_for_two_requests_at_once_serves_one(world: World) -> None:
    answers = await at_once(world, 20, lambda r, n: r.command("org.create", headers=keyed(), name=f"org-{n % 4}"))
    assert statuses(answers) == {200: 5, 409: 15}
    assert {answer.code for answer in answers if answer.status == 409} == {"idempotency_key_reuse"}
    assert await world.head() == 2


async def test_f15_the_same_request_may_be_written_otherwise(world: World) -> None:
    headers = {"Content-Type": "application/json", **keyed()}
    written = [b'{"name":"acme","org_id":"%s"}', b' {"org_id" : "%s",\n "name": "\\u0061cme"} ']
    first, second = [
        await replica.send("POST", "/v1/commands/org.create", headers=headers, body=body % ORG.encode())
        for replica, body in zip(world.replicas, written, strict=True)
    ]
    assert first.status == 200
    assert second.body == first.body


async def test_f15_headers_that_only_describe_do_not_make_another_request(world: World) -> None:
    first = await world.replica.command("org.create", headers=keyed(), name="acme")
    described = {"Keelson-Reason": "again", "X-Request-Id": "r", "Prefer": "wait=0", "Keelson-Correlation-Id": "c"}
    second = await world.replica.command("org.create", headers=keyed(**described), name="acme")
    assert second.body == first.body
    assert second.headers["Preference-Applied"] == "wait=0"
    assert (await world.events(1))[0].reason == "a test"


async def test_f15_other_actors_and_other_commands_have_keys_of_their_own(world: World) -> None:
    org_id = await world.create_org()
    rename = {"org_id": org_id, "name": "a"}
    mine = await world.replica.command("org.rename", headers=keyed(), **rename)
    theirs = await world.replicas[1].command(
        "org.rename", token=OTHER_TOKEN, headers=keyed(), **(rename | {"name": "b"})
    )
    assert (mine.status, theirs.status) == (200, 200)
    assert mine.body["position"] < theirs.body["position"]
    created = await world.replica.command("org.create", headers=keyed(), name="other")
    bundled = await world.replica.bundle({"name": "org.create", "data": {"name": "third"}}, headers=keyed())
    assert (created.status, bundled.status) == (200, 200)
    actors = [(event.actor_type, event.actor_id) for event in await world.events(2)]
    assert actors == [
        ("system", "operator"),
        ("principal", "principal_1"),
        ("system", "operator"),
        ("system", "operator"),
    ]
