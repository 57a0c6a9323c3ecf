"""The services' roles and their passwords, set from files: how a deployment hands each service its own."""

from collections.abc import Mapping
from pathlib import Path

from keelson.log.database import Connection
from keelson.log.roles import SERVICE_ROLES, create_roles, grant_roles_to, set_password


class PasswordsError(Exception):
    """A role's password cannot be read; the text names the file, and never what it holds."""


def read_passwords(folder: Path) -> dict[str, str]:
    """Read each role's password from the file named like it; ends of line at its end are left out."""
    return {role: _read_password(folder / role) for role in SERVICE_ROLES}


async def prepare_roles(connection: Connection, passwords: Mapping[str, str]) -> None:
    """Create the services' roles where they are missing, and set their passwords, which may be anew; all or nothing.

    The connection's role becomes a member of the projector's, as the log's owner must be, and must be allowed to create
    roles. Sessions that are open go on.
    """
    async with connection.transaction():
        await create_roles(connection)
        for role in SERVICE_ROLES:
            await set_password(connection, role, passwords[role])
        await grant_roles_to(connection, await connection.fetchval("SELECT current_user"))


def _read_password(file: Path) -> str:
    try:
        password = file.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise PasswordsError(f"{file} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise PasswordsError(f"{file} is not text in UTF-8") from None
    if not password:
        raise PasswordsError(f"{file} is empty")
    return password
