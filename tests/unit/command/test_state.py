"""The cache of folded states: bounded, never going back, of one epoch."""

from keelson.command.domain.org import Org
from keelson.command.state import Aggregate, StateCache
from keelson.events import Ids
from keelson.events.ids import AggregateId, Seq
from keelson.log.confirm import ScopeState


def org(number: int, seq: int = 1) -> Aggregate[Org]:
    return Aggregate(AggregateId(f"org_{number}"), Seq(seq), Ids(), Org(name="x"))


def test_what_is_kept_is_given() -> None:
    cache = StateCache("now")
    cache.keep(org(1), "now")
    cache.keep_scope("names", ScopeState(1, 0, 1), "now")
    assert cache.read("org_1") == org(1)
    assert cache.read_scope("names") == ScopeState(1, 0, 1)
    assert cache.read("org_2") is None


def test_the_least_recently_used_is_forgotten() -> None:
    cache = StateCache("now", max_entries=2)
    cache.keep(org(1), "now")
    cache.keep(org(2), "now")
    cache.read("org_1")
    cache.keep(org(3), "now")
    assert [cache.read(f"org_{number}") is not None for number in (1, 2, 3)] == [True, False, True]


def test_a_later_state_is_never_replaced_by_an_earlier_one() -> None:
    cache = StateCache("now")
    cache.keep(org(1, seq=2), "now")
    cache.keep(org(1, seq=1), "now")
    assert cache.read("org_1") == org(1, seq=2)
    cache.keep_scope("names", ScopeState(2, 0, 2), "now")
    cache.keep_scope("names", ScopeState(1, 0, 1), "now")
    assert cache.read_scope("names") == ScopeState(2, 0, 2)


def test_another_epoch_begins_with_nothing_and_keeps_nothing_of_the_one_before() -> None:
    cache = StateCache("now")
    cache.keep(org(1), "now")
    cache.enter_epoch("now")
    assert cache.read("org_1") is not None
    cache.enter_epoch("later")
    assert cache.read("org_1") is None
    # A read that began before the epoch did ends after it.
    cache.keep(org(1), "now")
    cache.keep_scope("names", ScopeState(1, 0, 1), "now")
    assert cache.read("org_1") is None
    assert cache.read_scope("names") is None


def test_what_is_doubted_is_where_to_read_on_from_and_no_more() -> None:
    cache = StateCache("now")
    cache.keep(org(1), "now")
    cache.doubt(["org_1", "org_2"])
    assert cache.read("org_1") is None
    assert cache.read_outdated("org_1") == org(1)
    assert cache.read_outdated("org_2") is None
    cache.keep(org(1), "now")
    assert cache.read("org_1") == org(1)


def test_doubts_end_with_what_they_were_of() -> None:
    cache = StateCache("now", max_entries=1)
    cache.keep(org(1), "now")
    cache.doubt(["org_1"])
    cache.keep(org(2), "now")
    assert cache.read_outdated("org_1") is None
    cache.doubt(["org_2"])
    cache.enter_epoch("later")
    assert not cache._outdated
