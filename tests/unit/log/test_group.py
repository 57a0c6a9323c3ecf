"""Which decisions may share an append group: none that depends on another one of it."""

import msgspec
import pytest

from keelson.events import Actor
from keelson.log.decision import Decision, FreedScope, Limit, Person, TakenKey
from keelson.log.group import MAX_BYTES, MAX_DECISIONS, Group, arguments
from support.decisions import DEPENDENT, an_app, decide, made_id


def _share(*decisions: Decision) -> bool:
    group = Group()
    return all(group.admit(decision) for decision in decisions)


@pytest.mark.parametrize("kind", DEPENDENT)
def test_f12_decisions_that_depend_on_one_another_never_share_a_group(kind: str) -> None:
    first, second = DEPENDENT[kind]("epoch")
    assert not _share(first, second)
    assert not _share(second, first)
    assert not _share(decide("epoch", an_app()), first, decide("epoch", an_app()), second)


def test_what_only_reads_the_same_shares_a_group() -> None:
    reads = {made_id("org", 1): 3}
    scopes = {"scope": 2}
    keys = {("other", "key"): None}
    limit = Limit("third", 1, None)
    one, two = (decide("epoch", an_app(), reads=reads, scopes=scopes, keys=keys, limits=[limit]) for _ in range(2))
    assert _share(one, two)


def test_other_keys_of_one_scope_may_be_taken_together() -> None:
    one = decide("epoch", taken=[TakenKey("scope", "a", made_id("app"), 0)])
    two = decide(
        "epoch", taken=[TakenKey("scope", "b", made_id("app"), 0)], freed=[FreedScope("scope", made_id("app"))]
    )
    assert _share(one, two)


def test_f15_one_key_of_two_actors_or_commands_is_two_keys() -> None:
    other = Actor("user", "operator")
    same = [decide("epoch", key="key"), decide("epoch", key="key", actor=other), decide("epoch", key="key", name="b")]
    assert _share(*same)
    assert not _share(*same, decide("epoch", key="key", name="b"))


def test_a_group_holds_so_many_decisions() -> None:
    group = Group()
    assert all(group.admit(decide("epoch", an_app())) for _ in range(MAX_DECISIONS))
    assert group.is_full
    assert not group.admit(decide("epoch", an_app()))


def test_a_group_holds_so_many_bytes_and_always_one_decision() -> None:
    group = Group()
    large = decide("epoch", an_app("ü" * (MAX_BYTES // 2)))
    assert len(large.events[0].payload.encode()) > MAX_BYTES > len(large.events[0].payload)
    assert group.admit(large)
    assert not group.admit(decide("epoch", an_app()))
    group = Group()
    assert group.admit(decide("epoch", an_app()))
    assert not group.admit(large)
    assert group.admit(decide("epoch", an_app()))


@pytest.mark.parametrize("text", ["", "line\nfeed"])
def test_a_text_that_would_not_come_out_again_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="line feed"):
        arguments("epoch", [decide("epoch", an_app(), answer=text)])


def test_free_text_may_hold_line_feeds() -> None:
    decision = decide("epoch", an_app(), people=[Person(made_id("person"), "", "one\ntwo")])
    decision.context = msgspec.structs.replace(decision.context, reason="first\nsecond")
    assert ("first\nsecond",) in arguments("epoch", [decision])


def test_columns_without_rows_are_there() -> None:
    assert len(arguments("epoch", [decide("epoch")])) == len(arguments("epoch", [decide("epoch", an_app())])) == 72
