"""Credentials of the vault: whose a token is, and that nobody is known by it for longer than a second after its end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keelson.access import Grants
from keelson.access.tokens import hash_token, new_token
from keelson.events import Actor, Ids
from keelson.events.node import NodeEnrolled, NodeEnrollmentCreated, NodeRemoved
from keelson.events.org import OrgCredentialIssued, OrgCredentialRevoked, OrgMemberAdded, OrgMemberRoleChanged
from keelson.events.principal import PrincipalCreated, PrincipalCredentialIssued, PrincipalScopesSet
from keelson.log.database import open_pool
from keelson.service.credentials import MAX_AGE_S, Caller, Credentials
from support.database import Database
from support.query_world import ORG, World, make_id, open_world
from support.waiting import eventually

MEMBER, PRINCIPAL, NODE = make_id("member", 1), make_id("principal", 1), make_id("node", 1)
CREDENTIAL = make_id("credential", 1)
NOW = datetime(2026, 11, 25, tzinfo=UTC)


class Asked:
    """A database that counts what it is asked, and waits at a gate; its clock is the test's."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.seconds = 100.0
        self.now = NOW
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self, query: str, *args: Any) -> Any:
        """Ask."""
        return await self._ask("fetch", query, *args)

    async def fetchrow(self, query: str, *args: Any) -> Any:
        """Ask."""
        return await self._ask("fetchrow", query, *args)

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Ask."""
        return await self._ask("fetchval", query, *args)

    async def _ask(self, method: str, query: str, *args: Any) -> Any:
        self.asked.append(query)
        await self.gate.wait()
        return await getattr(self._pool, method)(query, *args)


@asynccontextmanager
async def looking_up(dsn: str, **options: Any) -> AsyncIterator[tuple[Asked, Credentials]]:
    """Lend credentials as a service of this role looks them up."""
    pool = await open_pool(dsn, max_size=2, application_name="test-credentials")
    try:
        db = Asked(pool)
        yield db, Credentials(db, clock=lambda: db.seconds, now=lambda: db.now, **options)
    finally:
        await pool.close()


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database) as world:
        await world.append_base()
        yield world


async def keep(world: World, kind: str, holder: str, actor: str, credential: str = CREDENTIAL) -> str:
    """Keep a new token's hash in the vault; give the token."""
    token = new_token()
    await world.owner.execute(
        "INSERT INTO vault.credentials (credential_id, hash, kind, holder_id, actor_id) VALUES ($1, $2, $3, $4, $5)",
        *(credential, hash_token(token), kind, holder, actor),
    )
    return token


async def add_member(world: World, role: Any = "developer", **credential: Any) -> str:
    await world.append(
        (ORG, OrgMemberAdded(member_id=MEMBER, person_id=make_id("person", 1), role=role)),
        (ORG, OrgCredentialIssued(member_id=MEMBER, credential_id=CREDENTIAL, **credential)),
    )
    return await keep(world, "member", ORG, MEMBER)


async def test_a_member_is_known_with_what_its_role_grants(world: World, database: Database) -> None:
    token = await add_member(world)
    for dsn in (database.command_dsn, database.query_dsn):
        async with looking_up(dsn) as (_, credentials):
            caller = await found(credentials, token)
            assert caller.identity.actor == Actor("user", MEMBER)
            assert (caller.identity.kind, caller.identity.holder_id) == ("member", ORG)
            assert (caller.grants.org_id, caller.grants.role, caller.grants.operator) == (ORG, "developer", False)


async def test_a_principal_is_known_with_its_scopes_of_now(world: World, database: Database) -> None:
    ids = Ids(org_id=ORG)
    await world.append((PRINCIPAL, PrincipalCreated(name="ci", scopes=("apps:read",))), ids=ids)
    await world.append((PRINCIPAL, PrincipalCredentialIssued(credential_id=CREDENTIAL)), ids=ids)
    token = await keep(world, "principal", PRINCIPAL, PRINCIPAL)
    async with looking_up(database.query_dsn) as (db, credentials):
        assert (await found(credentials, token)).grants.scopes == {"apps:read"}
        await world.append((PRINCIPAL, PrincipalScopesSet(scopes=("audit:read",))), ids=ids)
        db.seconds += MAX_AGE_S + 0.01
        assert (await found(credentials, token)).grants.scopes == {"audit:read"}


async def test_a_machine_enrols_and_is_a_node_then(world: World, database: Database) -> None:
    ids = Ids(node_id=NODE)
    waiting = NodeEnrollmentCreated(expires_at=NOW + timedelta(hours=1), credential_id="credential_0")
    await world.append((NODE, waiting), ids=ids)
    enrolling = await keep(world, "enrollment", NODE, NODE, "credential_0")
    async with looking_up(database.command_dsn) as (db, credentials):
        machine = await found(credentials, enrolling)
        assert (machine.identity.kind, machine.grants) == ("enrollment", Grants(enrolls=NODE))
        enrolled = NodeEnrolled(name="a", labels={}, cpu_millis=1, memory_bytes=1, credential_id=CREDENTIAL)
        await world.append((NODE, enrolled), ids=ids)
        token = await keep(world, "node", NODE, NODE)
        assert (await found(credentials, token)).grants == Grants(node_id=NODE)
        db.seconds += 1
        assert await credentials.find(enrolling) is None
        await world.append((NODE, NodeRemoved()), ids=ids)
        db.seconds += 1
        assert await credentials.find(token) is None


async def test_f34_a_revoked_credential_is_good_for_less_than_a_second(world: World, database: Database) -> None:
    token = await add_member(world)
    async with looking_up(database.query_dsn) as (db, credentials):
        await found(credentials, token)
        await world.append((ORG, OrgCredentialRevoked(member_id=MEMBER, credential_id=CREDENTIAL)))
        db.seconds += MAX_AGE_S
        await found(credentials, token)
        db.seconds += 0.01
        assert await credentials.find(token) is None
        assert await credentials.find(token) is None
    assert MAX_AGE_S < 1


async def test_one_whose_hash_was_removed_is_nobody(world: World, database: Database) -> None:
    token = await add_member(world)
    async with looking_up(database.query_dsn) as (db, credentials):
        await found(credentials, token)
        await world.owner.execute("DELETE FROM vault.credentials")
        db.seconds += 1
        assert await credentials.find(token) is None


async def test_one_expires(world: World, database: Database) -> None:
    token = await add_member(world, expires_at=NOW + timedelta(minutes=1))
    async with looking_up(database.query_dsn) as (db, credentials):
        await found(credentials, token)
        db.now += timedelta(minutes=1)
        db.seconds += 1
        assert await credentials.find(token) is None


async def test_what_is_not_good_is_asked_for_again_each_time(world: World, database: Database) -> None:
    token = new_token()
    async with looking_up(database.query_dsn) as (db, credentials):
        for _ in range(2):
            assert await credentials.find(token) is None
        assert len(db.asked) == 2
        await add_member(world)
        await world.owner.execute("UPDATE vault.credentials SET hash = $1", hash_token(token))
        await found(credentials, token)


async def test_who_is_known_costs_one_statement_a_second_and_nothing_between(world: World, database: Database) -> None:
    token = await add_member(world)
    async with looking_up(database.query_dsn) as (db, credentials):
        await found(credentials, token)
        assert len(db.asked) == 2
        for _ in range(10):
            await found(credentials, token)
        assert len(db.asked) == 2
        for _ in range(3):
            db.seconds += 1
            await found(credentials, token)
        assert len(db.asked) == 5
        await world.append((ORG, OrgMemberRoleChanged(member_id=MEMBER, role="admin")))
        db.seconds += 1
        assert (await found(credentials, token)).grants.role == "admin"
        assert len(db.asked) == 7


async def test_all_who_ask_at_once_share_one_question_and_one_who_gives_up_does_not_end_it(
    world: World, database: Database
) -> None:
    token = await add_member(world)
    async with looking_up(database.query_dsn) as (db, credentials):
        db.gate.clear()
        asking = [asyncio.create_task(credentials.find(token)) for _ in range(20)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asking[0].cancel()
        db.gate.set()
        answers = await asyncio.gather(*asking[1:])
        assert len({id(caller) for caller in answers}) == 1
        assert answers[0] is not None
        assert len(db.asked) == 2
        with pytest.raises(asyncio.CancelledError):
            await asking[0]


async def test_f26_what_was_read_in_another_epoch_is_read_again(world: World, database: Database) -> None:
    """After a restore the same seq may be another event."""
    token = await add_member(world)
    async with looking_up(database.query_dsn) as (db, credentials):
        assert (await found(credentials, token)).grants.role == "developer"
        admin = OrgMemberAdded(member_id=MEMBER, person_id=make_id("person", 1), role="readonly")
        await forge(world, admin, seq=2)
        await world.owner.execute("UPDATE log.head SET epoch = 'later'")
        db.seconds += 1
        assert (await found(credentials, token)).grants.role == "readonly"


async def forge(world: World, event: OrgMemberAdded, *, seq: int) -> None:
    """Put another event in the place of one, as a restore may."""
    await world.owner.execute("ALTER TABLE log.events DISABLE TRIGGER USER")
    payload = f'{{"member_id":"{event.member_id}","person_id":"{event.person_id}","role":"{event.role}"}}'
    await world.owner.execute(
        "UPDATE log.events SET payload = $1 WHERE aggregate_id = $2 AND seq = $3", payload, ORG, seq
    )
    await world.owner.execute("ALTER TABLE log.events ENABLE TRIGGER USER")


async def test_of_many_credentials_only_the_latest_are_kept(world: World, database: Database) -> None:
    token = await add_member(world)
    issued = OrgCredentialIssued(member_id=MEMBER, credential_id="credential_2")
    await world.append((ORG, issued))
    other = await keep(world, "member", ORG, MEMBER, "credential_2")
    async with looking_up(database.query_dsn, max_entries=1) as (db, credentials):
        await found(credentials, token)
        await found(credentials, other)
        before = len(db.asked)
        await found(credentials, token)
        assert len(db.asked) == before + 1


async def test_when_one_was_last_used_is_written_down(world: World, database: Database) -> None:
    token = await add_member(world)
    for dsn, minutes in ((database.query_dsn, 2), (database.command_dsn, 1)):
        async with looking_up(dsn) as (db, credentials):
            db.now += timedelta(minutes=minutes)
            await found(credentials, token)
            await credentials.flush()
            await credentials.flush()
    rows = await world.owner.fetch("SELECT credential_id, used_at FROM ops.last_uses")
    assert [tuple(row) for row in rows] == [(CREDENTIAL, NOW + timedelta(minutes=2))]


async def found(credentials: Credentials, token: str) -> Caller:
    """Find a caller that is there."""
    caller = await credentials.find(token)
    assert caller is not None
    return caller


async def test_f26_in_another_epoch_everybody_is_asked_for_anew(world: World, database: Database) -> None:
    """Also who was being asked for when it began: their statements may have been answered by two servers."""
    token = await add_member(world)
    async with looking_up(database.query_dsn) as (db, credentials):
        await found(credentials, token)
        assert credentials.warm(token) is not None
        credentials.forget()
        assert credentials.warm(token) is None
        db.gate.clear()
        asking = asyncio.create_task(credentials.find(token))
        before = len(db.asked)
        await eventually(lambda: len(db.asked) > before)
        credentials.forget()
        db.gate.set()
        assert await asking is not None
        # The credential and its holder, and both once more.
        assert len(db.asked) == before + 4
        assert credentials.warm(token) is not None
