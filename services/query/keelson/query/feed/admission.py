"""Who is let in: how many streams there may be, and how many of whom, before there is any work for one (F32, F45).

Nodes, edges and the scheduler hang on streams, and tenants may ask for as many as they like. So all organisations
together have half of what a replica takes, and one of them a tenth, whatever its credentials are; a node needs one, and
has a tenth too. Platform operators are not limited, as ever: edges and the scheduler are such.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from keelson.access import Grants
from keelson.query.feed import metrics
from keelson.query.feed.refusals import refused, spread_s
from keelson.service.limits import TOLD_EACH_S, rate_limited

# Of the streams that a replica takes: all organisations' together, and those of one organisation or one node.
SHARE_OF_ORGANISATIONS = 2
SHARE_OF_ONE = 10

_log = structlog.get_logger()


class _Holder:
    """The streams of one organisation or one node, and when it was last told of in the log."""

    __slots__ = ("streams", "told_at")

    def __init__(self) -> None:
        self.streams = 0
        self.told_at = float("-inf")


class Admission:
    """Counts the streams of one replica, and of whom they are; each share is one at least."""

    def __init__(self, max_streams: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = max_streams
        self._most_of_organisations = max(max_streams // SHARE_OF_ORGANISATIONS, 1)
        self._most_of_one = max(max_streams // SHARE_OF_ONE, 1)
        self._clock = clock
        self._holders: dict[str, _Holder] = {}
        self._of_organisations = 0
        self.streams = 0

    @contextmanager
    def admitted(self, grants: Grants) -> Iterator[None]:
        """Count one stream until the end of the body.

        Raises Problem: `rate_limited` when whoever asks has its share already, which is no outage and nobody's alarm;
        `unavailable` when there are too many, or too many of organisations.
        """
        is_limited = not grants.operator
        of_organisation = is_limited and grants.org_id is not None
        with self._held_by((grants.org_id or grants.node_id or "") if is_limited else None):
            self._require_room(of_organisation=of_organisation)
            self.streams += 1
            self._of_organisations += of_organisation
            try:
                yield
            finally:
                self.streams -= 1
                self._of_organisations -= of_organisation

    def _require_room(self, *, of_organisation: bool) -> None:
        if self.streams >= self._most:
            raise refused(f"{self._most} streams are open here, and no more may be", metrics.REFUSED_ALL)
        if of_organisation and self._of_organisations >= self._most_of_organisations:
            raise refused(
                f"{self._most_of_organisations} streams of organisations are open here, and no more may be",
                metrics.REFUSED_ORGANISATIONS,
            )

    @contextmanager
    def _held_by(self, holder_id: str | None) -> Iterator[None]:
        """Count one of this organisation's or node's own, until the end of the body; None is not counted."""
        if holder_id is None:
            yield
            return
        holder = self._holders.setdefault(holder_id, _Holder())
        if holder.streams >= self._most_of_one:
            self._tell(holder_id, holder)
            metrics.REFUSED_ONE.inc()
            raise rate_limited(
                f"one organisation, or one node, may have {self._most_of_one} streams open here", spread_s()
            )
        holder.streams += 1
        try:
            yield
        finally:
            holder.streams -= 1
            if not holder.streams:
                del self._holders[holder_id]

    def _tell(self, holder_id: str, holder: _Holder) -> None:
        if self._clock() - holder.told_at >= TOLD_EACH_S:
            holder.told_at = self._clock()
            _log.warning("streams_limited", holder_id=holder_id, streams=holder.streams)
