"""The hub: where the log arrives in a replica, and where its readers sleep until something concerns them.

Waking tells nobody anything but to look: each reader reads all that matches after its own cursor, from the ring or from
the database, and so it misses nothing that was not announced, and sees nothing twice that was announced twice (F29).
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import msgspec

from keelson.events import Envelope
from keelson.events.ids import Position
from keelson.log.read import Filter
from keelson.query.feed.interests import Interest, Interests
from keelson.query.feed.ring import Ring

T = TypeVar("T")


class MustEndError(Exception):
    """What a reader was doing is given up: the reader has to end."""


class Resync(msgspec.Struct, frozen=True):
    """Why every cursor of before means nothing any more, and the lineage that is the log's now."""

    epoch: str
    reason: str


def wake(_quiet_to: Position) -> bool:
    """Do nothing for a sleeper, and so have it woken."""
    return False


def do_nothing() -> None:
    """Do nothing."""


class Subscription:
    """One reader's bed. Nothing else may be awaited between looking whether there is work, and `wait`."""

    __slots__ = ("_hub", "_quiet_to", "_waiter", "_working", "at_once", "hurry", "interest", "resync")

    def __init__(self, hub: "Hub", interest: Interest) -> None:
        self._hub = hub
        self._waiter: asyncio.Future[None] | None = None
        self._working: asyncio.Timeout | None = None
        self._quiet_to = Position(0)
        self.interest = interest
        self.resync: Resync | None = None
        # May do for a sleeper what it would do awake, given the position up to which all was quiet, and let it sleep on
        # if it has done all: a task that need not be woken is half the cost of telling it. False wakes it.
        self.at_once: Callable[[Position], bool] = wake
        # Called when the service stops, of a reader that may be awake and waits for its client.
        self.hurry: Callable[[], None] = do_nothing

    @property
    def is_interrupted(self) -> bool:
        """Whether the reader must end: the service stops, or the epoch has changed."""
        return self.resync is not None or self._hub.is_stopping

    async def wait(self, examined: Position, timeout_s: float) -> Position:
        """Sleep until something that matches may be beyond what was examined, the time is over, or one is interrupted.

        Gives the position up to which nothing more matches: there is no need to look through what is before it. Returns
        at once when the log has arrived beyond `examined` already.
        """
        if self._hub.end > examined or self.is_interrupted:
            return examined
        self.interest.sleepers.add(self)
        try:
            await self.pause(timeout_s)
        finally:
            self.interest.sleepers.discard(self)
        return max(examined, self._quiet_to)

    async def pause(self, timeout_s: float) -> None:
        """Sleep, whatever arrives, until the time is over or one is interrupted."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout_s, self.interrupt)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    async def unless_interrupted(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what may wait for others, such as the database; it is given up as soon as one is interrupted.

        Raises MustEndError then. No task is made, and no timer set.
        """
        working = self._working = asyncio.timeout(None)
        try:
            async with working:
                return await work
        except TimeoutError:
            if working.expired():
                raise MustEndError from None
            raise
        finally:
            self._working = None

    def rouse(self, quiet_to: Position) -> None:
        """Have the sleeper look, since something that matches has arrived after this position."""
        try:
            is_done = self.at_once(quiet_to)
        except Exception:  # noqa: BLE001 - it is the sleeper's: awake, it fails by itself, and no other with it
            is_done = False
        if not is_done:
            self.wake(quiet_to)

    def interrupt(self) -> None:
        """End a sleep, or what is done `unless_interrupted`.

        All that has arrived until now and concerned a sleeper would have ended its sleep before.
        """
        self.wake(self._hub.end)
        if self._working is not None and not self._working.expired():
            self._working.reschedule(asyncio.get_running_loop().time())

    def wake(self, quiet_to: Position) -> None:
        """End a sleep, during which nothing that matches has arrived up to this position."""
        self.interest.sleepers.discard(self)
        if self._waiter is not None and not self._waiter.done():
            self._quiet_to = quiet_to
            self._waiter.set_result(None)


class Hub:
    """The end of the log in memory, and who sleeps. `look_closely` is shown every event before anybody is woken."""

    def __init__(self, ring: Ring, *, look_closely: Callable[[Envelope], None] = lambda _: None) -> None:
        self.ring = ring
        self.epoch: str | None = None
        self.is_stopping = False
        self._look_closely = look_closely
        self._interests = Interests()
        self._subscriptions: set[Subscription] = set()
        self._began = asyncio.Event()

    @property
    def end(self) -> Position:
        """The position up to which the log has arrived; always the end of a command."""
        return self.ring.end

    @property
    def interests(self) -> int:
        """How many different filters there are readers for."""
        return len(self._interests)

    async def until_begun(self, timeout_s: float) -> bool:
        """Wait until the log has arrived for the first time; false if that does not come about in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._began.wait()
        return self._began.is_set()

    @contextmanager
    def subscribe(self, sought: Filter) -> Iterator[Subscription]:
        """Give a subscription to what matches, until the end of the body."""
        subscription = Subscription(self, self._interests.join(sought))
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            self._interests.leave(subscription.interest)

    def publish(self, envelopes: Sequence[Envelope]) -> None:
        """Take the next events, whole commands, and wake whom they concern."""
        before = self.end
        entries = self.ring.extend(envelopes)
        for entry in entries:
            self._look_closely(entry.envelope)
        # Only now: who is told anything is told all that has arrived.
        for interest in {each: None for entry in entries for each in self._interests.concerned_by(entry.envelope)}:
            for sleeper in list(interest.sleepers):
                sleeper.rouse(before)

    def catch_up(self) -> None:
        """Take it that all that the log had has arrived: from the first time on, streams may begin."""
        self._began.set()

    def restart(self, epoch: str, at: Position, reason: str) -> None:
        """Begin anew after a position: who reads already is told to forget its cursor."""
        is_first = self.epoch is None
        self.ring.restart(at)
        self.epoch = epoch
        if is_first:
            return
        for interest in self._interests:
            interest.chunks.clear()
        for subscription in self._subscriptions:
            subscription.resync = Resync(epoch, reason)
        self._interrupt_all()

    def stop(self) -> None:
        """Have every reader end with what it has (F33)."""
        self.is_stopping = True
        self._interrupt_all()
        for subscription in self._subscriptions:
            subscription.hurry()

    def _interrupt_all(self) -> None:
        for subscription in self._subscriptions:
            subscription.interrupt()
