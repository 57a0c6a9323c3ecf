"""Reading cold aggregates: by pages, on from what is known, and never past what this code does not know."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from keelson.command import reader
from keelson.command.domain.env import Env
from keelson.command.reader import LogReader
from keelson.events.ids import Seq
from support.command_world import World, open_world
from support.database import Database
from support.specs import id_of


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database) as world:
        yield world


async def set_configs(world: World, env_id: str, numbers: range) -> None:
    for number in numbers:
        answer = await world.replica.command("env.set_config", env_id=env_id, variables={"N": str(number)})
        assert answer.status == 200


@pytest.mark.parametrize("page", [1, 3, 4, 100])
async def test_an_aggregate_is_folded_over_all_its_pages(
    world: World, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(reader, "PAGE", page)
    env_id = await world.create_env()
    await set_configs(world, env_id, range(3))
    found = await LogReader(world.replica.app.state.pool).read_aggregate(Env, env_id)
    assert found is not None
    assert (found.seq, found.state.variables, found.ids.env_id) == (4, {"N": "2"}, env_id)


@pytest.mark.parametrize("page", [1, 2, 4, 100])
async def test_what_is_known_is_read_on_from(world: World, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(reader, "PAGE", page)
    log = LogReader(world.replica.app.state.pool)
    env_id = await world.create_env()
    known = await log.read_aggregate(Env, env_id)
    await set_configs(world, env_id, range(3))
    cold = await log.read_aggregate(Env, env_id)
    assert cold is not None
    assert await log.read_aggregate(Env, env_id, known) == cold
    assert await log.read_aggregate(Env, env_id, cold) == cold


@pytest.mark.parametrize("page", [1, 2, 100])
async def test_what_is_known_of_a_log_that_was_put_back_is_not_believed(
    world: World, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(reader, "PAGE", page)
    log = LogReader(world.replica.app.state.pool)
    env_id = await world.create_env()
    await set_configs(world, env_id, range(1))
    true = await log.read_aggregate(Env, env_id)
    assert true is not None
    lost = msgspec.structs.replace(true, seq=Seq(9), state=Env(name="lost"))
    assert await log.read_aggregate(Env, env_id, lost) == true


async def test_what_never_was_is_nothing(world: World) -> None:
    assert await LogReader(world.replica.app.state.pool).read_aggregate(Env, id_of("env")) is None


async def test_an_event_of_a_newer_writer_means_503_for_its_aggregate_alone(world: World) -> None:
    """During a roll-out another replica may know more; this one must neither skip what it wrote nor fall over it."""
    org_id, other_id = await world.create_org(), await world.create_org()
    async with world.log.transaction():
        await world.log.execute(
            "INSERT INTO log.events (position, aggregate_id, seq, type, version, org_id, actor_type, actor_id,"
            " request_id, command_id, command_end, recorded_at, payload)"
            " SELECT position + 1, $1, 2, 'org.sold', 1, $1, 'system', 'operator', 'r', 'c', true, recorded_at, '{}'"
            " FROM log.head",
            org_id,
        )
        await world.log.execute("UPDATE log.head SET position = position + 1")
    for headers in ({}, {"Idempotency-Key": "key"}):
        answer = await world.replica.command("org.rename", headers=headers, org_id=org_id, name="acme")
        assert (answer.status, answer.code) == (503, "unavailable")
    assert (await world.replica.command("org.rename", org_id=other_id, name="acme")).status == 200
