"""Which nodes are silent: by the monotonic clock, and only while they could have been heard."""

from datetime import UTC, datetime, timedelta

from keelson.scheduler.heartbeats import Heartbeats

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class Looks:
    """Looks once a second, at nodes whose heartbeats a test says; `n` and `m` by default beat at each."""

    def __init__(self) -> None:
        self.heartbeats = Heartbeats(12.0, longest_s=2.0)
        self.now = 1000.0
        self._beats = 0

    def look(self, times: int, *quiet: str, every_s: float = 1.0) -> None:
        """Look so often, at so many quiet ones."""
        for _ in range(times):
            self.now += every_s
            self._beats += 1
            at = BEGAN + timedelta(seconds=self._beats)
            self.heartbeats.looked(self.now, {node: None if node in quiet else at for node in ("n", "m")})

    def fail(self, times: int) -> None:
        """Look so often, and be answered by nobody."""
        for _ in range(times):
            self.now += 1.0
            self.heartbeats.failed()


def heard_and_silent(looks: Looks) -> tuple[set[str], set[str]]:
    return set(looks.heartbeats.heard), set(looks.heartbeats.silent)


def test_who_beats_is_heard_and_not_silent() -> None:
    looks = Looks()

    looks.look(30)

    assert heard_and_silent(looks) == ({"n", "m"}, set())


def test_who_has_not_beaten_for_long_enough_is_silent_until_it_does() -> None:
    looks = Looks()
    looks.look(2)

    looks.look(12, "n")
    assert looks.heartbeats.silent == set()
    looks.look(1, "n")
    assert heard_and_silent(looks) == ({"m"}, {"n"})
    looks.look(1)
    assert heard_and_silent(looks) == ({"n", "m"}, set())


def test_who_has_not_beaten_for_half_of_that_says_nothing_about_the_way_any_more() -> None:
    looks = Looks()
    looks.look(2)

    looks.look(6, "n")
    assert looks.heartbeats.heard == {"n", "m"}
    looks.look(1, "n")
    assert heard_and_silent(looks) == ({"m"}, set())


def test_after_an_outage_only_who_beats_is_heard() -> None:
    looks = Looks()
    looks.look(2)
    looks.look(13, "n")

    looks.fail(7)
    looks.look(1, "n")

    assert heard_and_silent(looks) == ({"m"}, set())


def test_when_one_is_heard_after_none_was_for_long_all_have_their_time_again() -> None:
    looks = Looks()
    looks.look(2)
    looks.look(13, "n", "m")
    assert heard_and_silent(looks) == (set(), {"n", "m"})

    looks.look(1, "n")

    assert heard_and_silent(looks) == ({"m"}, set())


def test_at_the_first_look_nobody_has_been_heard_yet() -> None:
    looks = Looks()

    looks.look(1)

    assert heard_and_silent(looks) == (set(), set())


def test_a_node_that_never_beat_is_silent_in_the_end() -> None:
    looks = Looks()

    looks.look(13, "n")

    assert looks.heartbeats.silent == {"n"}


def test_an_outage_makes_no_node_silent_and_after_a_long_one_all_have_their_time_again() -> None:
    looks = Looks()
    looks.look(2)
    looks.look(10, "n", "m")

    looks.fail(300)
    looks.look(11, "n", "m")
    assert looks.heartbeats.silent == set()

    looks.look(2, "n", "m")
    assert looks.heartbeats.silent == {"n", "m"}


def test_a_blip_counts_no_more_than_one_look_may_and_forgives_nothing() -> None:
    looks = Looks()
    looks.look(2)
    looks.look(10, "n")

    looks.fail(4)
    looks.look(1, "n")
    assert looks.heartbeats.silent == set()

    looks.look(1, "n")
    assert looks.heartbeats.silent == {"n"}


def test_a_pause_of_this_process_makes_no_node_silent() -> None:
    looks = Looks()
    looks.look(2)

    looks.look(1, "n", "m", every_s=3600.0)

    assert looks.heartbeats.silent == set()


def test_a_node_that_is_gone_is_forgotten() -> None:
    looks = Looks()
    looks.look(3)

    looks.heartbeats.looked(looks.now + 1, {"m": None})

    assert looks.heartbeats.heard == {"m"}
