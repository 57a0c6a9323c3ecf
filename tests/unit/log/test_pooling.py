"""Telling sessions that are one's own from lent ones, by what two connections saw."""

import pytest

from keelson.log.pooling import are_own


def test_a_session_for_each_is_its_own() -> None:
    assert are_own({1}, {2})


@pytest.mark.parametrize(("one", "other"), [({1}, {1}), ({1, 2}, {3}), ({1}, {2, 3}), ({1, 2}, {1, 2}), ({1, 2}, {2})])
def test_f21_sessions_that_change_or_are_shared_are_lent(one: set[int], other: set[int]) -> None:
    """Also two that two connections get in turn: as many sessions as connections."""
    assert not are_own(one, other)
