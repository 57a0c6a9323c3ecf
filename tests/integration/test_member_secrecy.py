"""Canaries in all that is personal or a secret of members and principals: in the vault, and nowhere else (F43)."""

from collections.abc import AsyncIterator

import pytest

from support.command_world import World, open_world
from support.database import Database

EMAIL, NAME = "canary-7f3a@person.example", "Canary 91bd"
HASHES = "SELECT encode(hash, 'hex') FROM vault.credentials"


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database) as world:
        yield world


async def dump_but_people(world: World) -> str:
    """Give all rows of all tables as text, but for those of people."""
    tables = await world.log.fetch(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
        " WHERE schemaname IN ('log', 'vault', 'ops', 'views') AND tablename <> 'people'"
    )
    rows = [row[0] for each in tables for row in await world.log.fetch(f"SELECT t::text FROM {each['name']} AS t")]  # noqa: S608 - ours
    return "\n".join(rows)


async def test_f43_who_a_member_is_and_its_tokens_are_told_to_nobody_who_does_not_ask(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    replica = world.replica
    org_id = await world.create_org()
    key = {"Idempotency-Key": "once"}
    added = await replica.command("org.add_member", org_id=org_id, email=EMAIL, name=NAME, role="owner")
    member = {"org_id": org_id, "member_id": added.result["member_id"]}
    issued = await replica.command("org.issue_credential", headers=key, **member)
    replayed = await replica.command("org.issue_credential", headers=key, **member)
    principal_id = await replica.create("principal", org_id=org_id, name="ci", scopes=["*"])
    by_it = await replica.command("principal.issue_credential", principal_id=principal_id)
    tokens = [issued.result["token"], by_it.result["token"]]
    assert all(token.startswith("kls_") for token in tokens)
    assert replayed.result == {"credential_id": issued.result["credential_id"], "token": None}

    refusals = [
        await replica.command("org.add_member", org_id=org_id, email=EMAIL, role="admin"),
        await replica.command("org.add_member", org_id=org_id, email=f" {EMAIL}", role="admin"),
        await replica.command("org.add_member", org_id=org_id, email=EMAIL, name=NAME * 99, role="admin"),
        await replica.command("org.create", name="x", owner_email=f"{EMAIL}\n"),
        await replica.command("org.remove_member", **member),
    ]
    assert [answer.code for answer in refusals] == ["name_taken", "invalid", "invalid", "invalid", "last_owner"]

    told = "\n".join(map(str, [answer.body for answer in refusals]))
    metrics = (await replica.send("GET", "/metrics", token=None)).body
    output = "".join(capfd.readouterr())
    stored = await dump_but_people(world)
    assert output, "requests are logged"
    for place in (told, str(metrics), output, stored):
        assert not [secret for secret in (EMAIL, NAME, *tokens) if secret.lower() in place.lower()]
    assert await world.log.fetchval("SELECT email || name FROM vault.people") == EMAIL + NAME


async def test_what_was_erased_is_in_no_table(world: World) -> None:
    replica = world.replica
    org_id = await world.create_org()
    added = await replica.command("org.add_member", org_id=org_id, email=EMAIL, name=NAME, role="admin")
    member = {"org_id": org_id, "member_id": added.result["member_id"]}
    await replica.command("org.issue_credential", **member)
    assert len(await world.log.fetch(HASHES)) == 1
    assert (await replica.command("org.erase_member", **member)).status == 200
    assert not await world.log.fetch("SELECT FROM vault.people")
    assert not await world.log.fetch(HASHES), "its credentials ended with the membership"

    again = await replica.command("org.add_member", org_id=org_id, email=EMAIL.upper(), role="admin")
    assert again.result["member_id"] != member["member_id"]
    ids = [row[0] for row in await world.log.fetch("SELECT person_id FROM vault.people")]
    events = [event for event in await world.events() if event.type == "org.member_added"]
    assert [event.payload.count(ids[0]) for event in events] == [0, 1], "it is a new person"
