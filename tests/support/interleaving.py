"""Real code whose statements each wait to be let through: a test chooses how the steps of many processes interleave.

Nothing happens by itself: time stands still unless it is told to pass, a statement runs when it is let through, and
whoever waits for a lock waits until its holder goes on, or is told that it has waited for too long. So the same choices
give the same run.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from keelson.log.database import Connection, Pool, connect
from keelson.log.epochs import Epochs
from support.database import Cluster, Database

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection

T = TypeVar("T")

# By the clock that stands still: for ever.
_FOREVER_S = 1e9
# What is written here need not outlive the server.
_SETTINGS = {"application_name": "keelson-tests", "synchronous_commit": "off"}

# What is not a process's waits for none of them: time stands still here, so that only the server can end such a wait.
BOUNDED = {**_SETTINGS, "statement_timeout": "20000"}

_END = "SELECT pg_terminate_backend(pid, 5000) FROM unnest($1::int[]) AS pid"
_COUNT_BLOCKED = "SELECT count(*) FROM unnest($1::int[]) AS pid WHERE pg_blocking_pids(pid) <> '{}'"
_TIME_OUT = "SELECT pg_cancel_backend(pid) FROM unnest($1::int[]) AS pid WHERE pg_blocking_pids(pid) <> '{}'"


class StillClock(asyncio.SelectorEventLoop):
    """An event loop whose timers fire only when time is told to pass."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        """Give the seconds that were told to pass."""
        return self._now

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    async def run_dry(self) -> None:
        """Run everything that can run without waiting for a timer or for a socket."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        while vars(self)["_ready"]:  # noqa: ASYNC110 - this is what lets the others run
            await asyncio.sleep(0)


class Gated(_Connection):
    """A connection of a process: each of its statements, BEGIN and COMMIT among them, waits at the process's gate."""

    process: "Process"
    # It enters no epoch: of these databases there is one alone.
    epoch = None

    async def execute(self, *args: Any, **options: Any) -> str:
        """Run a statement when it is let through."""
        async with self.process.statement(self, args[0]):
            return await super().execute(*args, **options)

    async def fetch(self, *args: Any, **options: Any) -> Any:
        """Run a statement when it is let through."""
        async with self.process.statement(self, args[0]):
            return await super().fetch(*args, **options)

    async def fetchrow(self, *args: Any, **options: Any) -> Any:
        """Run a statement when it is let through."""
        async with self.process.statement(self, args[0]):
            return await super().fetchrow(*args, **options)

    async def fetchval(self, *args: Any, **options: Any) -> Any:
        """Run a statement when it is let through."""
        async with self.process.statement(self, args[0]):
            return await super().fetchval(*args, **options)

    async def copy_records_to_table(self, *args: Any, **options: Any) -> str:
        """Copy when it is let through."""
        async with self.process.statement(self, args[0]):
            return await super().copy_records_to_table(*args, **options)


class Process:
    """What a process of its own would be: a task of real code, and its connections, which die with it."""

    def __init__(self, dsn: str, settings: Mapping[str, str]) -> None:
        self._dsn = dsn
        self._settings = {**_SETTINGS, **settings}
        self._gate: dict[asyncio.Future[bool], str] = {}
        self._connections: set[Gated] = set()
        self._running: set[Gated] = set()
        self._opening = 0
        self._is_dead = False
        self._task: asyncio.Task[Any] | None = None
        # The server's ends of connections whose replies were lost.
        self.lost: list[int] = []

    async def connect(self, *args: Any, **options: Any) -> Gated:
        """Open a connection; by itself, or for a pool."""
        if self._is_dead:
            raise asyncio.CancelledError
        self._opening += 1
        try:
            args, options = (
                args or (self._dsn,),
                {"connection_class": Gated, "server_settings": self._settings, **options},
            )
            connection: Any = await asyncpg.connect(*args, **options)
        finally:
            self._opening -= 1
        connection.process = self
        self._connections.add(connection)
        return connection  # type: ignore[no-any-return]

    async def open_pool(self) -> Pool:
        """Make a pool of connections, as many as are wanted."""
        pool = await asyncpg.create_pool(
            self._dsn,
            min_size=0,
            connection_class=Gated,
            connect=self.connect,
            reset=_keep_session,
            max_inactive_connection_lifetime=0,
            server_settings=self._settings,
        )
        return Pool(pool, _FOREVER_S, Epochs())

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Begin the process's work."""
        self._task = asyncio.get_running_loop().create_task(work)

    @property
    def is_over(self) -> bool:
        """Whether it has no work, or its work has ended, one way or another."""
        return self._task is None or self._task.done()

    def result(self) -> Any:
        """Give what its work came to, once; raises what it raised."""
        assert self._task is not None
        task, self._task = self._task, None
        return task.result()

    def failure(self) -> BaseException | None:
        """Give what ended its work; None if that is not over, ended well, or was cancelled."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        return self._task.exception()

    @property
    def waiting(self) -> Sequence[str]:
        """The statements that wait to be let through, the first first."""
        return list(self._gate.values())

    def let_through(self, pick: int = 0, *, lose_reply: bool = False) -> str:
        """Let one of the statements through, of which there must be one; give its text."""
        turn, query = list(self._gate.items())[pick % len(self._gate)]
        del self._gate[turn]
        turn.set_result(lose_reply)
        return query

    @asynccontextmanager
    async def statement(self, connection: Gated, query: str) -> AsyncIterator[None]:
        """Wait at the gate before a statement; and lose its reply, if so it shall be."""
        lose_reply = await self._pass(query)
        self._running.add(connection)
        try:
            yield
        except asyncpg.QueryCanceledError as error:
            raise asyncpg.LockNotAvailableError("waited for too long") from error
        finally:
            self._running.discard(connection)
        if lose_reply:
            self.lost.append(connection.get_server_pid())
            connection.terminate()
            raise ConnectionResetError("the reply is lost")

    async def _pass(self, query: str) -> bool:
        if self._is_dead:
            raise asyncio.CancelledError
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._gate[turn] = query
        try:
            return await turn
        finally:
            self._gate.pop(turn, None)

    @property
    def is_opening(self) -> bool:
        """Whether a connection is being opened."""
        return self._opening > 0

    @property
    def running(self) -> Sequence[int]:
        """The server's ends of the connections whose statements run, or wait for a lock."""
        return [connection.get_server_pid() for connection in self._running]

    def drop_connections(self) -> Sequence[int]:
        """Drop every connection; give the server's ends, which may not have noticed yet."""
        dropped = [each for each in self._connections if not each.is_closed()]
        self._connections.clear()
        pids = [each.get_server_pid() for each in dropped]
        for each in dropped:
            each.terminate()
        return pids

    def end(self) -> None:
        """Run nothing any more: what is still to be cleaned up can reach nobody."""
        self._is_dead = True
        if self._task is not None:
            self._task.cancel()


async def _keep_session(_connection: object) -> None:
    """Reset nothing."""


class Stage:
    """Where processes run: one database, whose every process is known, and the clock."""

    def __init__(self, runner: asyncio.Runner, database: Database, admin: Connection) -> None:
        self._runner = runner
        self.database = database
        self.admin = admin
        self._processes: list[Process] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something to its end; processes go on meanwhile as far as they are let."""
        return self._runner.run(work)

    @property
    def clock(self) -> StillClock:
        """The loop of all."""
        loop = self._runner.get_loop()
        assert isinstance(loop, StillClock)
        return loop

    def add(self, dsn: str, **settings: str) -> Process:
        """Add a process, which reaches the database in that way; `settings` are PostgreSQL's, for its sessions."""
        process = Process(dsn, settings)
        self._processes.append(process)
        return process

    async def settle(self) -> None:
        """Wait until every process waits: at its gate, for a timer, or for a lock that another holds."""
        while True:
            await self.clock.run_dry()
            running = [pid for process in self._processes for pid in process.running]
            is_opening = any(process.is_opening for process in self._processes)
            if not running and not is_opening:
                return
            # Asked also while one opens: the answer gives it the time.
            if await self.admin.fetchval(_COUNT_BLOCKED, running) == len(running) and not is_opening:
                return

    async def step(self, process: Process, pick: int = 0, *, lose_reply: bool = False) -> str:
        """Let one statement through, and everybody go on as far as that lets them; give its text."""
        query = process.let_through(pick, lose_reply=lose_reply)
        await self.settle()
        if process.lost:
            await self._end(process.lost)
            process.lost.clear()
        return query

    async def pass_time(self, seconds: float) -> None:
        """Let time pass for everybody."""
        self.clock.pass_time(seconds)
        await self.settle()

    async def time_out(self, process: Process) -> None:
        """Let whatever of a process waits for a lock have waited for too long."""
        await self.admin.fetch(_TIME_OUT, process.running)
        await self.settle()

    async def cut(self, process: Process) -> None:
        """Cut every connection of a process, which lives on."""
        await self._end(process.drop_connections())

    async def kill(self, process: Process) -> None:
        """End a process as kill -9 would."""
        pids = process.drop_connections()
        process.end()
        await self._end(pids)
        assert process.is_over, "a process that was cancelled goes on"
        process.failure()  # is nobody's any more
        self._processes.remove(process)

    async def clear(self) -> None:
        """Kill everybody."""
        for process in list(self._processes):
            await self.kill(process)

    async def _end(self, pids: Sequence[int]) -> None:
        await self.admin.fetch(_END, pids)
        await self.settle()


@contextmanager
def staged(cluster: Cluster) -> Iterator[Stage]:
    """Lend a stage with a database of its own; must not be called where an event loop runs."""
    with asyncio.Runner(loop_factory=StillClock) as runner:
        lent = cluster.fresh_database()
        database = runner.run(lent.__aenter__())
        admin = runner.run(connect(database.admin_dsn, **BOUNDED))
        stage = Stage(runner, database, admin)
        try:
            yield stage
        finally:
            runner.run(stage.clear())
            admin.terminate()
            runner.run(lent.__aexit__(None, None, None))
