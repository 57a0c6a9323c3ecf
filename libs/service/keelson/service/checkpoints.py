"""Waiting for projections: one registry per process, told by notifications, with a slow look at the table as a net.

A thousand requests that wait for a thousand positions cost one listener and one query a second, never one each.
"""

import asyncio
import contextlib
from collections.abc import Collection

import msgspec
import structlog
from prometheus_client import Histogram

from keelson.log.database import UNAVAILABLE, Pool
from keelson.log.listen import Listener
from keelson.log.queries import load
from keelson.service.epoch import Epoch
from keelson.service.lifecycle import on_stop

CHANNEL = "keelson_checkpoint"

_LOOK = load(__file__, "look_at_checkpoints")

_WAITED = Histogram(
    "keelson_position_wait_seconds",
    "How long a request waited for a view to reach its position",
    ("reached",),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
_WAITED_FOR = {reached: _WAITED.labels(str(reached).lower()) for reached in (True, False)}

_log = structlog.get_logger(__name__)


class Checkpoint(msgspec.Struct, frozen=True):
    """How far a projection is known to be, and whether it goes on: `running`, `stopped` or `behind_schema`."""

    position: int
    state: str


class _Wait(msgspec.Struct, frozen=True, eq=False):
    """Somebody waits until all these projections have reached the position."""

    projections: Collection[str]
    position: int
    answer: asyncio.Future[bool]


class Checkpoints:
    """What this process knows of the projections' checkpoints, and who waits for them.

    What it knows was true when it was told: a checkpoint may be further on by now, and goes back only when the database
    itself was put back. `listener` listens on `CHANNEL` and is run by this object alone; `epoch` learns what each look
    at the database says.
    """

    def __init__(
        self, pool: Pool, listener: Listener, epoch: Epoch | None = None, *, poll_interval_s: float = 1.0
    ) -> None:
        self._pool = pool
        self._listener = listener
        self._poll_interval_s = poll_interval_s
        self._known: dict[str, Checkpoint] = {}
        self._heard: dict[str, int] = {}
        self._look_now = asyncio.Event()
        self._waits: set[_Wait] = set()
        self._draining = False
        self.epoch = epoch or Epoch()
        self._epoch_name = self.epoch.name
        self.epoch.on_change(self._enter_epoch)
        listener.subscribe(self._hear, CHANNEL)

    async def run(self) -> None:
        """Listen and look, until cancelled; outlives the database's absence. Nobody waits once the service stops."""
        on_stop(self.give_up)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listener.run(), name="checkpoint listener")
            tasks.create_task(self._keep_looking(), name="checkpoint poll")

    def position_of(self, projection: str) -> int | None:
        """Give the position that a projection has reached at least; None while it is unknown."""
        known = self._known.get(projection)
        return None if known is None else known.position

    def state_of(self, projection: str) -> str | None:
        """Give a projection's state as of the last look; None while it is unknown."""
        known = self._known.get(projection)
        return None if known is None else known.state

    async def wait_for(self, projections: Collection[str], position: int, timeout_s: float) -> bool:
        """Wait until every projection has reached the position; no query is made.

        False when the time is over, or at once when one that has not reached it is stopped, when the service stops, and
        when another epoch begins: the position may be another event's there.
        """
        verdict = self._judge(projections, position)
        return await self._wait(projections, position, timeout_s) if verdict is None else verdict

    async def _wait(self, projections: Collection[str], position: int, timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        wait = _Wait(projections, position, loop.create_future())
        self._waits.add(wait)
        began_at, reached = loop.time(), False
        try:
            async with asyncio.timeout(timeout_s):
                reached = await wait.answer
        except TimeoutError:
            pass
        finally:
            self._waits.discard(wait)
            _WAITED_FOR[reached].observe(loop.time() - began_at)
        return reached

    def _judge(self, projections: Collection[str], position: int) -> bool | None:
        """Say whether the wait is over, and how; None when it goes on."""
        missing = [known for known in map(self._known.get, projections) if known is None or known.position < position]
        if missing and (self._draining or any(known is not None and known.state == "stopped" for known in missing)):
            return False
        return None if missing else True

    def give_up(self) -> None:
        """Answer every wait, and those to come, with what is known now (F33)."""
        self._draining = True
        self._settle()

    def _hear(self, payload: str) -> None:
        """Take a notification; whatever is not a projection and its position means: look at the table."""
        projection, _, number = payload.partition(" ")
        if not number.isdecimal():
            self._look_now.set()
            return
        position = int(number)
        self._heard[projection] = max(position, self._heard.get(projection, 0))
        known = self._known.get(projection)
        if known is None or position > known.position:
            self._known[projection] = Checkpoint(position, "running")
            self._settle()

    def _enter_epoch(self, name: str) -> None:
        """Forget where projections were in another lineage, and end the waits for places in it."""
        before, self._epoch_name = self._epoch_name, name
        if before is None:
            return
        self._known, self._heard = {}, {}
        for wait in self._waits:
            if not wait.answer.done():
                wait.answer.set_result(False)
        self._look_now.set()

    async def _keep_looking(self) -> None:
        while True:
            self._look_now.clear()
            await self._look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_interval_s):
                    await self._look_now.wait()

    async def _look(self) -> None:
        """Believe the table, unless a notification that came meanwhile was ahead of it."""
        self._heard = {}
        try:
            rows = await self._pool.fetch(_LOOK)
            for row in rows:
                self.epoch.learn(row["epoch"])
        except UNAVAILABLE as error:
            _log.warning("checkpoints_unread", error=repr(error))
            return
        self._known = {
            row["projection"]: Checkpoint(max(row["position"], self._heard.get(row["projection"], 0)), row["state"])
            for row in rows
            if row["projection"] is not None
        }
        self._settle()

    def _settle(self) -> None:
        """Answer every wait that is over."""
        for wait in self._waits:
            verdict = self._judge(wait.projections, wait.position)
            if verdict is not None and not wait.answer.done():
                wait.answer.set_result(verdict)
