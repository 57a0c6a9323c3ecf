"""Who may do what in the database: attempts on all that the catalog names, and the log's immutability (F44)."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import asyncpg
import pytest

from keelson.log.database import Connection
from keelson.log.migrate import migrate
from keelson.log.roles import SERVICE_ROLES, create_roles, grant_roles_to, set_password
from keelson.views import PROJECTIONS
from support.database import Cluster, Database
from support.log import connected, read_all
from support.projecting import caught_up, pooled, replica

EDITS = (
    "UPDATE log.events SET reason = 'other'",
    "UPDATE log.events SET reason = 'other' WHERE false",
    "DELETE FROM log.events WHERE position = 1",
    "TRUNCATE log.events",
    "TRUNCATE log.events CASCADE",
    "INSERT INTO log.events SELECT * FROM log.events ON CONFLICT (position) DO UPDATE SET reason = 'other'",
    "MERGE INTO log.events AS e USING log.head AS h ON true WHEN MATCHED THEN DELETE",
)


class Rights(NamedTuple):
    """What each service may do with something; whatever is not here is refused."""

    command: frozenset[str] = frozenset()
    projector: frozenset[str] = frozenset()
    query: frozenset[str] = frozenset()

    def of(self, role: str) -> frozenset[str]:
        """Give a role's."""
        found: frozenset[str] = getattr(self, role.removeprefix("keelson_"))
        return found


# What is tried on each relation: a statement of each kind, that changes nothing where it is let through, and is rolled
# back. Only an owner may alter, drop or put a trigger on one.
ATTEMPTS = {
    "SELECT": "SELECT * FROM {relation} LIMIT 0",
    "INSERT": "INSERT INTO {relation} DEFAULT VALUES",
    "UPDATE": "UPDATE {relation} SET {column} = DEFAULT WHERE false",
    "DELETE": "DELETE FROM {relation} WHERE false",
    "TRUNCATE": "TRUNCATE {relation}",
    "ALTER": "ALTER TABLE {relation} ADD COLUMN tried integer",
    "TRIGGER": "CREATE TRIGGER tried BEFORE INSERT ON {relation} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "DROP": "DROP TABLE {relation}",
}
# On a view that no row can be changed through, which is refused for that before anybody's rights are asked.
VIEW_ATTEMPTS = {
    "SELECT": ATTEMPTS["SELECT"],
    "ALTER": "ALTER VIEW {relation} SET (security_barrier)",
    "DROP": "DROP VIEW {relation}",
}
READ, OWN, OWN_VIEW = frozenset({"SELECT"}), frozenset(ATTEMPTS), frozenset(VIEW_ATTEMPTS)

# Every relation there is.
RELATIONS = {
    "log.events": Rights(READ, READ, READ),
    "log.head": Rights(READ, READ, READ),
    "log.claims": Rights(command=READ),
    "log.claim_scopes": Rights(command=READ),
    "log.idempotency_keys": Rights(command=READ),
    "log.claims_version": Rights(),
    "vault.people": Rights(command=READ, query=READ),
    "vault.credentials": Rights(command=READ, query=READ),
    "vault.secrets": Rights(command=READ),
    "ops.last_uses": Rights(command=READ, query=READ),
    "ops.heartbeats": Rights(command=READ, query=READ),
    "ops.checkpoints": Rights(READ, frozenset({"SELECT", "INSERT", "UPDATE"}), READ),
    "ops.leases": Rights(projector=frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"}), query=READ),
    "ops.skips": Rights(projector=frozenset({"SELECT", "INSERT"}), query=READ),
    "public._pogo_migration": Rights(READ, READ, READ),
    "public._pogo_version": Rights(),
    **{
        f"views.{table.name}": Rights(projector=OWN, query=READ)
        for projection in PROJECTIONS.values()
        for table in projection.tables
    },
    **{
        f"views.{view.name}": Rights(projector=OWN_VIEW, query=READ)
        for projection in PROJECTIONS.values()
        for view in projection.derived
    },
}
EXECUTE = frozenset({"EXECUTE"})
# Every function there is.
FUNCTIONS = {
    "log.append_v1": Rights(command=EXECUTE),
    "log.append_v2": Rights(command=EXECUTE),
    "log.assert_people_independent_v1": Rights(),
    "log.assert_independent_v1": Rights(),
    "log.begin_epoch_v1": Rights(command=EXECUTE),
    "log.confirm_v1": Rights(command=EXECUTE),
    "log.held_afterwards_v1": Rights(),
    "log.position_at_v1": Rights(query=EXECUTE),
    "log.prune_keys_v1": Rights(command=EXECUTE),
    "log.read_filtered_v1": Rights(query=EXECUTE),
    "log.refuse_change": Rights(),
    "log.renew_epoch_v1": Rights(EXECUTE, EXECUTE, EXECUTE),
    "ops.note_heartbeat_v1": Rights(command=EXECUTE),
    "ops.note_uses_v1": Rights(command=EXECUTE, query=EXECUTE),
    "ops.rewrap_secrets_v1": Rights(command=EXECUTE),
}
USE, MAKE = frozenset({"USAGE"}), frozenset({"USAGE", "CREATE"})
# Every schema there is.
SCHEMAS = {
    "log": Rights(USE, USE, USE),
    "vault": Rights(command=USE, query=USE),
    "ops": Rights(USE, USE, USE),
    "views": Rights(projector=MAKE, query=USE),
    "views_next": Rights(projector=MAKE),
    "public": Rights(USE, USE, USE),
}
# What no service may do, whatever it is for.
BEYOND = (
    "SET ROLE keelson",
    "SET ROLE postgres",
    "SET ROLE pg_read_all_data",
    "SET SESSION AUTHORIZATION postgres",
    "CREATE SCHEMA mine",
    "CREATE ROLE mine",
    "CREATE DATABASE mine",
    "DROP EXTENSION plpgsql",
    "CREATE PUBLICATION mine FOR ALL TABLES",
    "CREATE EVENT TRIGGER mine ON ddl_command_start EXECUTE FUNCTION log.refuse_change()",
    "ALTER SYSTEM SET fsync = off",
    "ALTER DATABASE {database} SET synchronous_commit = off",
    "ALTER TABLE log.events DISABLE TRIGGER append_only",
    "SET session_replication_role = replica",
    "SELECT FROM log.head FOR UPDATE",
    "DO 'BEGIN LOCK TABLE log.events IN ACCESS EXCLUSIVE MODE; END'",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY (SELECT 1) TO '/dev/null'",
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT FROM pg_authid",
    "SELECT pg_terminate_backend({another})",
    "SELECT pg_create_physical_replication_slot('mine')",
)

_RELATIONS = """
    SELECT c.relnamespace::regnamespace || '.' || c.relname, quote_ident(a.attname),
        c.relkind = 'v' AND pg_relation_is_updatable(c.oid, false) = 0
    FROM pg_class AS c LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = 1
    WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f', 'S')
        AND c.relnamespace::regnamespace::text !~ '^(pg_.*|information_schema)$'
"""
_FUNCTIONS = """
    SELECT f.pronamespace::regnamespace || '.' || f.proname,
        array(SELECT format('NULL::%s', format_type(type, NULL)) FROM unnest(f.proargtypes::oid[]) AS type)
    FROM pg_proc AS f WHERE f.pronamespace::regnamespace::text !~ '^(pg_.*|information_schema)$'
"""
_SCHEMAS = "SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^(pg_.*|information_schema)$'"


@pytest.fixture
async def built(database: Database) -> Database:
    """Give a database with all views, made by a projector."""
    async with replica(database), pooled(database.projector_dsn) as pool:
        await caught_up(pool)
    return database


def dsn_of(database: Database, role: str) -> str:
    dsn: str = getattr(database, f"{role.removeprefix('keelson_')}_dsn")
    return dsn


async def is_let(connection: Connection, statement: str, *, kind: str = "") -> bool:
    """Try a statement, and undo it; whether it was let through, whatever else was wrong with it.

    With a kind, a right that is missing further in, for something of another kind, is something else that is wrong.
    """
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError as error:
        return kind not in str(error)
    except asyncpg.PostgresError:
        return True
    finally:
        await transaction.rollback()
    return True


async def relation_rights(admin: Connection, connection: Connection) -> dict[str, set[str]]:
    """Try everything on every relation; give what was let through."""
    return {
        name: {
            verb
            for verb, statement in (VIEW_ATTEMPTS if is_fixed else ATTEMPTS).items()
            if await is_let(connection, statement.format(relation=name, column=column))
        }
        for name, column, is_fixed in await admin.fetch(_RELATIONS)
    }


async def function_rights(admin: Connection, connection: Connection) -> dict[str, set[str]]:
    """Call every function; give which could be."""
    calls = {name: f"SELECT {name}({', '.join(arguments)})" for name, arguments in await admin.fetch(_FUNCTIONS)}
    return {
        name: {"EXECUTE"} if await is_let(connection, call, kind="function") else set() for name, call in calls.items()
    }


async def schema_rights(admin: Connection, connection: Connection) -> dict[str, set[str]]:
    """Use every schema, and make something in it; give what was let through."""
    ways = {"USAGE": "SELECT '{schema}.nothing'::regclass", "CREATE": "CREATE TABLE {schema}.tried ()"}
    return {
        schema: {right for right, way in ways.items() if await is_let(connection, way.format(schema=schema))}
        for (schema,) in await admin.fetch(_SCHEMAS)
    }


Try = Callable[[Connection, Connection], Awaitable[dict[str, set[str]]]]
TABLES: list[tuple[Try, dict[str, Rights]]] = [
    (relation_rights, RELATIONS),
    (function_rights, FUNCTIONS),
    (schema_rights, SCHEMAS),
]


async def assert_rights(database: Database, role: str, attempts: Try, table: dict[str, Rights]) -> None:
    """Hold a role to be let do what the table says, and nothing else; and the table to name all that there is."""
    async with connected(database.admin_dsn) as admin, connected(dsn_of(database, role)) as connection:
        found = await attempts(admin, connection)
    assert found == {name: set(rights.of(role)) for name, rights in table.items()}


@pytest.mark.parametrize("role", SERVICE_ROLES)
@pytest.mark.parametrize(("attempts", "table"), TABLES)
async def test_f44_each_service_is_let_do_what_it_needs_and_refused_everything_else(
    built: Database, role: str, attempts: Try, table: dict[str, Rights]
) -> None:
    await assert_rights(built, role, attempts, table)


@pytest.mark.parametrize("role", SERVICE_ROLES)
async def test_f44_no_service_reaches_beyond_the_log(database: Database, role: str) -> None:
    others = [f"SET ROLE {other}" for other in SERVICE_ROLES if other != role]
    others += [
        f"ALTER ROLE {other} PASSWORD 'mine'" for other in (*SERVICE_ROLES, "keelson", "postgres") if other != role
    ]
    others += [f"ALTER ROLE {role} SUPERUSER", f"ALTER ROLE {role} BYPASSRLS", f"GRANT keelson TO {role}"]
    async with (
        connected(database.admin_dsn) as admin,
        connected(dsn_of(database, role)) as connection,
        connected(database.owner_dsn) as another,
    ):
        assert database.name == await admin.fetchval("SELECT current_database()")
        names = {"database": database.name, "another": another.get_server_pid()}
        for statement in [*(each.format(**names) for each in BEYOND), *others]:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        assert await another.fetchval("SELECT 1") == 1


@pytest.mark.parametrize("role", SERVICE_ROLES)
async def test_no_service_makes_temporary_tables(cluster: Cluster, role: str) -> None:
    """In the database that was migrated: a copy of it, as other tests have, has rights of its own."""
    async with cluster.fresh_database(migrated=False) as database:
        async with connected(database.owner_dsn) as owner:
            await migrate(owner)
        async with connected(dsn_of(database, role)) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("CREATE TEMPORARY TABLE mine ()")


@pytest.mark.parametrize(
    ("plant", "attempts", "table"),
    [
        ("CREATE TABLE log.forgotten ()", *TABLES[0]),
        ("CREATE VIEW vault.forgotten AS SELECT * FROM vault.people", *TABLES[0]),
        ("CREATE SEQUENCE ops.forgotten", *TABLES[0]),
        ("GRANT UPDATE ON log.head TO keelson_query", *TABLES[0]),
        ("GRANT TRUNCATE ON ops.leases TO keelson_projector", *TABLES[0]),
        ("CREATE FUNCTION ops.forgotten() RETURNS integer LANGUAGE sql AS 'SELECT 1'", *TABLES[1]),
        ("GRANT EXECUTE ON FUNCTION log.append_v1 TO PUBLIC", *TABLES[1]),
        ("CREATE SCHEMA forgotten", *TABLES[2]),
        ("GRANT CREATE ON SCHEMA public TO PUBLIC", *TABLES[2]),
        ("GRANT USAGE ON SCHEMA vault TO keelson_projector", *TABLES[2]),
    ],
)
async def test_what_is_granted_or_made_beside_the_table_is_found(
    built: Database, plant: str, attempts: Try, table: dict[str, Rights]
) -> None:
    async with connected(built.owner_dsn) as owner:
        await owner.execute(plant)
    with pytest.raises(AssertionError):  # noqa: PT012 - which of the roles is let through differs
        for role in SERVICE_ROLES:
            await assert_rights(built, role, attempts, table)


async def test_no_right_is_on_a_column_alone(built: Database) -> None:
    """What is tried on a relation reads all of it, and would not see that."""
    on_columns = "SELECT attrelid::regclass::text FROM pg_attribute WHERE attacl IS NOT NULL AND attrelid > 16383"
    async with connected(built.admin_dsn) as admin:
        assert await admin.fetch(on_columns) == []
        await admin.execute("GRANT SELECT (person_id) ON vault.people TO PUBLIC")
        assert [tuple(row) for row in await admin.fetch(on_columns)] == [("vault.people",)]


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
            "SELECT proname, prosecdef, proconfig FROM pg_proc"
            " WHERE pronamespace IN ('log'::regnamespace, 'ops'::regnamespace, 'vault'::regnamespace)"
        )
    definers = {name for name, definer, _ in functions if definer}
    assert definers == {
        "append_v1",
        "append_v2",
        "begin_epoch_v1",
        "note_heartbeat_v1",
        "note_uses_v1",
        "prune_keys_v1",
        "renew_epoch_v1",
        "rewrap_secrets_v1",
    }
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


async def test_roles_are_created_once_and_can_be_given_awkward_passwords(cluster: Cluster, database: Database) -> None:
    async with connected(database.admin_dsn) as admin:
        transaction = admin.transaction()
        await transaction.start()
        await create_roles(admin)
        await set_password(admin, "keelson_query", "it's \\ % awkward")
        await grant_roles_to(admin, "postgres")
        await transaction.rollback()
    assert set(SERVICE_ROLES) <= set(cluster.passwords)
