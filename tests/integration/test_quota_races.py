"""A quota's last place, wanted on two replicas at once: exactly one gets it, two hundred times for each quota (F12)."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import msgspec
import pytest

from integration.test_route_races import in_turns
from keelson.log.claims import verify_claims
from support.command_world import World, open_world
from support.database import Database
from support.independent import faults_of_rules
from support.independent_claims import faults_of_quotas
from support.tenants import KINDS, MEMORY_BYTES, Kind, Tenant, open_tenant

# Tenants race beside one another, so that append groups hold decisions of several.
TENANTS = 8
TURNS = 25


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database, replicas=2) as world:
        yield world


async def race(world: World, tenant: Tenant, kind: Kind) -> Counter[int]:
    """Let both replicas want the last place, turn after turn, and give it back; give how often which was faster."""
    won: Counter[int] = Counter()
    for turn in range(TURNS):
        first, second = world.replicas[turn // 2 % 2], world.replicas[1 - turn // 2 % 2]
        answers = await in_turns(turn, kind.take(first, tenant, 0), kind.take(second, tenant, 1))
        assert sorted(answer.status for answer in answers) == [200, 422], [answer.body for answer in answers]
        winner = 0 if answers[0].status == 200 else 1
        assert answers[1 - winner].code == "quota_exceeded"
        won[winner] += 1
        freed = await kind.give_back(world.replicas[turn % 2], tenant, winner, answers[winner].result)
        assert freed.status == 200, freed.body
    return won


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_f12_of_two_that_want_a_quotas_last_place_at_once_one_wins(world: World, kind: Kind) -> None:
    tenants = [await open_tenant(world) for _ in range(TENANTS)]
    for tenant in tenants:
        await tenant.set_quota(**{kind.quota: kind.allowed})
    async with asyncio.timeout(60):
        won = sum(await asyncio.gather(*(race(world, tenant, kind) for tenant in tenants)), Counter[int]())
    assert won.total() == TENANTS * TURNS
    await require_sound(world)


async def test_f12_scaling_and_deploying_want_one_quota(world: World) -> None:
    """The one wants the last place by scaling, the other by deploying something that needs more."""
    tenant = await open_tenant(world)
    await tenant.set_quota(instances=3, memory_bytes=3 * MEMORY_BYTES)
    scale, deploy = KINDS["instances by scale"], KINDS["instances by deploy"]
    outcomes: Counter[tuple[int, int]] = Counter()
    for turn in range(200):
        first, second = world.replicas[turn // 2 % 2], world.replicas[1 - turn // 2 % 2]
        answers = await in_turns(turn, scale.take(first, tenant, 0), deploy.take(second, tenant, 1))
        outcomes[answers[0].status, answers[1].status] += 1
        kind, winner = (scale, 0) if answers[0].status == 200 else (deploy, 1)
        assert (await kind.give_back(first, tenant, winner, answers[winner].result)).status == 200
    assert outcomes.keys() == {(200, 422), (422, 200)}, outcomes
    await require_sound(world)


async def test_f12_a_quota_is_lowered_before_a_creation_or_after_it(world: World) -> None:
    """Whoever is first: what was created before may stay, and nothing is created after."""
    outcomes: Counter[int] = Counter()
    tenant = await open_tenant(world)
    for turn in range(200):
        await tenant.set_quota(apps=2)
        lowering = world.replicas[turn // 2 % 2].command("org.set_quota", org_id=tenant.org_id, quota={"apps": 1})
        creating = world.replicas[1 - turn // 2 % 2].command(
            "app.create", project_id=tenant.project_id, name=f"app-{turn}"
        )
        lowered, created = await in_turns(turn, lowering, creating)
        assert lowered.status == 200
        outcomes[created.status] += 1
        if created.status == 200:
            assert created.body["position"] < lowered.body["position"]
            assert (await world.replica.command("app.delete", app_id=created.result["app_id"])).status == 200
        else:
            assert created.code == "quota_exceeded"
    assert outcomes.keys() == {200, 422}, outcomes
    await require_sound(world)


async def require_sound(world: World) -> None:
    """Hold the log to its rules by code that shares nothing with the service's, and the claims to the log."""
    events = [msgspec.structs.asdict(event) for event in await world.events()]
    assert not faults_of_rules(events)
    assert not faults_of_quotas(events)
    assert await verify_claims(world.log) == []
