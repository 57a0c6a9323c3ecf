"""How often an actor may ask, and how often anybody may guess: refused before there is any work for the database (F45).

Token buckets of one replica, refilled by the monotonic clock: with n replicas an actor has up to n times the rate.
Platform operators are not limited: the work that they do is the platform's own, and they mend what others break.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from prometheus_client import Counter

from keelson.events.envelope import Actor
from keelson.service.credentials import UnauthenticatedError
from keelson.service.problems import Problem

# What is forgotten is the bucket that was longest not asked of: a full one, unless so many actors come at once.
MAX_ACTORS = 10_000

# Who is limited is logged, but not for each request.
TOLD_EACH_S = 60.0

# A client that is set up wrongly tries now and then; who guesses 128 bits at this rate is done in 10^29 years.
GUESSES_PER_S = 20.0
GUESSES_AT_ONCE = 100

REFUSED = Counter(
    "keelson_rate_limited_total",
    "Requests refused: an actor's above its rate, or unknown credentials above theirs",
    ("service", "of"),
)

# Sums of what cannot be written exactly may be over by so little.
_ROUNDING_S = 1e-6

Clock = Callable[[], float]

_log = structlog.get_logger()


class Bucket:
    """A token bucket as one number: the moment at which it is full again (the generic cell rate algorithm)."""

    __slots__ = ("full_at", "told_at")

    def __init__(self) -> None:
        self.full_at = -math.inf
        self.told_at = -math.inf

    def take(self, now: float, per_s: float, burst: int) -> float:
        """Take a token, and give 0; or else give the seconds until there is one. Takes constant time and memory."""
        full_at = max(self.full_at, now) + 1 / per_s
        wait_s = full_at - now - burst / per_s
        if wait_s > _ROUNDING_S:
            return wait_s
        self.full_at = full_at
        return 0.0

    def put_back(self, per_s: float) -> None:
        """Give the last token back."""
        self.full_at -= 1 / per_s


class RateLimits:
    """The buckets of the actors of one replica: `per_s` requests a second, up to `burst` at once; 0 is no limit."""

    def __init__(
        self, service: str, *, per_s: float, burst: int, max_actors: int = MAX_ACTORS, clock: Clock = time.monotonic
    ) -> None:
        self._per_s = per_s
        self._burst = burst
        self._max_actors = max_actors
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, str], Bucket] = OrderedDict()
        self._refused = REFUSED.labels(service, "actor")

    def spend(self, actor: Actor, *, is_operator: bool = False) -> None:
        """Count a request of an actor's. Raises Problem `rate_limited` for one too many, which costs it nothing."""
        if not self._per_s or is_operator or actor.type == "system":
            return
        now, bucket = self._clock(), self._bucket_of(actor)
        wait_s = bucket.take(now, self._per_s, self._burst)
        if wait_s:
            self._refused.inc()
            if now - bucket.told_at >= TOLD_EACH_S:
                bucket.told_at = now
                _log.warning("actor_rate_limited", actor_type=actor.type, actor_id=actor.id)
            raise rate_limited(f"{self._per_s:g} requests a second, {self._burst} at once, are allowed", wait_s)

    def _bucket_of(self, actor: Actor) -> Bucket:
        name = (actor.type, actor.id)
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket()
            if len(self._buckets) > self._max_actors:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(name)
        return bucket


class GuessLimit:
    """The one bucket of credentials that this replica does not know yet: only wrong ones use it up.

    While it is empty nobody is looked up: credentials that are warm stay good, and others are told to come again.
    """

    def __init__(
        self,
        service: str,
        *,
        per_s: float = GUESSES_PER_S,
        burst: int = GUESSES_AT_ONCE,
        clock: Clock = time.monotonic,
    ) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._bucket = Bucket()
        self._refused = REFUSED.labels(service, "guess")

    @contextmanager
    def looking_up(self) -> Iterator[None]:
        """Look a credential up within the body, which raises UnauthenticatedError if it is not good.

        Raises Problem `rate_limited`, before the body, when too many were not. Those under way count as wrong.
        """
        wait_s = self._bucket.take(self._clock(), self._per_s, self._burst)
        if wait_s:
            self._refused.inc()
            raise rate_limited("too many unknown credentials come to this replica", wait_s)
        wrong = False
        try:
            yield
        except UnauthenticatedError:
            wrong = True
            raise
        finally:
            if not wrong:
                self._bucket.put_back(self._per_s)


def rate_limited(detail: str, wait_s: float) -> Problem:
    """Give the 429 that says when to come again, in whole seconds."""
    return Problem("rate_limited", detail, headers={"Retry-After": str(math.ceil(wait_s))})
