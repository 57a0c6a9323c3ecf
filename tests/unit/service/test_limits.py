"""Rate limits: how often an actor may ask, and how often anybody may guess (F45)."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from prometheus_client import REGISTRY

from keelson.access import Grants, Identity
from keelson.events.envelope import Actor
from keelson.service.app import Application
from keelson.service.credentials import Caller, Credentials, UnauthenticatedError
from keelson.service.limits import GuessLimit, RateLimits
from keelson.service.problems import Problem
from unit.service.asgi import TOKEN, ask, make_app, running

TENANT = Actor("user", "member_1")
OTHER = Actor("principal", "member_1")  # the same id, but somebody else


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Give the time."""
        return self.now


def limits(clock: Clock, *, per_s: float = 10.0, burst: int = 3, max_actors: int = 100) -> RateLimits:
    return RateLimits("test", per_s=per_s, burst=burst, max_actors=max_actors, clock=clock)


def taken(ask_once: Callable[[], None], times: int) -> int:
    """Ask so often; give how many were let through before one was refused."""
    for number in range(times):
        try:
            ask_once()
        except Problem:
            return number
    return times


def test_so_many_at_once_and_then_so_many_a_second() -> None:
    clock = Clock()
    limited = limits(clock)
    assert taken(lambda: limited.spend(TENANT), 100) == 3
    clock.now += 0.1
    assert taken(lambda: limited.spend(TENANT), 100) == 1
    clock.now += 0.2
    assert taken(lambda: limited.spend(TENANT), 100) == 2
    clock.now += 3600
    assert taken(lambda: limited.spend(TENANT), 100) == 3


def test_being_refused_costs_nothing() -> None:
    clock = Clock()
    limited = limits(clock)
    for _ in range(100):
        taken(lambda: limited.spend(TENANT), 100)
    clock.now += 0.1
    assert taken(lambda: limited.spend(TENANT), 100) == 1


def test_an_hour_at_just_the_rate_is_let_through() -> None:
    clock = Clock()
    limited = limits(clock, per_s=7.0, burst=1)
    for _ in range(7 * 3600):
        limited.spend(TENANT)
        clock.now += 1 / 7


@pytest.mark.parametrize(("per_s", "burst", "expected"), [(10.0, 3, "1"), (0.1, 1, "10"), (0.3, 1, "4")])
def test_retry_after_is_when_there_is_a_token_again(per_s: float, burst: int, expected: str) -> None:
    clock = Clock()
    limited = limits(clock, per_s=per_s, burst=burst)
    taken(lambda: limited.spend(TENANT), burst)
    with pytest.raises(Problem) as refused:
        limited.spend(TENANT)
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": expected})
    clock.now += float(expected)
    limited.spend(TENANT)


def test_every_actor_has_a_bucket_of_its_own() -> None:
    limited = limits(Clock())
    assert taken(lambda: limited.spend(TENANT), 100) == 3
    assert taken(lambda: limited.spend(OTHER), 100) == 3


def test_operators_are_not_limited_and_nobody_is_by_zero() -> None:
    limited = limits(Clock())
    assert taken(lambda: limited.spend(Actor("system", "operator")), 1000) == 1000
    assert taken(lambda: limited.spend(OTHER, is_operator=True), 1000) == 1000
    unlimited = limits(Clock(), per_s=0.0)
    assert taken(lambda: unlimited.spend(TENANT), 1000) == 1000


def test_so_many_actors_are_remembered_and_no_more() -> None:
    """Whoever was longest not heard of is forgotten; who goes on asking stays limited."""
    clock = Clock()
    limited = limits(clock, max_actors=5)
    assert taken(lambda: limited.spend(TENANT), 100) == 3
    for number in range(1000):
        limited.spend(Actor("user", f"member_{number + 2}"))
        assert taken(lambda: limited.spend(TENANT), 100) == 0
    assert len(limited._buckets) == 5


def test_who_is_limited_is_logged_once_a_minute(lines: Callable[[], list[dict[str, Any]]]) -> None:
    clock = Clock()
    limited = limits(clock, per_s=0.01, burst=1)
    for _ in range(120):
        for actor in (TENANT, OTHER):
            taken(lambda actor=actor: limited.spend(actor), 5)  # type: ignore[misc] # mypy knows no such lambdas
        clock.now += 1
    told = [(line["event"], line["actor_type"], line["actor_id"]) for line in lines()]
    assert told == [("actor_rate_limited", actor.type, actor.id) for actor in (TENANT, OTHER)] * 2


def guess(guesses: GuessLimit, *, good: bool = False) -> None:
    with suppress(UnauthenticatedError), guesses.looking_up():
        if not good:
            raise UnauthenticatedError


def test_guesses_run_out_and_good_credentials_use_none_up() -> None:
    clock = Clock()
    guesses = GuessLimit("test", per_s=10.0, burst=3, clock=clock)
    assert taken(lambda: guess(guesses, good=True), 1000) == 1000
    assert taken(lambda: guess(guesses), 100) == 3
    assert taken(lambda: guess(guesses, good=True), 100) == 0
    clock.now += 0.1
    assert taken(lambda: guess(guesses, good=True), 100) == 100
    assert taken(lambda: guess(guesses), 100) == 1


def test_guesses_under_way_count_as_wrong_until_they_are_not() -> None:
    """Else a thousand at once would all be looked up before the first is found wrong."""
    guesses = GuessLimit("test", per_s=10.0, burst=2, clock=Clock())
    with guesses.looking_up(), guesses.looking_up():
        assert taken(lambda: guess(guesses), 100) == 0
    assert taken(lambda: guess(guesses), 100) == 2


def test_what_failed_otherwise_is_no_guess() -> None:
    guesses = GuessLimit("test", per_s=10.0, burst=1, clock=Clock())
    for _ in range(10):
        with pytest.raises(TimeoutError), guesses.looking_up():
            raise TimeoutError
    guess(guesses)


class Named:
    """Takes the credential for the actor's type and id."""

    credentials: Credentials | None = None

    async def authenticate(self, authorization: str | None) -> Caller:
        """Give the caller."""
        type_, _, name = (authorization or "").removeprefix("Bearer ").partition("/")
        actor = Actor(type_, name)  # type: ignore[arg-type] # as the test says
        return Caller(Identity(actor, "member"), Grants(operator=name.startswith("operator")))


@pytest.fixture
async def app() -> AsyncIterator[Application]:
    made = make_app(authenticator=Named(), rate_limit_per_s=0.001, rate_burst=2)
    async with running(made) as app:
        yield app


async def test_f45_who_asks_too_often_is_told_when_to_come_again_and_others_are_not(app: Application) -> None:
    refused = {"service": "test", "of": "actor"}
    before = REGISTRY.get_sample_value("keelson_rate_limited_total", refused) or 0.0
    answers = [await ask(app, "GET", "/echo", token="user/noisy") for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 429, 429]
    assert answers[3].problem == (429, "rate_limited")
    assert answers[3].header("retry-after") == "1000"
    assert "noisy" not in answers[3].json["detail"]
    assert (await ask(app, "GET", "/echo", token="user/quiet")).status == 200
    assert REGISTRY.get_sample_value("keelson_rate_limited_total", refused) == before + 2


async def test_public_paths_and_operators_are_not_limited(app: Application) -> None:
    for _ in range(10):
        assert (await ask(app, "GET", "/healthz", token=None)).status == 200
        assert (await ask(app, "GET", "/echo", token=f"system/{TOKEN}")).status == 200
        assert (await ask(app, "GET", "/echo", token="principal/operator_1")).status == 200
