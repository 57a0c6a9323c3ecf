"""Two replicas at once: of one name one wins at every level, and nothing is ever under a parent that is gone (F12)."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from integration.test_route_races import in_turns
from keelson.log.claims import verify_claims
from support.command_world import IMAGE, Answer, Replica, World, open_world
from support.database import Database
from support.independent import faults_of_rules

TURNS = 200
# So many pairs race beside one another.
ABREAST = 20

PROCESSES = {"web": {"command": ["x"]}}


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database, replicas=2) as world:
        yield world


# Names: where the two of a pair may both want one, and what they say.


async def no_parent(_world: World) -> dict[str, Any]:
    return {}


async def an_org(world: World) -> dict[str, Any]:
    return {"org_id": await world.create_org()}


async def a_project(world: World) -> dict[str, Any]:
    return {"project_id": await world.create_project()}


async def an_app(world: World) -> dict[str, Any]:
    return {"app_id": await world.create_app()}


NAMED: dict[str, Callable[[World], Awaitable[dict[str, Any]]]] = {
    "org": no_parent,
    "project": an_org,
    "app": a_project,
    "env": an_app,
}


@pytest.mark.parametrize("kind", NAMED)
async def test_f12_of_two_creates_of_one_name_at_once_one_wins(world: World, kind: str) -> None:
    parent = await NAMED[kind](world)
    head = await world.head()
    for batch in range(0, TURNS, ABREAST):
        pairs = [
            in_turns(turn, *(replica.command(f"{kind}.create", name=f"name-{turn}", **parent) for replica in pair))
            for turn, pair in ((turn, world.replicas[:: 1 - turn % 2 * 2]) for turn in range(batch, batch + ABREAST))
        ]
        for answers in await asyncio.gather(*pairs):
            won, lost = sorted(answers, key=lambda answer: answer.status)
            assert (won.status, lost.status, lost.code) == (200, 409, "name_taken")
    assert await world.head() == head + TURNS
    await require_sound(world)


@pytest.mark.parametrize("kind", NAMED)
async def test_f12_of_a_rename_and_a_create_of_one_name_at_once_one_wins(world: World, kind: str) -> None:
    parent = await NAMED[kind](world)
    first, second = world.replicas
    own = {f"{kind}_id": await first.create(kind, name="own", **parent)}
    outcomes: Counter[tuple[int, int]] = Counter()
    for turn in range(TURNS):
        name = f"name-{turn}"
        renamed, created = await in_turns(
            turn,
            first.command(f"{kind}.rename", name=name, **own),
            second.command(f"{kind}.create", name=name, **parent),
        )
        outcomes[renamed.status, created.status] += 1
        assert {answer.code for answer in (renamed, created) if answer.status != 200} == {"name_taken"}
    assert outcomes.keys() == {(200, 409), (409, 200)}, outcomes
    await require_sound(world)


# Parents: who has a child is not deleted, and who is deleted gets no child.


async def delete_project(world: World, turn: int) -> tuple[Answer, Answer]:
    project_id = await world.create_project()
    one, other = replicas_of(world, turn)
    return await in_turns(
        turn,
        one.command("project.delete", project_id=project_id),
        other.command("app.create", project_id=project_id, name="x"),
    )


async def delete_app_under_env(world: World, turn: int) -> tuple[Answer, Answer]:
    app_id = await world.create_app()
    one, other = replicas_of(world, turn)
    return await in_turns(
        turn, one.command("app.delete", app_id=app_id), other.command("env.create", app_id=app_id, name="x")
    )


PARENTS: dict[str, Callable[[World, int], Awaitable[tuple[Answer, Answer]]]] = {
    "project, app": delete_project,
    "app, env": delete_app_under_env,
}


@pytest.mark.parametrize("levels", PARENTS)
async def test_f12_a_parent_is_never_deleted_under_a_child(world: World, levels: str) -> None:
    outcomes = await tally(world, PARENTS[levels])
    assert outcomes.keys() == {("done", "not_found"), ("in_use", "done")}, outcomes
    await require_sound(world)


# What does not keep its parent from being deleted, but must not come after it.


async def delete_app_under_release(world: World, turn: int) -> tuple[Answer, Answer]:
    app_id = await world.create_app()
    one, other = replicas_of(world, turn)
    return await in_turns(
        turn,
        one.command("app.delete", app_id=app_id),
        other.command("release.create", app_id=app_id, image=IMAGE, processes=PROCESSES),
    )


async def delete_env_under_deploy(world: World, turn: int) -> tuple[Answer, Answer]:
    app_id = await world.create_app()
    env_id, release_id = await world.create_env(app_id), await world.create_release(app_id)
    one, other = replicas_of(world, turn)
    return await in_turns(
        turn,
        one.command("env.delete", env_id=env_id),
        other.command("deploy.create", env_id=env_id, release_id=release_id),
    )


LEAVING = {"app, release": delete_app_under_release, "env, deploy": delete_env_under_deploy}


@pytest.mark.parametrize("levels", LEAVING)
async def test_f12_what_is_deleted_gets_nothing_more(world: World, levels: str) -> None:
    """Whichever came first: the deletion succeeds either way, and what came later finds nothing."""
    outcomes = await tally(world, LEAVING[levels])
    assert outcomes.keys() <= {("done", "not_found"), ("done", "done")}, outcomes
    gone: set[str] = set()
    for event in await world.events():
        assert not gone & {event.app_id, event.env_id}, event
        if event.type in {"app.deleted", "env.deleted"}:
            gone.add(event.aggregate_id)
    await require_sound(world)


async def tally(
    world: World, turn_of: Callable[[World, int], Awaitable[tuple[Answer, Answer]]]
) -> Counter[tuple[str, str]]:
    """Let so many turns go, several abreast; count how they ended."""
    outcomes: Counter[tuple[str, str]] = Counter()
    for batch in range(0, TURNS, ABREAST):
        for answers in await asyncio.gather(*(turn_of(world, turn) for turn in range(batch, batch + ABREAST))):
            outcomes[answers[0].body.get("code", "done"), answers[1].body.get("code", "done")] += 1
    assert outcomes.total() == TURNS
    return outcomes


def replicas_of(world: World, turn: int) -> tuple[Replica, Replica]:
    """Give the two of them, now the one first, now the other."""
    return world.replicas[turn // 2 % 2], world.replicas[1 - turn // 2 % 2]


async def require_sound(world: World) -> None:
    """Hold the log to its rules by code that shares nothing with the service's, and the claims to the log."""
    assert not faults_of_rules([msgspec.structs.asdict(event) for event in await world.events()])
    assert await verify_claims(world.log) == []
