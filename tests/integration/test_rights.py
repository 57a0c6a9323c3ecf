"""Who may do what in the database: the whole catalog against DESIGN's table, and the log's immutability (F44)."""

import asyncpg
import pytest

from keelson.log.database import Connection
from keelson.log.roles import SERVICE_ROLES, create_roles, grant_roles_to, set_password
from support.database import Cluster, Database
from support.log import connected, read_all

EDITS = (
    "UPDATE log.events SET reason = 'other'",
    "UPDATE log.events SET reason = 'other' WHERE false",
    "DELETE FROM log.events WHERE position = 1",
    "TRUNCATE log.events",
    "TRUNCATE log.events CASCADE",
    "INSERT INTO log.events SELECT * FROM log.events ON CONFLICT (position) DO UPDATE SET reason = 'other'",
    "MERGE INTO log.events AS e USING log.head AS h ON true WHEN MATCHED THEN DELETE",
)

# Relation or function, and what the role may do with it; anything that is not here is refused.
READ, OWN = {"SELECT"}, {"SELECT", "INSERT", "UPDATE", "DELETE"}
RIGHTS: dict[str, dict[str, set[str]]] = {
    "keelson_command": {
        "log.events": READ,
        "log.head": READ,
        "log.claims": READ,
        "log.claim_scopes": READ,
        "log.idempotency_keys": READ,
        "vault.people": READ,
        "ops.checkpoints": READ,
        "ops.leases": READ,
        "ops.skips": READ,
        "public._pogo_migration": READ,
        "log.append_v1": {"EXECUTE"},
        "log.begin_epoch_v1": {"EXECUTE"},
        "log.prune_keys_v1": {"EXECUTE"},
    },
    "keelson_projector": {
        "log.events": READ,
        "log.head": READ,
        "ops.checkpoints": OWN,
        "ops.leases": OWN,
        "ops.skips": {"SELECT", "INSERT"},
        "public._pogo_migration": READ,
    },
    "keelson_query": {
        "log.events": READ,
        "log.head": READ,
        "vault.people": READ,
        "ops.checkpoints": READ,
        "ops.leases": READ,
        "ops.skips": READ,
        "public._pogo_migration": READ,
    },
}
# Functions that anyone may call: they run with the caller's own rights, and change nothing.
HARMLESS = {
    "log.confirm_v1",
    "log.position_at_v1",
    "log.read_filtered_v1",
    "log.refuse_change",
}

_RELATION_RIGHTS = """
    SELECT r.rolname, c.relnamespace::regnamespace || '.' || c.relname, p.privilege
    FROM pg_class AS c
    CROSS JOIN pg_roles AS r
    CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER'])
        AS p (privilege)
    WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f')
        AND c.relnamespace::regnamespace::text !~ '^(pg_.*|information_schema)$'
        AND r.rolname = ANY ($1) AND has_table_privilege(r.oid, c.oid, p.privilege)
    UNION ALL
    SELECT r.rolname, c.relnamespace::regnamespace || '.' || c.relname, 'SEQUENCE'
    FROM pg_class AS c CROSS JOIN pg_roles AS r
    WHERE c.relkind = 'S' AND r.rolname = ANY ($1) AND has_sequence_privilege(r.oid, c.oid, 'USAGE')
    UNION ALL
    SELECT r.rolname, f.pronamespace::regnamespace || '.' || f.proname, 'EXECUTE'
    FROM pg_proc AS f CROSS JOIN pg_roles AS r
    WHERE f.pronamespace::regnamespace::text !~ '^(pg_.*|information_schema)$'
        AND r.rolname = ANY ($1) AND has_function_privilege(r.oid, f.oid, 'EXECUTE')
"""
_SCHEMA_RIGHTS = """
    SELECT r.rolname, n.nspname, p.privilege
    FROM pg_namespace AS n CROSS JOIN pg_roles AS r CROSS JOIN unnest(ARRAY['USAGE', 'CREATE']) AS p (privilege)
    WHERE n.nspname !~ '^(pg_.*|information_schema)$'
        AND r.rolname = ANY ($1) AND has_schema_privilege(r.oid, n.oid, p.privilege)
"""


async def _rights(connection: Connection, query: str) -> dict[str, dict[str, set[str]]]:
    found: dict[str, dict[str, set[str]]] = {role: {} for role in SERVICE_ROLES}
    for role, name, privilege in await connection.fetch(query, list(SERVICE_ROLES)):
        found[role].setdefault(name, set()).add(privilege)
    return found


async def test_each_service_may_do_what_the_design_says_and_nothing_else(database: Database) -> None:
    async with connected(database.admin_dsn) as admin:
        found = await _rights(admin, _RELATION_RIGHTS)
    for rights in found.values():
        for name in HARMLESS:
            assert rights.pop(name) == {"EXECUTE"}
    assert found == RIGHTS


async def test_the_projector_alone_creates_and_only_in_its_schemas(database: Database) -> None:
    everyone = {"log": {"USAGE"}, "ops": {"USAGE"}, "public": {"USAGE"}}
    async with connected(database.admin_dsn) as admin:
        assert await _rights(admin, _SCHEMA_RIGHTS) == {
            "keelson_command": {**everyone, "vault": {"USAGE"}},
            "keelson_projector": {**everyone, "views": {"USAGE", "CREATE"}, "views_next": {"USAGE", "CREATE"}},
            "keelson_query": {**everyone, "vault": {"USAGE"}, "views": {"USAGE"}},
        }


async def test_service_roles_are_ordinary_and_members_of_nothing(database: Database) -> None:
    async with connected(database.admin_dsn) as admin:
        roles = await admin.fetch(
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolcanlogin FROM pg_roles"
            " WHERE rolname = ANY ($1)",
            list(SERVICE_ROLES),
        )
        assert [tuple(role) for role in roles] == [(False, False, False, False, False, True)] * 3
        members = "SELECT count(*) FROM pg_auth_members WHERE member::regrole::text = ANY ($1)"
        assert await admin.fetchval(members, list(SERVICE_ROLES)) == 0


async def test_whoever_runs_with_more_rights_has_a_path_of_its_own(database: Database) -> None:
    async with connected(database.admin_dsn) as admin:
        functions = await admin.fetch(
            "SELECT proname, prosecdef, proconfig FROM pg_proc WHERE pronamespace = 'log'::regnamespace"
        )
    definers = {name for name, definer, _ in functions if definer}
    assert definers == {"append_v1", "begin_epoch_v1", "prune_keys_v1"}
    for _, _, settings in functions:
        assert "search_path=pg_catalog, pg_temp" in settings


@pytest.mark.parametrize("edit", EDITS)
async def test_f44_an_event_is_never_edited_by_the_owner_nor_a_superuser(database: Database, edit: str) -> None:
    async with connected(database.admin_dsn) as reader:
        before = await read_all(reader)
        for dsn in (database.owner_dsn, database.admin_dsn):
            async with connected(dsn) as connection:
                with pytest.raises(asyncpg.PostgresError) as raised:
                    await connection.execute(edit)
                assert raised.value.sqlstate == "KE004"
                assert "append-only" in str(raised.value)
        assert await read_all(reader) == before


@pytest.mark.parametrize("edit", EDITS)
async def test_f44_nor_by_a_service(database: Database, edit: str) -> None:
    for dsn in (database.command_dsn, database.projector_dsn, database.query_dsn):
        async with connected(dsn) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(edit)


async def test_f44_no_service_reaches_beyond_its_functions(database: Database) -> None:
    for dsn, statement in (
        (database.command_dsn, "INSERT INTO log.events SELECT * FROM log.events"),
        (database.command_dsn, "UPDATE log.head SET position = 0"),
        (database.command_dsn, "SELECT FROM log.head FOR UPDATE"),
        (database.command_dsn, "INSERT INTO log.claims VALUES ('a', 'b', 'c', 0)"),
        (database.command_dsn, "ALTER TABLE log.events DISABLE TRIGGER append_only"),
        (database.command_dsn, "SET session_replication_role = replica"),
        (database.command_dsn, "CREATE TABLE public.mine ()"),
        (database.projector_dsn, "SELECT FROM vault.people"),
        (database.projector_dsn, "SELECT log.begin_epoch_v1('a', 'b', 'c', 'd', 'e', 'f')"),
        (database.query_dsn, "SELECT FROM log.claims"),
        (database.query_dsn, "UPDATE ops.checkpoints SET position = 0"),
    ):
        async with connected(dsn) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


async def test_roles_are_created_once_and_can_be_given_awkward_passwords(cluster: Cluster, database: Database) -> None:
    async with connected(database.admin_dsn) as admin:
        transaction = admin.transaction()
        await transaction.start()
        await create_roles(admin)
        await set_password(admin, "keelson_query", "it's \\ % awkward")
        await grant_roles_to(admin, "postgres")
        await transaction.rollback()
    assert set(SERVICE_ROLES) <= set(cluster.passwords)
