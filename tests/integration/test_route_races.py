"""Routes while another replica acts: hostnames, environments that go, releases that come (F12)."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable

import msgspec
import pytest

from integration.test_command_races import at_once
from keelson.command.transaction import Transaction
from keelson.events.ids import AggregateId
from support.command_world import Answer, World, open_world
from support.database import Database
from support.independent import faults_of_rules


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database, replicas=2) as world:
        yield world


async def test_f12_of_two_routes_of_one_hostname_at_once_one_wins(world: World) -> None:
    """Two hundred hostnames, a pair for each, in two environments and on two replicas, in whichever case."""
    envs = [(await world.create_running_env())[0] for _ in range(2)]
    head = await world.head()
    for turn in range(0, 200, 20):
        answers = await at_once(
            world,
            40,
            lambda r, n, turn=turn: r.command(  # type: ignore[misc] # n is the caller's number
                "route.create",
                env_id=envs[n % 2],
                hostname=f"{'Shop' if n % 2 else 'shop'}-{turn + n // 2}.example",
                process="web",
                port="http",
            ),
        )
        for pair in zip(answers[::2], answers[1::2], strict=True):
            won, lost = sorted(pair, key=lambda answer: answer.status)
            assert (won.status, lost.status, lost.code) == (200, 409, "name_taken")
    assert await world.head() == head + 200
    assert not await faults(world)


async def test_f12_an_environment_is_never_deleted_under_a_route(world: World) -> None:
    outcomes: Counter[tuple[int, int]] = Counter()
    app_id = await world.create_app()
    release_id = await world.create_release(app_id)
    for turn in range(200):
        env_id = await world.create_env(app_id)
        await world.replicas[turn % 2].create("deploy", env_id=env_id, release_id=release_id)
        leads = {"hostname": f"shop-{turn}.example", "process": "web", "port": "http"}
        deleted, created = await in_turns(
            turn,
            world.replicas[turn // 2 % 2].command("env.delete", env_id=env_id),
            world.replicas[1 - turn // 2 % 2].command("route.create", env_id=env_id, **leads),
        )
        outcomes[deleted.status, created.status] += 1
    assert outcomes.keys() == {(200, 404), (409, 200)}, outcomes
    assert not await faults(world)


async def test_f12_a_release_is_never_deployed_under_a_route_that_it_breaks(world: World) -> None:
    outcomes: Counter[tuple[str, str]] = Counter()
    app_id = await world.create_app()
    env_id = await world.create_env(app_id)
    both, web = await world.create_release(app_id, "web", "jobs"), await world.create_release(app_id)
    for turn in range(200):
        await world.replicas[turn % 2].create("deploy", env_id=env_id, release_id=both)
        leads = {"hostname": "jobs.example", "process": "jobs", "port": "http"}
        deployed, created = await in_turns(
            turn,
            world.replicas[turn // 2 % 2].command("deploy.create", env_id=env_id, release_id=web),
            world.replicas[1 - turn // 2 % 2].command("route.create", env_id=env_id, **leads),
        )
        outcomes[deployed.body.get("code", "done"), created.body.get("code", "done")] += 1
        if created.status == 200:
            await world.replicas[turn % 2].command("route.delete", route_id=created.result["route_id"])
    assert outcomes.keys() == {("done", "unknown_process"), ("route_would_break", "done")}, outcomes
    assert not await faults(world)


async def in_turns(turn: int, one: Awaitable[Answer], other: Awaitable[Answer]) -> tuple[Answer, Answer]:
    """Send both at once, now the one first, now the other; give the answers as they were named."""
    if turn % 2:
        answers = await asyncio.gather(one, other)
        return answers[0], answers[1]
    answers = await asyncio.gather(other, one)
    return answers[1], answers[0]


async def faults(world: World) -> list[str]:
    """Name the rules that the log breaks, by code that shares nothing with the service's."""
    return faults_of_rules([msgspec.structs.asdict(event) for event in await world.events()])


async def deploys_see_new_routes(world: World) -> None:
    first, second = world.replicas
    app_id = await world.create_app()
    env_id, web = await world.create_env(app_id), await world.create_release(app_id)
    both = await world.create_release(app_id, "web", "jobs")
    leads = {"hostname": "jobs.example", "process": "jobs", "port": "http"}
    # The second one learns that the environment has no routes, and still believes it.
    assert (await second.command("deploy.create", env_id=env_id, release_id=both)).status == 200
    assert (await first.command("route.create", env_id=env_id, **leads)).status == 200
    assert (await second.command("deploy.create", env_id=env_id, release_id=web)).status == 422


async def test_f12_a_deploy_sees_a_route_that_another_replica_has_just_made(world: World) -> None:
    await deploys_see_new_routes(world)


async def test_f12_a_deploy_sees_where_another_replica_has_just_let_a_route_lead(world: World) -> None:
    first, second = world.replicas
    env_id, web = await world.create_running_env()
    leads = {"hostname": "shop.example", "process": "web", "port": "http"}
    route_id = await second.create("route", env_id=env_id, **leads)
    # Both know the route; the second one still believes that it leads to web.
    assert (await first.command("route.update", route_id=route_id, process="jobs")).status == 200
    assert (await second.command("deploy.create", env_id=env_id, release_id=web)).code == "route_would_break"
    assert (await first.command("route.update", route_id=route_id, process="web")).status == 200
    assert (await second.command("deploy.create", env_id=env_id, release_id=web)).status == 200


async def test_f12_routes_that_are_not_in_the_read_set_are_caught(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Transaction.holders

    async def forget(self: Transaction, scope: str) -> list[AggregateId]:
        holders = await read(self, scope)
        del self.reads.scopes[scope]
        return holders

    monkeypatch.setattr(Transaction, "holders", forget)
    with pytest.raises(AssertionError):
        await deploys_see_new_routes(world)
