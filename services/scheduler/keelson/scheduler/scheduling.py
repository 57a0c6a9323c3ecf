"""The scheduler's loop: see, plan, act; whenever the world has moved, and once a second."""

import asyncio
from collections.abc import Callable

import structlog

from keelson.scheduler import metrics
from keelson.scheduler.acting import Actor
from keelson.scheduler.domain.plan import plan
from keelson.scheduler.domain.rollout import Bounds
from keelson.scheduler.domain.signs import Signs
from keelson.scheduler.following import Follower
from keelson.scheduler.heartbeats import Heartbeats
from keelson.scheduler.timekeeping import Patience
from keelson.scheduler.watching import Watcher

# What comes together is planned for together; and of a large world, no more than a third of the time goes into plans.
SETTLE_S = 0.01
PAUSE_PER_PLAN = 2.0
SHOW_EVERY_S = 1.0
# After the services were away, or when this has just begun, agents get that long to tell what is so by now, before a
# deploy is said to have come no further.
GRACE_S = 15.0

_log = structlog.get_logger()


class Scheduler:
    """Acts on the world as far as it is known to its end, and never on a part of its history.

    `waits_for` names what it waits for; None while it works.
    """

    def __init__(
        self,
        follower: Follower,
        watcher: Watcher,
        actor: Actor,
        *,
        heartbeats: Heartbeats,
        patience: Patience,
        monotonic: Callable[[], float],
        bounds: Bounds,
        node_lost_after_s: float,
        woken: asyncio.Event,
    ) -> None:
        self._follower = follower
        self._watcher = watcher
        self._actor = actor
        self._heartbeats = heartbeats
        self._patience = patience
        self._monotonic = monotonic
        self._bounds = bounds
        self._node_lost_after_s = node_lost_after_s
        self._woken = woken
        self._took_s = 0.0
        self._shown_at: float | None = None

    async def run(self) -> None:
        """Plan and act for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._woken.wait()
                await asyncio.sleep(max(SETTLE_S, PAUSE_PER_PLAN * self._took_s))
                self._woken.clear()
                if self.waits_for is None:
                    self._step(group)

    @property
    def waits_for(self) -> str | None:
        """What must come before it can act; None if nothing."""
        follower, head = self._follower, self._watcher.head
        if follower.trouble is not None:
            return follower.trouble
        if head is None:
            return self._watcher.trouble
        metrics.followed(follower.world.position, head.position)
        if follower.epoch != head.epoch or follower.world.position < head.position:
            return "the log has not been read to its end"
        return None

    def _step(self, group: asyncio.TaskGroup) -> None:
        world = self._follower.world
        began = self._monotonic()
        made = plan(world, self._bounds, self._signs())
        self._took_s = self._monotonic() - began
        metrics.PLAN_SECONDS.observe(self._took_s)
        self._actor.offer(made.actions, group)
        if self._shown_at is None or began - self._shown_at >= SHOW_EVERY_S:
            self._shown_at = began
            metrics.stands(world, made)

    def _signs(self) -> Signs:
        return Signs(
            silent=self._heartbeats.silent,
            silent_s=self._node_lost_after_s,
            heard=self._heartbeats.heard,
            refusing=self._actor.refusing,
            overdue=self._overdue(),
        )

    def _overdue(self) -> frozenset[str]:
        """Name the deploys that have come no further for too long, though they could have."""
        overdue, good_since = self._patience.overdue(self._follower.world), self._watcher.good_since
        grace_s = min(GRACE_S, self._patience.timeout_s)
        return frozenset() if good_since is None or self._monotonic() - good_since < grace_s else overdue
