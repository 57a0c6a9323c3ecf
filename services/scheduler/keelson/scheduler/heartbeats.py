"""Which nodes are silent: counted by a monotonic clock, and only while they could have been heard."""

from collections.abc import Mapping
from datetime import datetime


class Heartbeats:
    """How long each node has been silent, over looks at the times of their last heartbeats.

    Times are only compared with themselves: no clock is held against another's. What counts is the time between two
    looks at which both services answered, and no more of it than `longest_s`, so that neither an outage of the control
    plane nor a pause of this process makes a node look lost. After an outage of half of `lost_after_s` or more all are
    heard anew: agents that could not send take some time to send again.
    """

    def __init__(self, lost_after_s: float, longest_s: float) -> None:
        self._lost_after_s = lost_after_s
        self._longest_s = longest_s
        self._looked_at: float | None = None
        self._failed_since: float | None = None
        self._last: dict[str, datetime | None] = {}
        self._silent_s: dict[str, float] = {}
        self._beats: set[str] = set()

    def failed(self, now: float) -> None:
        """Note a look that came to nothing, at a time of the monotonic clock."""
        if self._failed_since is None:
            self._failed_since = now if self._looked_at is None else self._looked_at

    def looked(self, now: float, heartbeats: Mapping[str, datetime | None]) -> None:
        """Note a look: the time of each node's last heartbeat, as the database has it."""
        passed_s = 0.0
        if self._failed_since is not None:
            if now - self._failed_since >= self._lost_after_s / 2:
                self._silent_s.clear()
        elif self._looked_at is not None:
            passed_s = min(now - self._looked_at, self._longest_s)
        self._looked_at, self._failed_since = now, None
        for node_id, at in heartbeats.items():
            known = node_id in self._last
            if known and at != self._last[node_id]:
                self._beats.add(node_id)
                self._silent_s[node_id] = 0.0
            elif known:
                self._silent_s[node_id] = self._silent_s.get(node_id, 0.0) + passed_s
        self._last = dict(heartbeats)
        self._beats &= heartbeats.keys()

    @property
    def silent(self) -> frozenset[str]:
        """The nodes that have been silent for too long."""
        return frozenset(each for each in self._last if self._silent_s.get(each, 0.0) >= self._lost_after_s)

    @property
    def heard(self) -> frozenset[str]:
        """The nodes that a heartbeat was seen of, not too long ago."""
        return frozenset(self._beats) - self.silent
