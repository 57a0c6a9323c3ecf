"""A server made ready for Keelson: the owner, the service roles with their passwords, the database, its migrations."""

import secrets
from collections.abc import Mapping
from urllib.parse import quote, urlsplit, urlunsplit

from keelson.log.database import Connection, connect
from keelson.log.migrate import migrate
from keelson.log.queries import load
from keelson.log.roles import SERVICE_ROLES, create_roles, grant_roles_to, set_password

OWNER = "keelson"
DATABASE = "keelson"

_CREATE_OWNER = load(__file__, "create_owner")
_HAS_DATABASE = load(__file__, "has_database")
_CREATE_DATABASE = load(__file__, "create_database")
_DROP_DATABASE = load(__file__, "drop_database")


def new_passwords() -> dict[str, str]:
    """Make a random password for the owner and for each service role, by the role's name."""
    return {role: secrets.token_urlsafe(24) for role in (OWNER, *SERVICE_ROLES)}


async def prepare_server(admin_url: str, passwords: Mapping[str, str]) -> None:
    """Make a server of our own ready, as its superuser: roles with these passwords, and an empty database."""
    connection = await connect(admin_url, application_name="keelson-local")
    try:
        await connection.execute(_CREATE_OWNER)
        await set_password(connection, OWNER, passwords[OWNER])
        await _prepare_roles(connection, OWNER, passwords)
        if not await connection.fetchval(_HAS_DATABASE, DATABASE):
            await create_database(connection, DATABASE)
    finally:
        await connection.close()


async def prepare_foreign(owner_url: str, passwords: Mapping[str, str]) -> None:
    """Make somebody else's database ready, as its role, which will own the log and may create roles."""
    connection = await connect(owner_url, application_name="keelson-local")
    try:
        await _prepare_roles(connection, await connection.fetchval("SELECT current_user"), passwords)
    finally:
        await connection.close()


async def prepare_log(owner_url: str) -> list[str]:
    """Apply the migrations that the database lacks; give their names."""
    connection = await connect(owner_url, application_name="keelson-local")
    try:
        return await migrate(connection)
    finally:
        await connection.close()


async def create_database(connection: Connection, name: str, template: str = "template1") -> None:
    """Create a database of the owner's as a copy of another, to which nobody may be connected."""
    await connection.execute(await connection.fetchval(_CREATE_DATABASE, name, OWNER, template))


async def drop_database(connection: Connection, name: str) -> None:
    """Drop a database if it exists, whoever is connected to it."""
    await connection.execute(await connection.fetchval(_DROP_DATABASE, name))


def with_role(url: str, role: str, password: str) -> str:
    """Return the URL of the same database for another role."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(role, safe='')}:{quote(password, safe='')}@{place}"))


async def _prepare_roles(connection: Connection, owner: str, passwords: Mapping[str, str]) -> None:
    await create_roles(connection)
    for role in SERVICE_ROLES:
        await set_password(connection, role, passwords[role])
    await grant_roles_to(connection, owner)
