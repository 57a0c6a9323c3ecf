"""Reading members, principals and their credentials over HTTP; who somebody is comes from the vault at the read."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from keelson.events import Ids
from keelson.events.org import (
    OrgCreated,
    OrgCredentialIssued,
    OrgCredentialRevoked,
    OrgMemberAdded,
    OrgMemberErased,
    OrgMemberRemoved,
    OrgQuotaSet,
    Quota,
)
from keelson.events.principal import PrincipalCreated, PrincipalCredentialIssued, PrincipalDeleted
from keelson.query.credential_routes import Credential
from support.database import Database
from support.query_world import ORG, Reader, World, make_id, open_world, served

ADA, GRACE, ADA_THERE = (make_id("member", number) for number in (1, 2, 3))
PERSON_OF: dict[str, str] = {ADA: make_id("person", 1), GRACE: make_id("person", 2), ADA_THERE: make_id("person", 1)}
OTHER_ORG = make_id("org", 2)


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    """Two organisations; one person is a member of both."""
    async with open_world(database) as world:
        await world.append((ORG, OrgCreated(name="acme")))
        await world.append((OTHER_ORG, OrgCreated(name="globex")))
        await world.append((ORG, added(ADA)), (ORG, added(GRACE)))
        await world.append((OTHER_ORG, added(ADA_THERE)))
        await keep(world, ADA, "ada@acme.example", "Ada")
        await keep(world, GRACE, "grace@acme.example", None)
        await world.project()
        yield world


@pytest.fixture
async def reader(database: Database, world: World) -> AsyncIterator[Reader]:
    assert world.head
    async with served(database) as reader:
        yield reader


def added(member_id: str) -> OrgMemberAdded:
    """Give the event by which somebody becomes a developer."""
    return OrgMemberAdded(member_id=member_id, person_id=PERSON_OF[member_id], role="developer")


async def keep(world: World, member_id: str, email: str, name: str | None) -> None:
    """Say in the vault who a member is."""
    await world.owner.execute("INSERT INTO vault.people VALUES ($1, $2, $3)", PERSON_OF[member_id], email, name)


async def erase(world: World, member_id: str) -> None:
    """Erase who a member is."""
    await world.owner.execute("DELETE FROM vault.people WHERE person_id = $1", PERSON_OF[member_id])


async def test_a_member_is_read_with_e_mail_and_name(world: World, reader: Reader) -> None:
    answer = await reader.get(f"/v1/members/{ADA}")
    times = {answer.body.pop(name) for name in ("created_at", "updated_at")}
    assert len(times) == 1
    assert answer.body == {
        "id": ADA,
        "org_id": ORG,
        "person_id": PERSON_OF[ADA],
        "role": "developer",
        "erased": False,
        "deleted_at": None,
        "email": "ada@acme.example",
        "name": "Ada",
        "resource_version": 2,
        "position": 4,
    }
    members = await reader.get_all("/v1/members", org_id=ORG)
    assert [(each["id"], each["email"], each["name"]) for each in members] == [
        (ADA, "ada@acme.example", "Ada"),
        (GRACE, "grace@acme.example", None),
    ]
    assert world.head == 6


async def test_no_view_has_an_e_mail(world: World) -> None:
    tables = await world.owner.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'views'")
    assert {"members", "activity"} <= {table["tablename"] for table in tables}
    for table in tables:
        rows = await world.owner.fetch(f"SELECT t::text FROM views.{table['tablename']} AS t")  # noqa: S608 - ours
        assert not [row for row in rows if "acme.example" in row[0]]


async def test_who_was_erased_is_named_so_and_is_told_to_nobody(world: World, reader: Reader) -> None:
    etag = (await reader.get(f"/v1/members/{ADA_THERE}")).headers["ETag"]
    await erase(world, ADA)
    await world.append((ORG, OrgMemberRemoved(member_id=ADA)), (ORG, OrgMemberErased(member_id=ADA)))
    await world.project()

    erased = (await reader.get(f"/v1/members/{ADA}")).body
    assert (erased["erased"], erased["email"], erased["name"]) == (True, None, None)
    assert erased["deleted_at"] is not None

    elsewhere = await reader.get(f"/v1/members/{ADA_THERE}", headers={"If-None-Match": etag})
    assert elsewhere.status == 200, "the row is as it was, but who it is is not known any more"
    assert (elsewhere.body["erased"], elsewhere.body["email"], elsewhere.body["deleted_at"]) == (False, None, None)


async def test_a_member_that_is_known_is_not_sent_again(reader: Reader) -> None:
    etag = (await reader.get(f"/v1/members/{ADA}")).headers["ETag"]
    assert (await reader.get(f"/v1/members/{ADA}", headers={"If-None-Match": etag})).status == 304
    assert "acme" not in etag


async def test_a_person_is_found_in_every_organisation(reader: Reader) -> None:
    found = await reader.get_all("/v1/members", person_id=PERSON_OF[ADA], deleted="true")
    assert [(each["id"], each["org_id"]) for each in found] == [(ADA, ORG), (ADA_THERE, OTHER_ORG)]
    assert await reader.get_all("/v1/members", role="owner") == []


async def test_a_principal_of_the_platform_has_no_organisation(world: World, reader: Reader) -> None:
    ours, theirs = make_id("principal", 1), make_id("principal", 2)
    await world.append((ours, PrincipalCreated(name="operator", scopes=("operator",))), ids=Ids())
    await world.append((theirs, PrincipalCreated(name="ci", scopes=("apps:read", "deploys:write"))))
    await world.project()

    rows = await reader.get_all("/v1/principals")
    assert [(row["id"], row["org_id"], row["name"], row["scopes"]) for row in rows] == [
        (ours, None, "operator", ["operator"]),
        (theirs, ORG, "ci", ["apps:read", "deploys:write"]),
    ]
    assert (await reader.get(f"/v1/principals/{theirs}")).headers["ETag"] == '"1"'


async def test_an_organisations_row_has_its_quota(world: World, reader: Reader) -> None:
    assert (await reader.get(f"/v1/orgs/{ORG}")).body["quota"] == {}
    await world.append((ORG, OrgQuotaSet(quota=Quota(apps=3, memory_bytes=2**30))))
    await world.project()
    assert (await reader.get(f"/v1/orgs/{ORG}")).body["quota"] == {"apps": 3, "memory_bytes": 2**30}


async def test_a_members_credentials_are_listed_with_their_last_use(world: World, reader: Reader) -> None:
    first, second, third = (make_id("credential", number) for number in (1, 2, 3))
    await world.append(
        (ORG, OrgCredentialIssued(member_id=ADA, credential_id=first, expires_at=world.time_of(90))),
        (ORG, OrgCredentialIssued(member_id=ADA, credential_id=second)),
        (ORG, OrgCredentialIssued(member_id=GRACE, credential_id=third)),
        (ORG, OrgCredentialRevoked(member_id=ADA, credential_id=second)),
    )
    await world.owner.execute("INSERT INTO ops.last_uses VALUES ($1, $2)", first, world.time_of(50))
    await world.project()

    answer = await reader.get(f"/v1/members/{ADA}/credentials")
    assert (answer.status, answer.body["next"], answer.body["position"]) == (200, None, world.head)
    used, revoked = msgspec.convert(answer.body["items"], list[Credential])
    assert (used.credential_id, used.issued_at, used.revoked_at) == (first, world.time_of(7), None)
    assert (used.expires_at, used.last_used_at) == (world.time_of(90), world.time_of(50))
    assert (revoked.credential_id, revoked.expires_at, revoked.last_used_at) == (second, None, None)
    assert revoked.revoked_at == world.time_of(10)

    paged = await reader.get_all(f"/v1/members/{ADA}/credentials", limit=1)
    assert paged == answer.body["items"]


async def test_credentials_end_with_their_holder(world: World, reader: Reader) -> None:
    principal, credential = make_id("principal", 1), make_id("credential", 1)
    await world.append(
        (ORG, OrgCredentialIssued(member_id=ADA, credential_id=make_id("credential", 2))),
        (ORG, OrgMemberRemoved(member_id=ADA)),
    )
    await world.append(
        (principal, PrincipalCreated(name="ci", scopes=("apps:read",))),
        (principal, PrincipalCredentialIssued(credential_id=credential)),
        (principal, PrincipalDeleted()),
    )
    await world.project()
    for path, ended_at in ((f"/v1/members/{ADA}", 8), (f"/v1/principals/{principal}", 11)):
        [item] = (await reader.get(f"{path}/credentials")).body["items"]
        assert msgspec.convert(item, Credential).revoked_at == world.time_of(ended_at)


async def test_the_credentials_of_nobody_are_not_found(reader: Reader) -> None:
    for path in (f"/v1/members/{make_id('member', 9)}", f"/v1/principals/{ADA}", "/v1/members/x"):
        answer = await reader.get(f"{path}/credentials")
        assert (answer.status, answer.code) == (404, "not_found"), path
    assert (await reader.get(f"/v1/members/{GRACE}/credentials")).body["items"] == []
    assert (await reader.get(f"/v1/members/{GRACE}/credentials", cursor="x")).code == "bad_cursor"
