"""Revoked is revoked: at once for commands, within a second for reads, on every replica, on replay too (F15, F34)."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic
from typing import Any

import pytest

from integration.test_route_races import in_turns
from keelson.command import authorize as authorizing
from keelson.command.decide import Decider
from keelson.command.transaction import Transaction
from support.command_world import Answer, World, open_world
from support.database import Database
from support.query_world import open_world as open_views
from support.query_world import served
from support.waiting import eventually

TURNS = 200


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database, replicas=2) as world:
        yield world


async def make_principal(world: World, *scopes: str) -> tuple[str, str]:
    """Make an app, and a principal that may rename it; give both."""
    app_id = await world.create_app()
    [created] = [each for each in await world.events() if each.aggregate_id == app_id]
    made = await world.replica.command(
        "principal.create", org_id=created.org_id, name=world.new_name(), scopes=list(scopes or ("apps:write",))
    )
    return app_id, made.result["principal_id"]


async def issue(world: World, principal_id: str) -> dict[str, str]:
    """Give a new credential of a principal: its id and its token."""
    result: dict[str, str] = (
        await world.replica.command("principal.issue_credential", principal_id=principal_id)
    ).result
    return result


async def revoke(world: World, principal_id: str, credential: dict[str, str], replica: int = 0) -> Answer:
    """Revoke it."""
    ids = {"principal_id": principal_id, "credential_id": credential["credential_id"]}
    return await world.replicas[replica].command("principal.revoke_credential", **ids)


async def test_f34_no_command_comes_after_the_revocation_of_its_credential(world: World) -> None:
    """Two hundred times at once, on two replicas: it came before, or it did not come."""
    app_id, principal_id = await make_principal(world)
    outcomes: Counter[int] = Counter()
    for turn in range(TURNS):
        credential = await issue(world, principal_id)
        rename = world.replicas[turn % 2].send_as(credential["token"], "app.rename", app_id=app_id, name=f"name-{turn}")
        revoked, renamed = await in_turns(turn, revoke(world, principal_id, credential, 1 - turn % 2), rename)
        assert revoked.status == 200
        assert renamed.status in (200, 401), renamed.body
        if renamed.status == 200:
            assert renamed.body["position"] < revoked.body["position"]
        outcomes[renamed.status] += 1
    assert len(outcomes) == 2, outcomes


Revoke = Callable[[], Awaitable[Any]]


@pytest.fixture
def interposing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Revoke], None]:
    """Let something happen once between the next decision and its append."""

    def interpose(happen: Revoke) -> None:
        append = Decider._append

        async def append_late(self: Decider, *args: Any) -> Any:
            monkeypatch.setattr(Decider, "_append", append)
            await happen()
            return await append(self, *args)

        monkeypatch.setattr(Decider, "_append", append_late)

    return interpose


async def rename_while_revoked(world: World, interposing: Callable[[Revoke], None]) -> Answer:
    """Send a command that is decided before a revocation and appended after it."""
    app_id, principal_id = await make_principal(world)
    credential = await issue(world, principal_id)
    interposing(lambda: revoke(world, principal_id, credential, 1))
    return await world.replica.send_as(credential["token"], "app.rename", app_id=app_id, name="too-late")


async def test_f34_what_was_decided_before_a_revocation_is_not_appended_after_it(
    world: World, interposing: Callable[[Revoke], None]
) -> None:
    late = await rename_while_revoked(world, interposing)
    assert (late.status, late.code) == (401, "unauthenticated")
    assert not [each for each in await world.events() if each.type == "app.renamed"]


async def test_planted_a_sender_outside_the_read_set_slips_in_after_its_revocation(
    world: World, interposing: Callable[[Revoke], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    grants = authorizing._grants

    async def forgetful(tx: Transaction, identity: Any) -> Any:
        found = await grants(tx, identity)
        tx.reads.aggregates.pop(identity.holder_id, None)
        return found

    monkeypatch.setattr(authorizing, "_grants", forgetful)
    late = await rename_while_revoked(world, interposing)
    assert late.status == 200


async def test_f15_a_replay_is_not_answered_to_who_may_not_send_it_any_more(world: World) -> None:
    app_id, principal_id = await make_principal(world)
    credential, other = await issue(world, principal_id), await issue(world, principal_id)
    headers = {"Idempotency-Key": "once"}

    async def send(token: str) -> Answer:
        return await world.replicas[1].send_as(token, "app.rename", headers=headers, app_id=app_id, name="store")

    first = await send(credential["token"])
    assert first.status == 200
    assert (await send(other["token"])).body == first.body
    await revoke(world, principal_id, credential)
    assert (await send(credential["token"])).status == 401
    assert (await send(other["token"])).body == first.body
    reads = await world.replica.command("principal.set_scopes", principal_id=principal_id, scopes=["apps:read"])
    assert reads.status == 200
    denied = await send(other["token"])
    assert (denied.status, denied.code) == (403, "forbidden")


async def test_f34_reads_end_within_a_second_of_the_revocation_on_every_replica(
    world: World, database: Database
) -> None:
    """Also where the views do not move: what a credential may is not asked of them."""
    app_id, principal_id = await make_principal(world, "apps:read")
    credential = await issue(world, principal_id)
    async with open_views(database) as views, served(database) as first, served(database) as second:
        await views.project()
        for reader in (first, second):
            assert (await reader.get(f"/v1/apps/{app_id}", token=credential["token"])).status == 200
        await revoke(world, principal_id, credential)
        began = monotonic()
        took = await asyncio.gather(*(_refused_after(reader, app_id, credential, began) for reader in (first, second)))
    print(f"reads ended {[round(each, 2) for each in took]} s after the revocation")  # noqa: T201
    assert max(took) < 3


async def _refused_after(reader: Any, app_id: str, credential: dict[str, str], began: float) -> float:
    async def is_refused() -> bool:
        answer = await reader.get(f"/v1/apps/{app_id}", token=credential["token"])
        return bool(answer.status == 401)

    await eventually(is_refused)
    return monotonic() - began
