"""`keelson bootstrap`: the first operator, its token shown once, and nobody made beside it by mistake."""

import asyncio
from pathlib import Path

import pytest

from integration.test_cli import run_cli
from keelson.access.tokens import hash_token, is_token, new_token
from support.command_world import serving
from support.database import Database
from support.log import assert_sound, connected, read_all


async def test_the_first_operator_is_made_once_and_its_token_is_good(database: Database) -> None:
    ended = await run_cli(database.command_dsn, "bootstrap")
    assert (ended.code, ended.complained) == (0, "")
    said, token = ended.said
    principal_id = said.split()[3].removesuffix(",")
    assert is_token(token)

    async with connected(database.owner_dsn) as owner:
        _, created, issued = await read_all(owner)
        assert (created.type, issued.type) == ("principal.created", "principal.credential_issued")
        assert created.aggregate_id == issued.aggregate_id == principal_id
        assert created.payload == '{"name":"operator","scopes":["operator"]}'
        assert (created.actor_type, created.actor_id, created.org_id) == ("system", "bootstrap", None)
        assert (created.command_end, issued.command_end) == (False, True)
        assert token not in created.payload + issued.payload
        hashed = await owner.fetchrow("SELECT hash, kind, holder_id, actor_id FROM vault.credentials")
        assert hashed is not None
        assert tuple(hashed) == (hash_token(token), "principal", principal_id, principal_id)
        await assert_sound(owner)

        again = await run_cli(database.command_dsn, "bootstrap")
        assert (again.code, again.said) == (1, [])
        assert "has an operator already" in again.complained
        assert len(await read_all(owner)) == 3


async def test_a_given_token_is_not_printed_and_may_be_given_again(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{new_token()}\n")
    first = await run_cli(database.owner_dsn, "bootstrap", KEELSON_OPERATOR_TOKEN_FILE=file)
    assert (first.code, len(first.said)) == (0, 1)
    again = await run_cli(database.command_dsn, "bootstrap", KEELSON_OPERATOR_TOKEN_FILE=file)
    assert again == (0, ["the token is a credential already"], "")
    file.write_text(new_token())
    other = await run_cli(database.command_dsn, "bootstrap", KEELSON_OPERATOR_TOKEN_FILE=file)
    assert (other.code, other.said) == (1, [])


async def test_what_is_run_at_each_start_makes_nobody_beside_an_operator_and_ends_well(database: Database) -> None:
    """Else a stack whose first operator has another token by now, or none, would not start again."""
    first, second = new_token(), new_token()
    made = await run_cli(database.command_dsn, "bootstrap", "--if-none", KEELSON_OPERATOR_TOKEN=first)
    assert (made.code, len(made.said)) == (0, 1)
    later = await run_cli(database.command_dsn, "bootstrap", "--if-none", KEELSON_OPERATOR_TOKEN=second)
    assert (later.code, later.complained) == (0, "")
    assert "has an operator already" in later.said[0]
    refused = await run_cli(database.command_dsn, "bootstrap", "--if-none", "--another")
    assert refused.code == 2
    async with connected(database.owner_dsn) as owner:
        assert len(await read_all(owner)) == 3


async def test_another_is_made_when_asked_for_under_another_name(database: Database) -> None:
    await run_cli(database.command_dsn, "bootstrap")
    taken = await run_cli(database.command_dsn, "bootstrap", "--another")
    assert (taken.code, taken.said) == (2, [])
    assert "has the name operator: choose another by --name" in taken.complained
    made = await run_cli(database.command_dsn, "bootstrap", "--another", "--name", "rescue")
    assert (made.code, len(made.said)) == (0, 2)


async def test_of_two_at_once_one_makes_it(database: Database) -> None:
    ended = await asyncio.gather(*(run_cli(database.command_dsn, "bootstrap") for _ in range(4)))
    assert sorted(each.code for each in ended) == [0, 1, 1, 1]
    async with connected(database.owner_dsn) as owner:
        assert len(await read_all(owner)) == 3


@pytest.mark.parametrize("token", ["sixteen-or-more-characters", "kls_" + "0" * 48])
async def test_what_is_no_token_is_refused_and_not_repeated(database: Database, token: str) -> None:
    ended = await run_cli(database.command_dsn, "bootstrap", KEELSON_OPERATOR_TOKEN=token)
    assert (ended.code, ended.said) == (2, [])
    assert "is no token" in ended.complained
    assert token not in ended.complained


async def test_a_role_that_may_not_append_makes_none(database: Database) -> None:
    ended = await run_cli(database.projector_dsn, "bootstrap")
    assert (ended.code, ended.said) == (2, [])
    assert "may not do this" in ended.complained


async def test_its_token_is_the_operators_on_a_service_that_has_none_of_its_own(database: Database) -> None:
    token = (await run_cli(database.command_dsn, "bootstrap")).said[1]
    async with serving(database, operator_token="") as replica:
        assert (await replica.command("org.create", token=token, name="acme")).status == 200
        assert (await replica.command("org.create", token=new_token(), name="other")).status == 401
