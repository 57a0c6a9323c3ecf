"""The agent's table of statuses is the command service's, and ways through it are legal and shortest."""

from itertools import pairwise, product

import pytest

from keelson.agent.transitions import MAY_FOLLOW, Status, between
from keelson.command.domain.instance_state import STATUSES

ALL: tuple[Status, ...] = ("booting", "ready", "draining", "stopped", "failed")


def test_the_table_is_the_command_services() -> None:
    assert dict(MAY_FOLLOW) == STATUSES


@pytest.mark.parametrize(("known", "wanted"), [*product([None, *ALL], ALL)])
def test_a_way_is_legal_at_each_step(known: Status | None, wanted: Status) -> None:
    way = between(known, wanted)
    if way is None:
        assert known == "stopped"
    elif known != wanted:
        assert all(later in STATUSES[before] for before, later in pairwise([known, *way, wanted]))


def test_ways_are_short() -> None:
    assert between("ready", "ready") == ()
    assert between("ready", "stopped") == ()
    assert between("ready", "booting") == ("failed",)
    assert between("draining", "ready") == ("failed", "booting")
    assert between("stopped", "booting") is None
