"""Commands that write the vault, or limit a scope: with their events or not at all, and shown once (F12, F13, F14)."""

import asyncio
from collections import Counter
from typing import Annotated, Any

import msgspec
import pytest

from keelson.access.tokens import hash_token
from keelson.command.domain.org import Org
from keelson.command.fields import ONCE
from keelson.command.handlers import Command, Handler
from keelson.command.refusal import Refusal
from keelson.command.registry import HANDLERS
from keelson.command.transaction import Transaction
from keelson.events import Ids
from keelson.events.org import NAMES, OrgCreated
from support.command_world import World, open_world
from support.database import Database
from support.specs import OpenSealer

EMAIL = "Ada@example.org"


class Enrol(Command, frozen=True, kw_only=True):
    """Create an organisation with a person, a credential and a secret; stands in for `org.create`."""

    name: str
    email: str | None = None
    most: int | None = None
    opens: str | None = None
    silently: bool = False


class Enrolled(msgspec.Struct, frozen=True):
    """What was made."""

    org_id: str
    person_id: str | None
    token: Annotated[str | None, ONCE]
    opened: Annotated[dict[str, str] | None, ONCE] = None


async def enrol(tx: Transaction, command: Enrol) -> Enrolled:
    """Write everything that there is to write."""
    if command.silently:
        return Enrolled("", None, tx.issue_credential(tx.mint("credential"), "principal", "none", "none"))
    if command.most is not None:
        tx.limit(NAMES, held=command.most, refusal=Refusal("quota_exceeded", f"no place for {command.name}"))
    org_id = await tx.new_id(Org, None)
    tx.create(Org, org_id, Ids(org_id=org_id), OrgCreated(name=command.name))
    person_id = None
    if command.email is not None:
        person_id = await tx.find_person(command.email) or tx.mint("person")
        tx.keep_person(person_id, command.email, None)
    token = tx.issue_credential(tx.mint("credential"), "member", org_id, f"member of {org_id}")
    tx.seal_secret(f"secret of {command.name}", 1, {"NAME": command.name})
    opened = await tx.open_secret(f"secret of {command.opens}", 1) if command.opens is not None else None
    return Enrolled(org_id, person_id, token, opened)


@pytest.fixture(autouse=True)
def enrolling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `org.create` be this module's command."""
    handler = Handler(name="org.create", command=Enrol, handle=enrol, result=Enrolled)
    monkeypatch.setitem(HANDLERS, "org.create", handler)


@pytest.fixture
async def world(database: Database) -> Any:
    """Serve two replicas that seal openly."""
    async with open_world(database, replicas=2) as world:
        for replica in world.replicas:
            replica.decider._supply = replica.decider._supply._replace(sealer=OpenSealer())
        yield world


async def rows(world: World, table: str) -> list[dict[str, Any]]:
    """Give a table of the vault."""
    return [dict(row) for row in await world.log.fetch(f"SELECT * FROM vault.{table}")]  # noqa: S608 - our own names


async def test_what_a_command_writes_of_the_vault_is_there_with_its_events(world: World) -> None:
    result = (await world.replica.command("org.create", name="a", email=EMAIL)).result
    (credential,) = await rows(world, "credentials")
    assert credential.pop("credential_id").startswith("credential_")
    assert credential == {
        "hash": hash_token(result["token"]),
        "kind": "member",
        "holder_id": result["org_id"],
        "actor_id": f"member of {result['org_id']}",
    }
    assert await rows(world, "people") == [{"person_id": result["person_id"], "email": EMAIL, "name": None}]
    assert [row["secret_id"] for row in await rows(world, "secrets")] == ["secret of a"]
    assert (await world.replicas[1].command("org.create", name="b", opens="a")).result["opened"] == {"NAME": "a"}


async def test_what_is_refused_writes_nothing_of_it(world: World) -> None:
    await world.replica.command("org.create", name="a")
    assert (await world.replica.command("org.create", name="a", email=EMAIL)).code == "name_taken"
    bundle = [{"name": "org.create", "data": {"name": name, "email": EMAIL}} for name in ("b", "a")]
    refused = await world.replicas[1].bundle(*bundle)
    assert (refused.code, refused.body["command_index"]) == ("name_taken", 1)
    assert [len(await rows(world, table)) for table in ("people", "credentials", "secrets")] == [0, 1, 1]


async def test_f14_what_is_shown_once_is_in_the_first_answer_alone(world: World) -> None:
    """Fifty identical requests with one key, on two replicas at once, and one more later."""
    headers = {"Idempotency-Key": "key"}
    asked = [world.replicas[n % 2].command("org.create", name="a", email=EMAIL, headers=headers) for n in range(50)]
    answers = [(await each).body for each in asyncio.as_completed(asked)]
    answers.append((await world.replica.command("org.create", name="a", email=EMAIL, headers=headers)).body)
    tokens = Counter(answer["result"].pop("token") for answer in answers)
    assert tokens[None] == 50
    (token,) = [token for token in tokens if token is not None]
    (credential,) = await rows(world, "credentials")
    assert credential["hash"] == hash_token(token)
    assert all(answer == answers[0] for answer in answers)
    stored = await world.log.fetchval("SELECT string_agg(answer, '') FROM log.idempotency_keys")
    assert token not in stored
    assert token not in "".join(each.payload for each in await world.events())


async def test_f12_a_person_whom_two_replicas_add_at_once_is_one(world: World) -> None:
    emails = [EMAIL.upper() if n % 3 else EMAIL for n in range(20)]
    answers = await asyncio.gather(
        *(
            world.replicas[n % 2].command("org.create", name=world.new_name(), email=email)
            for n, email in enumerate(emails)
        )
    )
    assert len({answer.result["person_id"] for answer in answers}) == 1
    assert [row["person_id"] for row in await rows(world, "people")] == [answers[0].result["person_id"]]


async def test_f12_the_last_place_is_given_once_and_the_limits_own_refusal_to_all_others(world: World) -> None:
    await world.replica.command("org.create", name="first")
    answers = await asyncio.gather(
        *(world.replicas[n % 2].command("org.create", name=f"n{n}", most=3) for n in range(20))
    )
    assert Counter(answer.status for answer in answers) == {200: 2, 422: 18}
    refused = [answer for answer in answers if answer.status == 422]
    assert {answer.code for answer in refused} == {"quota_exceeded"}
    assert all(answer.body["detail"].startswith("no place for n") for answer in refused)
    assert len([each for each in await world.events() if each.type == "org.created"]) == 3
    assert len(await rows(world, "credentials")) == 3


async def test_the_command_of_a_bundle_that_passes_a_limit_is_named(world: World) -> None:
    await world.replica.command("org.create", name="first")
    bundle = [{"name": "org.create", "data": {"name": f"n{n}", "most": 3}} for n in range(4)]
    refused = await world.replica.bundle(*bundle)
    assert (refused.code, refused.body["command_index"]) == ("quota_exceeded", 2)
    raised = [*bundle[:2], {"name": "org.create", "data": {"name": "more", "most": 4}}]
    assert (await world.replica.bundle(*raised)).status == 200


async def test_a_later_command_of_a_bundle_opens_what_an_earlier_one_sealed(world: World) -> None:
    first, second = [{"name": "org.create", "data": data} for data in ({"name": "a"}, {"name": "b", "opens": "a"})]
    assert (await world.replica.bundle(first, second)).body["results"][1]["result"]["opened"] == {"NAME": "a"}


async def test_a_command_that_changes_the_vault_and_says_so_in_no_event_is_a_defect(world: World) -> None:
    answer = await world.replica.command("org.create", name="a", silently=True)
    assert (answer.status, answer.code) == (500, "internal")
    assert await rows(world, "credentials") == []
