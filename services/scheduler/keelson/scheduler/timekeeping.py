"""How long deploys have come no further, by the one clock that does not jump."""

from collections.abc import Callable
from typing import NamedTuple

from keelson.scheduler.domain.model import Deploy
from keelson.scheduler.domain.world import World

# A process that has just begun can tell only by the database's clock what a deploy had of its time before; and that may
# have been put forward meanwhile. So much of it is left in any case.
LEFT_AFTER_A_START = 0.5


class _Sight(NamedTuple):
    """Where a deploy was seen to be, and when that was by the monotonic clock."""

    progressed: int
    at: float


class Patience:
    """Which deploys have come no further for `timeout_s`.

    Counted by the monotonic clock, from when this process saw a deploy come where it is: the database's clock may
    stand, be put back or forward, and no deploy has more or less time by it (F11). Only at its start does this process
    take from the times of the log what had passed before, so that one that starts again does not begin anew.
    """

    def __init__(self, timeout_s: float, monotonic: Callable[[], float]) -> None:
        self.timeout_s = timeout_s
        self._monotonic = monotonic
        self._sights: dict[str, _Sight] | None = None

    def overdue(self, world: World) -> frozenset[str]:
        """Look at a world that is known to its end, and name the deploys that are overdue."""
        now, before = self._monotonic(), self._sights
        self._sights = {
            deploy.id: _Sight(deploy.progressed, now - self._age_s(deploy, world))
            if before is None
            else _look_again(deploy, before.get(deploy.id), now)
            for deploy in world.deploys.values()
        }
        return frozenset(each for each, sight in self._sights.items() if now - sight.at >= self.timeout_s)

    def _age_s(self, deploy: Deploy, world: World) -> float:
        """Tell what a deploy had of its time before anybody looked, as far as the log says."""
        if world.recorded_at is None:
            return 0.0
        passed_s = (world.recorded_at - deploy.progressed_at).total_seconds()
        return min(max(passed_s, 0.0), self.timeout_s * (1 - LEFT_AFTER_A_START))


def _look_again(deploy: Deploy, before: _Sight | None, now: float) -> _Sight:
    if before is not None and before.progressed == deploy.progressed:
        return before
    return _Sight(deploy.progressed, now)
