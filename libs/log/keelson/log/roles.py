"""The database's roles: an owner for migrations, and one role per service with the least rights that do."""

from keelson.log.database import Connection
from keelson.log.queries import load

SERVICE_ROLES = ("keelson_command", "keelson_projector", "keelson_query")

_CREATE_ROLES = load(__file__, "create_roles")
_SET_PASSWORD = load(__file__, "set_password")
_GRANT_ROLES = load(__file__, "grant_roles")


async def create_roles(connection: Connection) -> None:
    """Create the service roles where missing; the connection's role must be allowed to create roles."""
    await connection.execute(_CREATE_ROLES)


async def set_password(connection: Connection, role: str, password: str) -> None:
    """Let a role log in with this password, from now on."""
    await connection.execute(await connection.fetchval(_SET_PASSWORD, role, password))


async def grant_roles_to(connection: Connection, owner: str) -> None:
    """Make the log's owner a member of the projector's role, so that a migration can create its schemas."""
    await connection.execute(await connection.fetchval(_GRANT_ROLES, owner))
