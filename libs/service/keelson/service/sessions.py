"""Sessions of one's own: what a service needs of whatever stands between it and PostgreSQL (F21)."""

import asyncpg
import structlog

from keelson.log.database import UNAVAILABLE
from keelson.log.pooling import SharedSessionsError, shares_sessions
from keelson.service.settings import Settings
from keelson.settings import variable_of

_DATABASE = variable_of("database_url")
_LISTEN_DATABASE = variable_of("listen_database_url")

_UNREACHABLE: tuple[type[BaseException], ...] = (*UNAVAILABLE, asyncpg.InterfaceError, asyncpg.PostgresError)

_log = structlog.get_logger()


async def require_sessions(settings: Settings) -> None:
    """Raise SharedSessionsError if the database is reached through a pooler that does not pool whole sessions.

    Where only the listener's URL leads through one it is said, and the service goes on by polling alone. Raises what
    connecting to the database raises; a listener that cannot be reached now is the listener's to reach.
    """
    if await shares_sessions(settings.database_url):
        raise SharedSessionsError(_DATABASE)
    if settings.listen_database_url == settings.database_url:
        return
    try:
        if await shares_sessions(settings.listen_database_url):
            _log.warning("listener_deaf", setting=_LISTEN_DATABASE, why="its pooler does not pool by session")
    except _UNREACHABLE as error:
        _log.warning("listener_unchecked", setting=_LISTEN_DATABASE, error=type(error).__name__)
