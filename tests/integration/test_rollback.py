"""Secrets and rollbacks over HTTP, on a real log and vault."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from keelson.command import reader
from keelson.command.sealing import Sealer, read_keys
from keelson.log.claims import verify_claims
from keelson.log.database import Connection
from support.command_world import Answer, World, open_world
from support.database import Database
from support.keys import DIGEST_KEY, SECRET_KEYS

CANARY = "canary-b1rd"


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database, replicas=2) as world:
        yield world


async def text_of(log: Connection) -> str:
    """Give all that the database holds, as text and as it is encoded in bytes."""
    tables = await log.fetch(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('log', 'vault', 'ops', 'views')"
    )
    rows = [
        str(row[0])
        for schema, table in tables
        for row in await log.fetch(f"SELECT t::text FROM {schema}.{table} AS t")  # noqa: S608 - the catalogue's names
    ]
    return "\n".join(rows)


async def set_values(world: World, env_id: str, replica: int = 0, **values: str | None) -> Answer:
    return await world.replicas[replica].command("secret.set", env_id=env_id, values=values)


async def test_values_are_sealed_in_the_vault_and_nowhere_else(world: World) -> None:
    env_id = await world.create_env()
    answer = await world.replica.command(
        "secret.set", env_id=env_id, values={"TOKEN": CANARY}, headers={"Idempotency-Key": "k"}
    )
    assert answer.result["version"] == 1
    assert CANARY not in str(answer.body)
    secret_id = answer.result["secret_id"]
    held = await text_of(world.log)
    assert secret_id in held
    assert CANARY not in held
    assert CANARY.encode().hex() not in held
    row = await world.log.fetchrow("SELECT version, key_id, sealed FROM vault.secrets WHERE secret_id = $1", secret_id)
    sealer = Sealer(read_keys(SECRET_KEYS), DIGEST_KEY)
    assert row is not None
    assert sealer.open(secret_id, *row) == {"TOKEN": CANARY}
    assert sealer.digest(secret_id, {"TOKEN": CANARY}) in (await world.events())[-1].payload


async def test_two_who_set_the_first_values_at_once_both_have_theirs(world: World) -> None:
    app_id = await world.create_app()
    for _ in range(50):
        env_id = await world.create_env(app_id)
        answers = await asyncio.gather(set_values(world, env_id, A="a"), set_values(world, env_id, 1, B="b"))
        assert sorted(answer.result["version"] for answer in answers) == [1, 2]
        assert len({answer.result["secret_id"] for answer in answers}) == 1
        assert '"keys":["A","B"]' in (await world.events())[-1].payload
    assert not await verify_claims(world.log)


async def test_no_environment_goes_and_leaves_a_secret(world: World) -> None:
    app_id = await world.create_app()
    statuses = set()
    for turn in range(50):
        env_id = await world.create_env(app_id)
        await set_values(world, env_id, OLD="o")
        deleting = world.replicas[turn % 2].command("env.delete", env_id=env_id)
        deleted, was_set = await asyncio.gather(deleting, set_values(world, env_id, 1 - turn % 2, NEW="n"))
        assert deleted.status == 200
        statuses.add(was_set.status)
    assert statuses <= {200, 404}
    assert await world.log.fetchval("SELECT count(*) FROM vault.secrets") == 0
    assert not await world.log.fetch("SELECT FROM log.claims WHERE scope LIKE 'secret.of:%'")


async def roll_back(world: World, env_id: str, replica: int = 0, **to: Any) -> Answer:
    return await world.replicas[replica].command("env.rollback", env_id=env_id, **to)


async def test_an_environment_goes_back_to_a_position_and_back_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By pages of two events, and with the same names in the dry run; values come back that no event has."""
    monkeypatch.setattr(reader, "ENV_PAGE", 2)
    env_id, smaller = await world.create_running_env()
    replica = world.replica
    await replica.command("env.set_config", env_id=env_id, variables={"A": "1"})
    await set_values(world, env_id, TOKEN="old")
    leads = {"hostname": "shop.example", "process": "jobs", "port": "http"}
    route_id = await replica.create("route", env_id=env_id, **leads)
    then = await world.head()
    await replica.command("route.delete", route_id=route_id)
    await replica.create("deploy", env_id=env_id, release_id=smaller)
    await replica.command("env.scale", env_id=env_id, replicas={"web": 3})
    await set_values(world, env_id, TOKEN="new")
    await replica.command("env.set_config", env_id=env_id, variables={"B": "2"})
    before = await world.head()

    dry = await roll_back(world, env_id, position=then, dry_run=True)
    assert (dry.body["changed"], dry.body["events"]) == (False, [])
    real = await roll_back(world, env_id, position=then)
    assert real.result["changes"] == dry.result["changes"]
    assert [each["what"] for each in real.result["changes"]] == [
        *("release", "replicas/jobs", "replicas/web", "variables/A", "variables/B", "routes/shop.example", "secret")
    ]
    assert [event["type"] for event in real.body["events"]] == [
        *("deploy.status_changed", "deploy.created", "env.release_set", "env.config_set", "route.created"),
        "secret.version_set",
    ]
    again = await roll_back(world, env_id, 1, position=before)
    assert [(each["what"], each["to"]) for each in again.result["changes"] if each["what"] != "secret"] == [
        (each["what"], each["from"]) for each in real.result["changes"] if each["what"] != "secret"
    ]
    rows = await world.log.fetch("SELECT secret_id, version, key_id, sealed FROM vault.secrets ORDER BY version")
    sealer = Sealer(read_keys(SECRET_KEYS), DIGEST_KEY)
    assert [sealer.open(*row)["TOKEN"] for row in rows] == ["old", "new", "old", "new"]
    assert (await roll_back(world, env_id, position=before)).body["changed"] is False
    assert not await verify_claims(world.log)


async def test_a_position_within_a_command_is_the_one_before_it(world: World) -> None:
    env_id, _ = await world.create_running_env()
    set_config = {"name": "env.set_config", "data": {"env_id": env_id, "variables": {"A": "1"}}}
    scale = {"name": "env.scale", "data": {"env_id": env_id, "replicas": {"web": 2}}}
    end = (await world.replica.bundle(set_config, scale)).body["position"]
    within = await roll_back(world, env_id, position=end - 1)
    assert [each["what"] for each in within.result["changes"]] == ["replicas/web", "variables/A"]


async def test_what_cannot_be_restored_is_refused_with_every_reason(world: World) -> None:
    env_id, _ = await world.create_running_env()
    other_id, _ = await world.create_running_env()
    leads = {"hostname": "shop.example", "process": "web", "port": "http"}
    route_id = await world.replica.create("route", env_id=env_id, **leads)
    secret_id = (await set_values(world, env_id, TOKEN="old")).result["secret_id"]
    then = await world.head()
    await world.replica.command("route.delete", route_id=route_id)
    await world.replica.command("secret.delete", secret_id=secret_id)
    await world.replica.create("route", env_id=other_id, **leads)
    head = await world.head()
    for dry_run in (True, False):
        refused = await roll_back(world, env_id, position=then, dry_run=dry_run)
        assert (refused.status, refused.code) == (422, "cannot_restore")
        assert refused.body["errors"] == [
            {"pointer": "/position", "detail": "the hostname shop.example is taken"},
            {"pointer": "/position", "detail": f"version 1 of secret {secret_id} was erased"},
        ]
        assert other_id not in str(refused.body)
    beyond = await roll_back(world, env_id, position=head + 1)
    assert (beyond.code, len(beyond.body["errors"])) == ("cannot_restore", 1)
    assert await world.head() == head


async def test_f12_a_hostname_that_is_taken_meanwhile_refuses_the_rollback_or_is_refused(world: World) -> None:
    env_id, _ = await world.create_running_env()
    other_id, _ = await world.create_running_env()
    leads = {"process": "web", "port": "http"}
    outcomes = set()
    for turn in range(50):
        hostname = f"shop-{turn}.example"
        route_id = await world.replica.create("route", env_id=env_id, hostname=hostname, **leads)
        then = await world.head()
        await world.replica.command("route.delete", route_id=route_id)
        taking = world.replicas[turn % 2].command("route.create", env_id=other_id, hostname=hostname, **leads)
        back, taken = await asyncio.gather(roll_back(world, env_id, 1 - turn % 2, position=then), taking)
        assert min(back.status, taken.status) == 200
        assert (back.status, taken.status) in {(200, 409), (422, 200)}, (back.body, taken.body)
        outcomes.add(back.status)
    assert outcomes <= {200, 422}
    assert not await verify_claims(world.log)


async def test_an_environments_past_is_read_by_its_index(world: World) -> None:
    await world.log.execute("SET enable_seqscan = off")
    plan = await world.log.fetch(
        "EXPLAIN SELECT position FROM log.events WHERE env_id = 'env_1' AND position > 1 AND position <= 9 "
        "AND split_part(type, '.', 1) = ANY ('{env}') ORDER BY position LIMIT 5"
    )
    assert "events_env" in str(plan)
