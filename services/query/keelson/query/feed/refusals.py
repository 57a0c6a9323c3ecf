"""Refusals of those who would be told things: counted, and each is told another time to come back (F32)."""

import secrets

from prometheus_client import Counter

from keelson.query.feed import metrics
from keelson.service.problems import Problem, unavailable

# Those who are refused come back one after the other.
RETRY_AFTER_S = (1, 10)


def refused(detail: str, counter: Counter = metrics.REFUSED_LATE) -> Problem:
    """Give the refusal of one who may come again."""
    counter.inc()
    return unavailable(detail, retry_after_s=spread_s())


def spread_s() -> int:
    """Give after how many seconds to come again: another number for each who asks."""
    first, last = RETRY_AFTER_S
    return first + secrets.randbelow(last - first + 1)
