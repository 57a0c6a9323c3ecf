"""Connections to PostgreSQL: bounded in number and in every wait, and durable or refused."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import asyncpg

from keelson.log.epochs import Epochs, enter_log

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    _AnyConnection = asyncpg.Connection[asyncpg.Record]
else:
    _AnyConnection = asyncpg.Connection

# A string, since asyncpg's classes are generic for the type checker only.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

CONNECT_TIMEOUT_S = 5.0

# The server notices a peer that vanished within about half a minute, instead of after hours (F5, F28).
_KEEPALIVE = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15000",
}

# What means that the database cannot be reached or is too slow, as opposed to a defect of ours. TimeoutError is an
# OSError; so is every refused or reset connection.
UNAVAILABLE: tuple[type[BaseException], ...] = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.LockNotAvailableError,
    asyncpg.PostgresSystemError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    # asyncpg's state machine, when the server dies between the messages of one statement.
    asyncpg.InternalClientError,
)


class NotDurableError(Exception):
    """The server may acknowledge what it can lose; no service works on it."""


class Database(Protocol):
    """What a single statement needs: a pool or a connection."""

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        """Run one statement and give its rows."""

    async def fetchrow(self, query: str, *args: Any) -> Any:
        """Run one statement and give its first row, or None."""

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Run one statement and give the first column of its first row, or None."""


class LogConnection(_AnyConnection):
    """A connection that entered the log, in an epoch."""

    __slots__ = ("epoch",)

    epoch: str


async def connect(dsn: str, *, application_name: str, **settings: str) -> "asyncpg.Connection[asyncpg.Record]":
    """Open a connection of one's own, within CONNECT_TIMEOUT_S; `settings` are PostgreSQL's, for this session.

    Nobody asks which lineage it leads to: it is for what is not of the log, or comes before.
    """
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        return await _connect(dsn, server_settings={"application_name": application_name}, settings=settings)


async def connect_to_log(
    dsn: str, *, application_name: str, epochs: Epochs | None = None, **settings: str
) -> LogConnection:
    """Open a connection of one's own to the log, likewise, and enter its epoch: a new one, if the lineage is another.

    Raises LineageError for what nothing can be written to.
    """
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        return await _enter(
            dsn,
            server_settings={"application_name": application_name},
            connection_class=LogConnection,
            settings=settings,
            epochs=epochs or Epochs(),
            standby=False,
        )


async def connect_unnamed(dsn: str, *, application_name: str) -> "asyncpg.Connection[asyncpg.Record]":
    """Open a connection whose statements have no names, so that each works in whatever session a pooler lends it."""
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        return await _connect(
            dsn, server_settings={"application_name": application_name}, statement_cache_size=0, settings={}
        )


async def _connect(*args: Any, settings: Mapping[str, str], **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
    """Connect as asyncpg does, then set the session's settings, in one round trip.

    Not as parameters of the start: PgBouncer refuses most of those, also where it pools whole sessions (F21).
    """
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(*args, **options)
    try:
        values = _session_settings(settings).items()
        await connection.execute("".join(f"SET {name} = '{value}';" for name, value in values))
    except BaseException:
        connection.terminate()
        raise
    return connection


async def _enter(
    *args: Any, settings: Mapping[str, str], epochs: Epochs, standby: bool, **options: Any
) -> LogConnection:
    """Connect likewise, and enter the log; its settings are set on the way."""
    connection: LogConnection = await asyncpg.connect(*args, **options)
    try:
        found_by = options["server_settings"]["application_name"]
        connection.epoch = await enter_log(
            connection, epochs, _session_settings(settings), found_by=found_by, standby=standby
        )
    except BaseException:
        connection.terminate()
        raise
    return connection


def _session_settings(settings: Mapping[str, str]) -> Mapping[str, str]:
    return {**_KEEPALIVE, **settings}


async def check_durable(db: Database) -> None:
    """Raise NotDurableError if an acknowledged commit could be lost (DESIGN's fifth promise, F8)."""
    for setting in ("fsync", "synchronous_commit"):
        if await db.fetchval("SELECT current_setting($1)", setting) == "off":
            raise NotDurableError(f"PostgreSQL runs with {setting} off; Keelson needs it on")


async def _keep_session(_connection: object) -> None:
    """Reset nothing: no statement of ours changes a session, and the reset query costs a round trip a release."""


class Pool:
    """A bounded pool. Waiting for a connection ends with TimeoutError; a closed connection is a ConnectionError.

    What it lends is in the epoch that the process knows, as of that moment: what was opened in an earlier one may lead
    to a server that was replaced, and is closed instead.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", acquire_timeout_s: float, epochs: Epochs) -> None:
        self._pool = pool
        self._acquire_timeout_s = acquire_timeout_s
        self._epochs = epochs
        self._users = 0

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """Borrow a connection; asyncpg's complaint of a lost one becomes what it is, a ConnectionError.

        Whoever is cancelled meanwhile is cancelled: what rolling back comes to then, on a lost connection, says less.
        """
        self._users += 1
        try:
            async with self._lent() as connection:
                try:
                    yield connection
                except asyncpg.InternalClientError:
                    connection.terminate()  # its state is unknown: nobody shall borrow it again
                    raise
        except Exception as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from error
            # A ValueError as well: wrong arguments, a defect of ours and not of the connection.
            if isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError):
                raise ConnectionError(str(error)) from error
            raise
        finally:
            self._users -= 1

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[Connection]:
        """Borrow a connection that was opened in the epoch; others are closed on the way."""
        while True:
            async with self._pool.acquire(timeout=self._acquire_timeout_s) as connection:
                lent: Any = connection
                if lent.epoch == self._epochs.name:
                    yield connection
                    return
                connection.terminate()

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        """Run one statement and give its rows."""
        async with self.acquire() as connection:
            return await connection.fetch(query, *args)

    async def fetchrow(self, query: str, *args: Any) -> Any:
        """Run one statement and give its first row, or None."""
        async with self.acquire() as connection:
            return await connection.fetchrow(query, *args)

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Run one statement and give the first column of its first row, or None."""
        async with self.acquire() as connection:
            return await connection.fetchval(query, *args)

    @property
    def size(self) -> int:
        """How many connections are open."""
        return self._pool.get_size()

    @property
    def idle(self) -> int:
        """How many of them nobody uses."""
        return self._pool.get_idle_size()

    @property
    def max_size(self) -> int:
        """How many connections may be open."""
        return self._pool.get_max_size()

    @property
    def waiting(self) -> int:
        """How many callers wait for a connection, be it for a free one or for a new one to open."""
        return max(self._users - (self.size - self.idle), 0)

    async def close(self, timeout_s: float = 5.0) -> None:
        """Wait for borrowed connections to come back, at most so long, then cut them."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()


async def open_pool(
    dsn: str,
    *,
    max_size: int = 10,
    acquire_timeout_s: float = 2.0,
    statement_timeout_s: float = 5.0,
    application_name: str,
    epochs: Epochs | None = None,
    standby: bool = False,
    **settings: str,
) -> Pool:
    """Make a pool that connects when it is first used, so that a service can start before its database (F8).

    Each of its connections enters the log before it is lent, and tells `epochs`; `standby` says whether it may be one
    to a server in recovery. What cannot be worked with is a LineageError of whoever wanted to borrow.
    """
    epochs = epochs or Epochs()
    pool = await asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=max_size,
        reset=_keep_session,
        timeout=CONNECT_TIMEOUT_S,
        # The server's own bound comes first; this one is for a server that no longer answers.
        command_timeout=statement_timeout_s + 1,
        server_settings={"application_name": application_name},
        connection_class=LogConnection,
        connect=partial(
            _enter,
            epochs=epochs,
            standby=standby,
            settings={
                "statement_timeout": str(int(statement_timeout_s * 1000)),
                "idle_in_transaction_session_timeout": "1000",
                **settings,
            },
        ),
    )
    return Pool(pool, acquire_timeout_s, epochs)
