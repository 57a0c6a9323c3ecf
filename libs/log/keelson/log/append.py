"""Group commit: one append group in flight per process, the next one fills meanwhile (ADR 0002)."""

import asyncio
from collections.abc import Callable
from typing import Any, Literal, get_args

import asyncpg
import structlog

from keelson.log.database import UNAVAILABLE, connect_to_log
from keelson.log.decision import Decision, Moved, Outcome
from keelson.log.epochs import Epochs
from keelson.log.group import Group, arguments, outcomes
from keelson.log.queries import load

log = structlog.get_logger()

_APPEND = load(__file__, "append")
_LIMIT_TRANSACTION = load(__file__, "limit_transaction")
_READ_SESSION = load(__file__, "read_session")

EPOCH_CHANGED = "KE001"

# A connection was lost, or could not be had; another was faster where none should be; a decision can never be appended.
Failure = Literal["interrupted", "lost_race", "refused"]
FAILURES: tuple[Failure, ...] = get_args(Failure)
_TRANSACTION_TIMEOUT_SINCE = 17

_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 1.0

# Where the server warns that a wait for its standbys was cancelled: the code is that of any warning, the text may be
# in any language.
_WAIT_FOR_STANDBYS = "SyncRepWaitForLSN"


class _NotReplicatedError(Exception):
    """The server reports success of what no standby may have, and what a promotion could lose (F9)."""


# The connection, or the server, is gone or too slow: what became of the group is unknown, or it may be tried again.
# Any other error of the server's reaches `run` from connecting alone: no password yet, no database, no schema.
_LOST: tuple[type[BaseException], ...] = (
    *UNAVAILABLE,
    asyncpg.InterfaceError,
    asyncpg.PostgresError,
    _NotReplicatedError,
)
# Others were faster; the whole command runs again (F13).
_LOST_RACE = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.UniqueViolationError)


class AppendUnavailableError(Exception):
    """The append did not end in time. Nothing is promised; the same key may be tried again."""


class _Entry:
    """A decision that somebody waits for; whoever stops waiting abandons it."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        # It was submitted, and no reply came.
        self.in_doubt = False
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def settle(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def fail(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)


class Appender:
    """The process's one writer of the log.

    `append` may be called from any number of tasks; `run` belongs to one. A reply that was lost leaves the group's
    outcome unknown: it is submitted again on a new connection, each decision under its own key, behind the head's lock,
    so that it is appended once and never twice (F6). A success that did not wait for the standbys is unknown too:
    submitted again it is found under its keys, and that transaction waits for them in its turn (F9). A decision whose
    caller stopped waiting is not submitted again; one in doubt whose epoch has ended stays in doubt, since it may have
    been appended before. `epochs` is what the process knows of them, and is told. `on_group` gets the number
    of decisions of each group, and the seconds until its outcome.
    """

    def __init__(
        self,
        dsn: str,
        *,
        application_name: str = "keelson-append",
        epochs: Epochs | None = None,
        call_timeout_s: float = 5.0,
        on_group: Callable[[int, float], None] = lambda _decisions, _seconds: None,
        on_failure: Callable[[Failure], None] = lambda _failure: None,
    ) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._call_timeout_s = call_timeout_s
        self._on_group = on_group
        self._on_failure = on_failure
        self._session: int | None = None
        # In order; a set, so that whoever stops waiting can leave, also while nothing is taken from it.
        self._queue: dict[_Entry, None] = {}
        self._in_flight: list[_Entry] = []
        self._filled = asyncio.Event()
        self._replicated = True
        self._epochs = epochs or Epochs()

    @property
    def epoch(self) -> str | None:
        """The epoch as this process knows it: decisions of another are not appended."""
        return self._epochs.name

    @property
    def session(self) -> int | None:
        """The server session in which a group is under way; None while there is none."""
        return self._session if self._in_flight else None

    def on_epoch(self, callback: Callable[[str], None]) -> None:
        """Call this with the epoch's name whenever it becomes known or another: what was cached before is void."""
        self._epochs.on_change(callback)

    async def append(self, decision: Decision, timeout_s: float) -> Outcome:
        """Give what became of a decision. Raises AppendUnavailableError if that is not known in time, or ever.

        Raises what the server, or asyncpg, says of a decision that can never be appended: a defect of the caller's.
        """
        entry = _Entry(decision)
        self._queue[entry] = None
        self._filled.set()
        late = asyncio.get_running_loop().call_later(timeout_s, entry.fail, AppendUnavailableError())
        try:
            return await entry.outcome
        finally:
            late.cancel()
            self._queue.pop(entry, None)

    async def run(self) -> None:
        """Append what comes, until cancelled, whatever happens to the connection."""
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                connection = await self._connect()
                try:
                    while True:
                        await self._append_next(connection)
                        # Only now: a server whose disk is full lets everybody in (F10).
                        delay_s = _FIRST_DELAY_S
                finally:
                    self._session = None
                    connection.terminate()
            except _LOST as error:
                self._on_failure("interrupted")
                for entry in self._in_flight:
                    entry.in_doubt = True
                log.warning("append_interrupted", error=type(error).__name__, in_doubt=len(self._in_flight))
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _LONGEST_DELAY_S)

    async def _connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        """Open the writer's session: plans made once, no wait without a bound; and enter the epoch."""
        connection = await connect_to_log(
            self._dsn,
            application_name=self._application_name,
            epochs=self._epochs,
            plan_cache_mode="force_generic_plan",
            jit="off",
            # The server gives up before this side does, so that most time-outs have a known outcome.
            statement_timeout=str(int(self._call_timeout_s * 800)),
            idle_in_transaction_session_timeout="1000",
        )
        try:
            async with asyncio.timeout(self._call_timeout_s):
                if connection.get_server_version().major >= _TRANSACTION_TIMEOUT_SINCE:
                    await connection.fetchval(_LIMIT_TRANSACTION, str(int(self._call_timeout_s * 1000)))
                self._session = await connection.fetchval(_READ_SESSION)
        except BaseException:
            connection.terminate()
            raise
        self._replicated = True
        connection.add_log_listener(self._hear)
        return connection

    def _hear(self, _connection: object, message: Any) -> None:
        """Take a message of the server's; asyncpg tells it before it gives the result that the message precedes."""
        if message.server_source_function == _WAIT_FOR_STANDBYS:
            self._replicated = False

    async def _append_next(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Append the group whose outcome is unknown, or else the next one."""
        self._in_flight = [entry for entry in self._in_flight if not entry.outcome.done()]
        while not self._in_flight:
            self._filled.clear()
            self._in_flight = self._take_group()
            if not self._in_flight:
                await self._filled.wait()
        await self._append(connection, self._in_flight)
        self._in_flight = []

    def _take_group(self) -> list[_Entry]:
        """Take from the queue, in order, what can share a group; what depends on it stays for the next."""
        group, entries = Group(), []
        for entry in list(self._queue):
            if group.is_full:
                break
            if entry.decision.epoch != self.epoch:
                entry.settle(Moved())
            elif not entry.outcome.done():
                if not group.admit(entry.decision):
                    continue
                entries.append(entry)
            del self._queue[entry]
        return entries

    async def _append(self, connection: "asyncpg.Connection[asyncpg.Record]", entries: list[_Entry]) -> None:
        """Append a group, of one epoch, and settle it. Raises one of _LOST, and settles nothing, if it is in doubt."""
        decisions = [entry.decision for entry in entries]
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._call_timeout_s):
                rows = await connection.fetch(_APPEND, *arguments(decisions[0].epoch, decisions))
            if not self._replicated:
                raise _NotReplicatedError
        except _LOST_RACE as error:
            self._on_failure("lost_race")
            log.warning("append_lost_race", sqlstate=error.sqlstate, error=_message(error))
            _settle_all(entries, Moved())
        except (asyncpg.PostgresError, ValueError) as error:  # asyncpg's complaint of an argument is a ValueError
            if isinstance(error, UNAVAILABLE):
                raise
            await self._refused(connection, entries, error)
        else:
            self._on_group(len(entries), asyncio.get_running_loop().time() - started)
            for entry, outcome in zip(entries, outcomes(decisions, rows), strict=True):
                entry.settle(outcome)

    async def _refused(
        self, connection: "asyncpg.Connection[asyncpg.Record]", entries: list[_Entry], error: Exception
    ) -> None:
        """Settle a group that the server refused as a whole: nothing of it was appended."""
        sqlstate = getattr(error, "sqlstate", None)
        if sqlstate == EPOCH_CHANGED:
            self.enter_epoch(_detail(error))
            for entry in entries:
                # Decided on another history: decide again, unless that might do twice what the history holds.
                if entry.in_doubt:
                    entry.fail(AppendUnavailableError())
                else:
                    entry.settle(Moved())
        elif len(entries) == 1:
            self._on_failure("refused")
            log.error("decision_refused", sqlstate=sqlstate, error=_message(error))
            entries[0].fail(error)
        else:
            # One of them is at fault (or the group's rules are); the others shall not suffer for it.
            log.warning("group_refused", sqlstate=sqlstate, decisions=len(entries), error=_message(error))
            for entry in entries:
                if not entry.outcome.done():
                    await self._append(connection, [entry])

    def enter_epoch(self, epoch: str) -> None:
        """Work in this epoch from now on: what was decided in another, and is not in flight, is decided again.

        Raises LineageError for an epoch that has ended.
        """
        self._epochs.learn(epoch)


def _settle_all(entries: list[_Entry], outcome: Outcome) -> None:
    for entry in entries:
        entry.settle(outcome)


def _message(error: Exception) -> str:
    """Give what may be logged of an error.

    A server's details quote values, and so does what it says of data (class 22), and asyncpg of arguments.
    """
    tells = isinstance(error, asyncpg.PostgresError) and not str(error.sqlstate).startswith("22")
    return str(error.args[0]) if tells else type(error).__name__


def _detail(error: Any) -> str:
    """Give the DETAIL of a server's error, which asyncpg's stubs do not know of."""
    return str(error.detail)
