"""The rules of nodes."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from keelson.access import Identity
from keelson.command.domain.node import (
    CreateEnrollmentToken,
    EnrollNode,
    RemoveNode,
    SetNodeCapacity,
    SetNodeState,
)
from keelson.events import Actor
from keelson.events.instance import InstanceAllocated, InstanceSpec, InstanceStatusChanged
from keelson.events.node import (
    NAMES,
    NodeCapacitySet,
    NodeEnrolled,
    NodeEnrollmentCreated,
    NodeRemoved,
    NodeState,
    NodeStateChanged,
    memory_of,
)
from support.specs import ENV_EXISTS, INSTANCE, NODE, NOW, Fact, given, id_of, issued, minted, revoked, token

GIGABYTE = 2**30
HOUR = timedelta(hours=1)
TOKEN_ID, CREDENTIAL_ID = id_of("credential", 1), id_of("credential", 2)

AWAITED: tuple[Fact, ...] = ((NODE, NodeEnrollmentCreated(expires_at=NOW + HOUR, credential_id=TOKEN_ID)),)
ENROLLED = NodeEnrolled(
    name="one", labels={"zone": "a"}, cpu_millis=4000, memory_bytes=GIGABYTE, address="10.0.0.7", credential_id="c"
)
NODE_EXISTS: tuple[Fact, ...] = (*AWAITED, (NODE, msgspec.structs.replace(ENROLLED, credential_id=CREDENTIAL_ID)))
MACHINE = Identity(Actor("node", NODE), "enrollment", TOKEN_ID, NODE)
ENROLL = EnrollNode(
    token="kls_x", name="one", labels={"zone": "a"}, cpu_millis=4000, memory_bytes=GIGABYTE, address="10.0.0.7"
)
SPEC = InstanceSpec(image="i", command=("run",), cpu_millis=1, memory_bytes=GIGABYTE // 2)
ALLOCATED = InstanceAllocated(process="web", release_id="r", release_number=1, spec=SPEC, spec_hash="0")
PLACED: tuple[Fact, ...] = (*ENV_EXISTS, *NODE_EXISTS, (INSTANCE, ALLOCATED))
STOPPED: Fact = (INSTANCE, InstanceStatusChanged(status="stopped"))


def test_a_token_lets_one_machine_enrol_for_an_hour_unless_it_is_said_otherwise() -> None:
    node, credential = minted("node", 1), minted("credential", 2)
    given().when(CreateEnrollmentToken()).then(
        (node, NodeEnrollmentCreated(expires_at=NOW + HOUR, credential_id=credential))
    ).answering(node_id=node, token=token(1)).credentials(issued(1, credential, "enrollment", node, node))
    given().when(CreateEnrollmentToken(expires_in_s=60, node_id=NODE)).then(
        (NODE, NodeEnrollmentCreated(expires_at=NOW + timedelta(seconds=60), credential_id=minted("credential", 1)))
    )
    given(*AWAITED).when(CreateEnrollmentToken(node_id=NODE)).then_refused("id_taken")


def test_a_machine_enrols_as_the_node_and_its_token_is_spent() -> None:
    credential = minted("credential", 1)
    enrolled = msgspec.structs.replace(ENROLLED, credential_id=credential)
    outcome = given(*AWAITED).by(MACHINE).when(ENROLL).then((NODE, enrolled))
    outcome.answering(node_id=NODE, credential=token(1)).taking((NAMES, "one"))
    outcome.credentials(revoked(TOKEN_ID), issued(1, credential, "node", NODE, NODE))


def test_a_token_is_good_once_and_in_time() -> None:
    given(*NODE_EXISTS).by(MACHINE).when(ENROLL).then_refused("unauthenticated")
    given(*AWAITED).by(MACHINE).at(NOW + HOUR - timedelta(seconds=1)).when(ENROLL).then(
        (NODE, msgspec.structs.replace(ENROLLED, credential_id=minted("credential", 1)))
    )
    given(*AWAITED).by(MACHINE).at(NOW + HOUR).when(ENROLL).then_refused("unauthenticated")
    given(*AWAITED, (NODE, NodeRemoved())).by(MACHINE).when(ENROLL).then_refused("unauthenticated")
    given().by(MACHINE).when(ENROLL).then_refused("unauthenticated")


def test_a_token_of_another_enrolment_is_none() -> None:
    other = Identity(Actor("node", NODE), "enrollment", id_of("credential", 9), NODE)
    given(*AWAITED).by(other).when(ENROLL).then_refused("unauthenticated")


@pytest.mark.parametrize("state", ["active", "draining", "disabled", "offline"])
def test_a_node_goes_into_any_state_and_from_any(state: NodeState) -> None:
    other: NodeState = "draining" if state != "draining" else "offline"
    before = (*NODE_EXISTS, (NODE, NodeStateChanged(state=other)))
    changed = (NODE, NodeStateChanged(state=state, message="because"))
    given(*before).when(SetNodeState(node_id=NODE, state=state, message="because")).then(changed)
    again = SetNodeState(node_id=NODE, state=state, message="because")
    given(*before, changed).when(again).then_nothing().answering(node_id=NODE)


@pytest.mark.parametrize("message", ["its fan is broken", None])
def test_of_an_offline_node_it_is_said_anew_why_and_of_no_other(message: str | None) -> None:
    lost = (*NODE_EXISTS, (NODE, NodeStateChanged(state="offline", message="no heartbeat for 12 s")))
    taken = (NODE, NodeStateChanged(state="offline", message=message))
    given(*lost).when(SetNodeState(node_id=NODE, state="offline", message=message)).then(taken)
    draining = (*NODE_EXISTS, (NODE, NodeStateChanged(state="draining", message="a new kernel")))
    given(*draining).when(SetNodeState(node_id=NODE, state="draining", message=message)).then_nothing()


def test_a_node_that_has_not_enrolled_has_neither_state_nor_capacity() -> None:
    given(*AWAITED).when(SetNodeState(node_id=NODE, state="active")).then_refused("invalid_transition")
    capacity = SetNodeCapacity(node_id=NODE, cpu_millis=1, memory_bytes=1)
    given(*AWAITED).when(capacity).then_refused("invalid_transition")


def test_capacity_is_set_and_an_unchanged_one_is_not() -> None:
    more = SetNodeCapacity(node_id=NODE, cpu_millis=8000, memory_bytes=2 * GIGABYTE)
    given(*NODE_EXISTS).when(more).then((NODE, NodeCapacitySet(cpu_millis=8000, memory_bytes=2 * GIGABYTE))).limiting(
        (memory_of(NODE), None, 2 * GIGABYTE)
    )
    given(*NODE_EXISTS).when(SetNodeCapacity(node_id=NODE, cpu_millis=4000, memory_bytes=GIGABYTE)).then_nothing()


def test_memory_that_instances_hold_is_not_taken_away() -> None:
    less = SetNodeCapacity(node_id=NODE, cpu_millis=4000, memory_bytes=GIGABYTE // 2 - 1)
    given(*PLACED).when(less).then_refused("no_capacity")
    enough = SetNodeCapacity(node_id=NODE, cpu_millis=4000, memory_bytes=GIGABYTE // 2)
    given(*PLACED).when(enough).then((NODE, NodeCapacitySet(cpu_millis=4000, memory_bytes=GIGABYTE // 2)))
    given(*PLACED, STOPPED).when(less).then((NODE, NodeCapacitySet(cpu_millis=4000, memory_bytes=GIGABYTE // 2 - 1)))


def test_a_node_is_removed_when_nothing_is_placed_on_it() -> None:
    given(*PLACED).when(RemoveNode(node_id=NODE)).then_refused("in_use")
    outcome = given(*PLACED, STOPPED).when(RemoveNode(node_id=NODE)).then((NODE, NodeRemoved()))
    outcome.credentials(revoked(CREDENTIAL_ID)).answering(node_id=NODE)


def test_a_node_that_never_enrolled_is_removed_with_its_token() -> None:
    given(*AWAITED).when(RemoveNode(node_id=NODE)).then((NODE, NodeRemoved())).credentials(revoked(TOKEN_ID))


@pytest.mark.parametrize(
    "command",
    [
        SetNodeState(node_id=NODE, state="active"),
        SetNodeCapacity(node_id=NODE, cpu_millis=1, memory_bytes=1),
        RemoveNode(node_id=NODE),
    ],
)
def test_what_is_not_there_or_was_removed_is_not_found(command: Any) -> None:
    given().when(command).then_refused("not_found")
    given(*NODE_EXISTS, (NODE, NodeRemoved())).when(command).then_refused("not_found")


@pytest.mark.parametrize(
    "said",
    [
        {"name": "One"},
        {"cpu_millis": 0},
        {"memory_bytes": 0},
        {"memory_bytes": 2**53 + 1},
        {"address": "10.0.0.7/8"},
        {"labels": {"Zone": "a"}},
        {"labels": {"zone": "a" * 501}},
        {"state": "active"},
    ],
)
def test_the_schema_refuses_what_no_machine_is(said: dict[str, Any]) -> None:
    good = {"token": "t", "name": "one", "cpu_millis": 1, "memory_bytes": 1, "address": "fe80::1"}
    assert msgspec.convert(good, EnrollNode).address == "fe80::1"
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(good | said, EnrollNode)


def test_a_token_is_not_shown_where_a_command_is() -> None:
    assert "kls_x" not in repr(ENROLL)
