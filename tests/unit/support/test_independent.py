"""The judge of members: what it must see, it sees."""

import json
from typing import Any

from support.independent import faults_of_rules

ORG = "org_1"


def event(position: int, what: str, **payload: Any) -> dict[str, Any]:
    """Give an event of the organisation."""
    return {
        "position": position,
        "command_end": True,
        "type": f"org.{what}",
        "aggregate_id": ORG,
        "org_id": ORG,
        "payload": json.dumps(payload),
    }


ADDED = event(1, "member_added", member_id="m1", person_id="p1", role="owner")


def test_a_good_history_has_no_faults() -> None:
    second = event(2, "member_added", member_id="m2", person_id="p2", role="owner")
    assert not faults_of_rules([ADDED, second, event(3, "member_removed", member_id="m1")])


def test_a_last_owner_who_left_or_was_demoted_is_seen() -> None:
    assert faults_of_rules([ADDED, event(2, "member_removed", member_id="m1")])
    assert faults_of_rules([ADDED, event(2, "member_role_changed", member_id="m1", role="admin")])


def test_a_person_who_is_a_member_twice_is_seen() -> None:
    assert faults_of_rules([ADDED, event(2, "member_added", member_id="m2", person_id="p1", role="admin")])


def test_a_credential_of_nobody_is_seen() -> None:
    assert faults_of_rules([ADDED, event(2, "credential_issued", member_id="m2", credential_id="c")])
