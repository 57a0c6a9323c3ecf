"""The database's time, told by the database alone."""

from datetime import UTC, datetime, timedelta

from keelson.scheduler.timekeeping import DatabaseTime

TOLD = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """A monotonic clock that a test moves."""

    now = 50.0

    def __call__(self) -> float:
        """Give the time."""
        return self.now


def test_before_any_time_was_told_there_is_none() -> None:
    time = DatabaseTime(Clock())
    time.learn(None)

    assert time.now is None


def test_it_goes_on_by_the_monotonic_clock() -> None:
    clock = Clock()
    time = DatabaseTime(clock)
    time.learn(TOLD)

    clock.now += 7

    assert time.now == TOLD + timedelta(seconds=7)


def test_a_later_time_moves_it_and_an_earlier_one_does_not() -> None:
    clock = Clock()
    time = DatabaseTime(clock)
    time.learn(TOLD)

    time.learn(TOLD - timedelta(seconds=5))
    assert time.now == TOLD
    time.learn(TOLD + timedelta(seconds=5))
    assert time.now == TOLD + timedelta(seconds=5)


def test_what_was_told_and_is_behind_what_has_passed_does_not_set_it_back() -> None:
    clock = Clock()
    time = DatabaseTime(clock)
    time.learn(TOLD)
    clock.now += 10

    time.learn(TOLD + timedelta(seconds=5))

    assert time.now == TOLD + timedelta(seconds=10)
