"""Refusals of those who would be told things: counted, and each is told another time to come back (F32)."""

import secrets

from keelson.query.feed import metrics
from keelson.service.problems import Problem, unavailable

# Those who are refused come back one after the other.
RETRY_AFTER_S = (1, 10)


def refused(detail: str) -> Problem:
    """Give the refusal of one who may come again."""
    metrics.REFUSED.inc()
    return unavailable(detail, retry_after_s=spread())


def spread() -> int:
    """Give after how many seconds to come again."""
    first, last = RETRY_AFTER_S
    return first + secrets.randbelow(last - first + 1)
