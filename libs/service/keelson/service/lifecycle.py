"""A service's life: it waits for what it needs, works, drains, stops; and dies when a part of it has died.

The HTTP server is up before the database is, so that health can be asked meanwhile (F8).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Any, Literal

import asyncpg
import structlog

from keelson.log.database import UNAVAILABLE, NotDurableError
from keelson.log.epochs import LineageError
from keelson.log.pooling import SharedSessionsError

RETRY_FIRST_S = 0.1
RETRY_MAX_S = 2.0

Resources = Callable[[], AbstractAsyncContextManager[None]]

_log = structlog.get_logger()

# Whose resources the running task opens, or works for.
_CURRENT: ContextVar["Lifecycle | None"] = ContextVar("lifecycle", default=None)


class NotReadyError(Exception):
    """What the service needs is not there yet, and may come; the text says what, and is shown to anyone who asks."""


# What a start waits out. Credentials and the database itself may be made by a migration that is still running.
_PASSING = (
    *UNAVAILABLE,
    NotReadyError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


class _DoneError(Exception):
    """Ends a task group whose body has ended."""


@asynccontextmanager
async def background(*tasks: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.TaskGroup]:
    """Own tasks for as long as the body runs; then cancel them, and wait for them.

    If one of them raises, the body is cancelled and the exceptions come out as a group: a service does not limp on
    without a part of it. More tasks may be given to the group.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(task)
            yield group
            raise _DoneError  # noqa: TRY301 - only an exception ends a task group with its tasks
    except* _DoneError:
        pass


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """Give the exceptions of which a group, however nested, consists; the exception itself if it is none."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves_of(each)
    else:
        yield error


def on_stop(callback: Callable[[], None]) -> None:
    """Have the service that this task works for call this when it stops accepting: whatever waits shall end (F33)."""
    lifecycle = _CURRENT.get()
    if lifecycle is not None:
        lifecycle.waits.append(callback)


class Lifecycle:
    """Where a service stands. `starting` and `stopped` answer nothing; `draining` still answers, but is not ready."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._stop = asyncio.Event()
        self.phase: Literal["starting", "serving", "draining", "stopped"] = "starting"
        self.waits_for = "the service is starting"
        self.failure: Exception | None = None
        self.waits: list[Callable[[], None]] = []
        self.on_failure: Callable[[], None] = lambda: None

    @property
    def answers(self) -> bool:
        """Whether requests can be handled: the resources are open."""
        return self.phase in ("serving", "draining")

    def drain(self) -> None:
        """Stop being ready; requests are answered as ever, until `run_within` ends."""
        if self.phase == "serving":
            self.phase = "draining"

    def end_waits(self) -> None:
        """Have whatever waits for something else answer with what there is; safe to call again."""
        for callback in self.waits:
            callback()

    @asynccontextmanager
    async def run_within(self) -> AsyncIterator[None]:
        """Open the resources in the background, and close them at the end of the body.

        Opening is repeated with back-off while what it needs is away. If it fails otherwise, or if the resources fail
        later, `failure` is set and `on_failure` called: whoever runs the service must end it.
        """
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._run(), name="lifecycle")
            yield
            self._stop.set()
            if self.phase == "starting":
                task.cancel()

    async def _run(self) -> None:
        _CURRENT.set(self)
        try:
            await self._hold()
        except Exception as error:  # noqa: BLE001 - reported by whoever owns the process, who must end it
            self.failure = error
            self.on_failure()
        finally:
            self.phase = "stopped"
            self.waits_for = "the service has stopped"

    async def _hold(self) -> None:
        retry_s = RETRY_FIRST_S
        while True:
            try:
                async with self._resources():
                    self.phase = "serving"
                    _log.info("service_serving")
                    await self._stop.wait()
                    return
            except Exception as error:
                if self.phase != "starting" or not all(isinstance(each, _PASSING) for each in leaves_of(error)):
                    raise
                self._note(error)
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, RETRY_MAX_S)

    def _note(self, error: Exception) -> None:
        ours = [str(each) for each in leaves_of(error) if isinstance(each, NotReadyError | LineageError)]
        self.waits_for = ours[0] if ours else "the database cannot be reached"
        _log.warning("service_waiting", waits_for=self.waits_for, error=repr(error))


def is_refusal(error: BaseException) -> bool:
    """Say whether a failure is one that the operator must mend, told in one line instead of a traceback."""
    return all(isinstance(each, NotDurableError | SharedSessionsError) for each in leaves_of(error))
