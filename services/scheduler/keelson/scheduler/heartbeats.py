"""Which nodes are silent: counted by a monotonic clock, and only while they could have been heard."""

from collections.abc import Mapping
from datetime import datetime


class Heartbeats:
    """How long each node has been silent, over looks at the times of their last heartbeats.

    Times are only compared with themselves: no clock is held against another's. What counts is the time between two
    looks at which both services answered, and no more of it than `longest_s`, so that neither an outage of the control
    plane nor a pause of this process makes a node look lost.

    Half of `lost_after_s` is for how long anything says something about the present. Who has not beaten for so long is
    not `heard` any more, long before it is `silent`: nodes that all fall silent at once, whatever their turns, are none
    of them evidence against another. And all are heard anew after an outage of that length, and when one is heard after
    none was for that long: agents that could not send take some time to send again.
    """

    def __init__(self, lost_after_s: float, longest_s: float) -> None:
        self._lost_after_s = lost_after_s
        self._recent_s = lost_after_s / 2
        self._longest_s = longest_s
        self._looked_at: float | None = None
        self._failed = False
        self._last: dict[str, datetime | None] = {}
        self._silent_s: dict[str, float] = {}
        self._beats: set[str] = set()

    def failed(self) -> None:
        """Note a look that came to nothing."""
        self._failed = True

    def looked(self, now: float, heartbeats: Mapping[str, datetime | None]) -> None:
        """Note a look, by the monotonic clock: the time of each node's last heartbeat, as the database has it."""
        passed_s = 0.0 if self._looked_at is None else now - self._looked_at
        if self._failed and passed_s >= self._recent_s:
            self._begin_anew()
            passed_s = 0.0
        self._looked_at, self._failed = now, False
        known = heartbeats.keys() & self._last.keys()
        beats = {node_id for node_id in known if heartbeats[node_id] != self._last[node_id]}
        if beats and not self.heard:
            self._begin_anew()
        self._silent_s = {
            node_id: 0.0 if node_id in beats else self._silent_s.get(node_id, 0.0) + min(passed_s, self._longest_s)
            for node_id in known
        }
        self._last = dict(heartbeats)
        self._beats = (self._beats | beats) & heartbeats.keys()

    @property
    def silent(self) -> frozenset[str]:
        """The nodes that have been silent for too long."""
        return frozenset(each for each in self._last if self._silent_s.get(each, 0.0) >= self._lost_after_s)

    @property
    def heard(self) -> frozenset[str]:
        """The nodes that a heartbeat was seen of, and just now: that the way to them works is beyond doubt."""
        return frozenset(each for each in self._beats if self._silent_s.get(each, 0.0) < self._recent_s)

    def _begin_anew(self) -> None:
        """Hold nothing against anybody, and take nobody for heard."""
        self._silent_s.clear()
        self._beats.clear()
