"""Quotas through HTTP: the last place of each, alone, within a bundle, and by two decisions of one append group."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from keelson.command import decide
from keelson.events import Ids
from keelson.events.base import ClaimChange, Release
from keelson.events.env import EnvDeleted
from keelson.events.env import names_in as env_names_in
from keelson.log.claims import verify_claims
from keelson.log.decision import Decision
from support.command_world import World, open_world
from support.database import Database
from support.tenants import KINDS, MEMORY_BYTES, Kind, open_tenant

Check = Callable[[World, Kind], Awaitable[None]]

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database) as world:
        yield world


async def the_last_place_is_the_last(world: World, kind: Kind) -> None:
    tenant = await open_tenant(world)
    await tenant.set_quota(**{kind.quota: kind.allowed})
    taken = await kind.take(world.replica, tenant, 0)
    assert taken.status == 200, taken.body
    refused = await kind.take(world.replica, tenant, 1)
    assert (refused.status, refused.code) == (422, "quota_exceeded")
    would = kind.allowed + (MEMORY_BYTES if kind.quota == "memory_bytes" else 1)
    expected = f"the quota {kind.quota} allows the organisation {kind.allowed} and would have {would}"
    assert refused.body["detail"] == expected
    assert "command_index" not in refused.body
    assert (await kind.give_back(world.replica, tenant, 0, taken.result)).status == 200
    assert (await kind.take(world.replica, tenant, 1)).status == 200
    assert await verify_claims(world.log) == []


@every_kind
async def test_the_last_place_is_the_last(world: World, kind: Kind) -> None:
    await the_last_place_is_the_last(world, kind)


async def of_two_in_one_group_one_wins(world: World, kind: Kind) -> None:
    """Both are decided before either is appended, by one process: they come to the writer together."""
    tenant = await open_tenant(world)
    await tenant.set_quota(**{kind.quota: kind.allowed})
    answers = await asyncio.gather(*(kind.take(world.replica, tenant, number) for number in range(2)))
    won, lost = sorted(answers, key=lambda answer: answer.status)
    assert (won.status, lost.status) == (200, 422)
    assert lost.code == "quota_exceeded"


@every_kind
async def test_f12_of_two_in_one_append_group_one_gets_the_last_place(world: World, kind: Kind) -> None:
    await of_two_in_one_group_one_wins(world, kind)


@every_kind
async def test_a_lowered_quota_takes_nothing_away_and_lets_nothing_be_added(world: World, kind: Kind) -> None:
    tenant = await open_tenant(world)
    await tenant.set_quota(**{kind.quota: 0})
    assert (await kind.take(world.replica, tenant, 0)).code == "quota_exceeded"
    # What needs no more goes on: a deploy of what runs, a rename; and whoever shrinks may.
    for command, data in (
        ("deploy.create", {"env_id": tenant.envs[0], "release_id": tenant.small}),
        ("env.rename", {"env_id": tenant.envs[0], "name": "renamed"}),
        ("env.scale", {"env_id": tenant.envs[0], "replicas": {"web": 0}}),
        ("env.delete", {"env_id": tenant.envs[1]}),
    ):
        assert (await world.replica.command(command, **data)).status == 200


def bundled(kind: str, tenant: Any, numbers: range) -> list[dict[str, Any]]:
    """Give commands that take one place each."""
    match kind:
        case "projects":
            return [
                {"name": "project.create", "data": {"org_id": tenant.org_id, "name": f"b{each}"}} for each in numbers
            ]
        case "apps":
            return [
                {"name": "app.create", "data": {"project_id": tenant.project_id, "name": f"b{each}"}}
                for each in numbers
            ]
        case "envs":
            return [{"name": "env.create", "data": {"app_id": tenant.app_id, "name": f"b{each}"}} for each in numbers]
        case _:
            return [
                {"name": "env.scale", "data": {"env_id": tenant.envs[each], "replicas": {"web": 2}}} for each in numbers
            ]


@pytest.mark.parametrize("name", ["projects", "apps", "envs", "instances by scale", "memory_bytes by scale"])
async def test_a_bundle_is_held_to_the_quota_as_a_whole(world: World, name: str) -> None:
    kind, tenant = KINDS[name], await open_tenant(world)
    step = MEMORY_BYTES if kind.quota == "memory_bytes" else 1
    await tenant.set_quota(**{kind.quota: kind.allowed})
    head = await world.head()
    refused = await world.replica.bundle(*bundled(name, tenant, range(2)))
    assert (refused.status, refused.code, refused.body["command_index"]) == (422, "quota_exceeded", 1)
    assert refused.body["detail"].endswith(
        f"allows the organisation {kind.allowed} and would have {kind.allowed + step}"
    )
    assert await world.head() == head
    await tenant.set_quota(**{kind.quota: kind.allowed + step})
    assert (await world.replica.bundle(*bundled(name, tenant, range(2)))).status == 200
    assert await verify_claims(world.log) == []


async def test_a_bundle_may_take_what_it_frees(world: World) -> None:
    tenant = await open_tenant(world)
    await tenant.set_quota(envs=2, instances=2, memory_bytes=2 * MEMORY_BYTES)
    moved = await world.replica.bundle(
        {"name": "env.delete", "data": {"env_id": tenant.envs[0]}},
        *bundled("envs", tenant, range(1)),
        {"name": "env.scale", "data": {"env_id": tenant.envs[1], "replicas": {"web": 2}}},
    )
    assert moved.status == 200, moved.body


async def test_a_bundle_sees_the_quota_that_it_sets(world: World) -> None:
    tenant = await open_tenant(world)
    quota = {"name": "org.set_quota", "data": {"org_id": tenant.org_id, "quota": {"apps": 2}}}
    refused = await world.replica.bundle(quota, *bundled("apps", tenant, range(2)))
    assert (refused.code, refused.body["command_index"]) == ("quota_exceeded", 2)
    assert (await world.replica.bundle(quota, *bundled("apps", tenant, range(1)))).status == 200


async def test_without_a_quota_whatever_is_wanted_never_overflows_the_log(world: World) -> None:
    tenant = await open_tenant(world)
    process = {"command": ["x"], "memory_bytes": 2**53}
    image = "registry.example/shop@sha256:" + "0" * 64
    most = await world.replica.create("release", app_id=tenant.app_id, image=image, processes={"web": process})
    refused = await world.replica.command("deploy.create", env_id=tenant.envs[0], release_id=most)
    assert refused.code == "quota_exceeded"  # the other environment wants a thousand bytes
    await world.replica.command("env.delete", env_id=tenant.envs[1])
    assert (await world.replica.command("deploy.create", env_id=tenant.envs[0], release_id=most)).status == 200
    refused = await world.replica.command("env.scale", env_id=tenant.envs[0], replicas={"web": 1000})
    assert refused.code == "quota_exceeded"


async def test_f12_a_quota_that_another_replica_has_just_set_is_seen(database: Database) -> None:
    """The second one learns that there is none, and still believes it; also where its decision is never refused."""
    async with open_world(database, replicas=2) as world:
        first, second = world.replicas
        tenant = await open_tenant(world)
        assert (await second.command("app.create", project_id=tenant.project_id, name="one")).status == 200
        quota = {"apps": 2}
        assert (await first.command("org.set_quota", org_id=tenant.org_id, quota=quota)).status == 200
        refused = await second.command("app.create", project_id=tenant.project_id, name="two")
        assert (refused.status, refused.code) == (422, "quota_exceeded")
        assert (await first.command("org.set_quota", org_id=tenant.org_id, quota={"apps": 3})).status == 200
        # And a refusal by a quota that was raised since is not believed either.
        assert (await second.command("app.create", project_id=tenant.project_id, name="two")).status == 200


# Planted bugs: the same checks must fail.


@every_kind
async def test_f12_a_limit_that_is_not_passed_on_to_the_append_is_caught(
    world: World, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_limits(*args: Any, **fields: Any) -> Decision:
        return Decision(*args, **{**fields, "limits": []})

    monkeypatch.setattr(decide, "Decision", without_limits)
    with pytest.raises(AssertionError):
        await the_last_place_is_the_last(world, kind)


async def what_an_environment_wanted_is_free_when_it_is_gone(world: World) -> None:
    tenant = await open_tenant(world)
    await tenant.set_quota(instances=2, memory_bytes=2 * MEMORY_BYTES)
    assert (await world.replica.command("env.delete", env_id=tenant.envs[0])).status == 200
    answer = await world.replica.command("env.scale", env_id=tenant.envs[1], replicas={"web": 2})
    assert answer.status == 200, answer.body


async def test_what_an_environment_wanted_is_free_when_it_is_gone(world: World) -> None:
    await what_an_environment_wanted_is_free_when_it_is_gone(world)


async def test_claims_that_a_deleted_environment_keeps_are_caught(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep_what_it_wanted(_self: EnvDeleted, ids: Ids) -> tuple[ClaimChange, ...]:
        return (Release(env_names_in(ids.app_id)),)

    monkeypatch.setattr(EnvDeleted, "claims_of", keep_what_it_wanted)
    with pytest.raises(AssertionError):
        await what_an_environment_wanted_is_free_when_it_is_gone(world)
