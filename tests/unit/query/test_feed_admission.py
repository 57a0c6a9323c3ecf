"""Who is let in: each share by itself, and what is told of those who have theirs (F45)."""

from contextlib import ExitStack, suppress

import pytest
from structlog.testing import capture_logs

from keelson.access import Grants
from keelson.query.feed.admission import Admission
from keelson.service.limits import TOLD_EACH_S
from keelson.service.problems import Problem

OPERATOR = Grants(operator=True)
NODE = Grants(node_id="node_1")


def organisation(number: int) -> Grants:
    return Grants(org_id=f"org_{number}", scopes=frozenset({"audit:read"}))


def admit_all(admission: Admission, stack: ExitStack, *whose: Grants) -> list[str]:
    """Let each of them in as often as it may; give what the refusals were."""
    refusals = []
    for grants in whose:
        try:
            while True:
                stack.enter_context(admission.admitted(grants))
        except Problem as problem:
            refusals.append(problem.code)
    return refusals


def test_f45_each_has_its_share_and_operators_what_is_left() -> None:
    admission = Admission(100)
    with ExitStack() as stack:
        assert admit_all(admission, stack, organisation(1), NODE) == ["rate_limited", "rate_limited"]
        assert admission.streams == 20
        assert admit_all(admission, stack, *map(organisation, range(2, 7))) == [*["rate_limited"] * 4, "unavailable"]
        assert admission.streams == 60
        assert admit_all(admission, stack, OPERATOR, organisation(1), NODE) == [
            "unavailable",
            "rate_limited",  # also where nobody has room: it is not told of an outage
            "rate_limited",
        ]
        assert admission.streams == 100
    assert admission.streams == 0
    with ExitStack() as stack:
        admit_all(admission, stack, organisation(1), organisation(6))
        assert admission.streams == 20


def test_where_there_are_few_streams_each_share_is_one() -> None:
    admission = Admission(2)
    with ExitStack() as stack:
        assert admit_all(admission, stack, organisation(1), organisation(2), NODE) == [
            "rate_limited",
            "unavailable",
            "rate_limited",
        ]
        assert admission.streams == 2


def test_a_stream_that_fails_is_counted_no_more() -> None:
    admission = Admission(10)
    for grants in (organisation(1), NODE, OPERATOR):
        with pytest.raises(ZeroDivisionError), admission.admitted(grants):
            raise ZeroDivisionError
    assert admission.streams == 0
    with ExitStack() as stack:
        admit_all(admission, stack, organisation(1), NODE, OPERATOR)
        assert admission.streams == 10


def test_who_has_its_share_is_told_of_once_a_minute() -> None:
    now = 1000.0
    admission = Admission(10, clock=lambda: now)

    def ask_again() -> int:
        with capture_logs() as logs:
            for _ in range(3):
                with suppress(Problem), admission.admitted(organisation(1)):
                    pass
        assert {(each["event"], each["holder_id"]) for each in logs} <= {("streams_limited", "org_1")}
        return len(logs)

    with admission.admitted(organisation(1)):
        assert ask_again() == 1
        now += TOLD_EACH_S / 2
        assert ask_again() == 0
        now += TOLD_EACH_S / 2
        assert ask_again() == 1
