"""What events do to the rows of nodes and instances; and that derived views change with their projection's version."""

import hashlib
from datetime import UTC, datetime

import msgspec
import pytest

from keelson.events import Event, Ids
from keelson.events.instance import (
    Endpoint,
    InstanceAllocated,
    InstanceDesiredStateChanged,
    InstanceSpec,
    InstanceStatusChanged,
)
from keelson.events.node import NodeCapacitySet, NodeEnrolled, NodeEnrollmentCreated, NodeRemoved, NodeStateChanged
from keelson.events.release import Port
from keelson.views import PROJECTIONS, DerivedView, derived_named, sql
from keelson.views.memory import Memory
from keelson.views.placement import INSTANCES, NODES
from keelson.views.platform import PLATFORM
from support.story import Story

NODE, INSTANCE = (f"{prefix}_{1:026d}" for prefix in ("node", "instance"))
NODE_IDS = Ids(node_id=NODE)
INSTANCE_IDS = Ids(org_id="o", project_id="p", app_id="a", env_id="e", node_id=NODE)
EXPIRES_AT = datetime(2026, 1, 2, tzinfo=UTC)
AWAITED = NodeEnrollmentCreated(expires_at=EXPIRES_AT, credential_id="credential_1")
ENROLLED = NodeEnrolled(
    name="one", labels={"zone": "a"}, cpu_millis=4000, memory_bytes=8, address="10.0.0.7", credential_id="credential_2"
)
SPEC = InstanceSpec(image="i", command=("run",), ports=(Port("http", 80),), cpu_millis=1, memory_bytes=2)
ALLOCATED = InstanceAllocated(
    process="web", release_id="r", release_number=3, secret_version=2, spec=SPEC, spec_hash="abc"
)
READY = InstanceStatusChanged(status="ready", endpoints={"http": Endpoint("10.0.0.7", 31000)}, message="up")


def told(aggregate_id: str, ids: Ids, *events: Event) -> Memory:
    memory, story = Memory(PLATFORM), Story()
    for event in events:
        for envelope in story.envelopes([(aggregate_id, ids, event)]):
            memory.apply(envelope, event)
    return memory


def node_after(*events: Event) -> dict[str, object]:
    row = told(NODE, NODE_IDS, AWAITED, *events).read_row(NODES, NODE)
    assert row is not None
    return {name: row[name] for name in NODES.fields}


def instance_after(*events: Event) -> dict[str, object]:
    row = told(INSTANCE, INSTANCE_IDS, ALLOCATED, *events).read_row(INSTANCES, INSTANCE)
    assert row is not None
    return {name: row[name] for name in INSTANCES.fields}


def test_a_node_is_awaited_and_enrols() -> None:
    awaited = node_after()
    assert (awaited["name"], awaited["state"], awaited["expires_at"]) == (None, None, EXPIRES_AT)
    assert node_after(ENROLLED) == {
        "id": NODE,
        "state": "active",
        "message": None,
        "expires_at": None,
        "deleted_at": None,
        **msgspec.structs.asdict(ENROLLED),
    }


def test_a_node_changes_and_goes() -> None:
    changed = node_after(ENROLLED, NodeStateChanged(state="draining", message="old"), NodeCapacitySet(1, 2))
    assert (changed["state"], changed["message"], changed["cpu_millis"], changed["memory_bytes"]) == (
        *("draining", "old"),
        *(1, 2),
    )
    assert node_after(ENROLLED, NodeRemoved())["deleted_at"] is not None


def test_an_instance_is_booting_until_its_node_says_otherwise() -> None:
    assert instance_after() == {
        "id": INSTANCE,
        **msgspec.structs.asdict(INSTANCE_IDS),
        **msgspec.structs.asdict(ALLOCATED),
        "desired_state": "running",
        "desired_position": 1,
        "status": "booting",
        **dict.fromkeys(("endpoints", "reason_code", "exit_code", "message")),
    }


def test_a_report_says_all_and_nothing_of_the_one_before_it_is_left() -> None:
    ready = instance_after(READY)
    assert (ready["status"], ready["endpoints"], ready["message"]) == ("ready", READY.endpoints, "up")
    failed = instance_after(READY, InstanceStatusChanged(status="failed", reason_code="exited", exit_code=1))
    assert (failed["status"], failed["endpoints"], failed["message"]) == ("failed", None, None)
    assert (failed["reason_code"], failed["exit_code"]) == ("exited", 1)


def test_what_a_node_should_do_changes_by_orders_and_by_the_end_alone() -> None:
    drain, stopped = InstanceDesiredStateChanged("draining"), InstanceStatusChanged(status="stopped")
    assert instance_after(READY)["desired_position"] == 1
    draining = instance_after(READY, drain, READY)
    assert (draining["desired_state"], draining["desired_position"]) == ("draining", 3)
    assert instance_after(READY, drain, stopped)["desired_position"] == 4


# A rebuild is what brings a new definition into a database, and only a new version of its projection asks for one. So
# whoever changes one raises the version, and says here of which definition it is.
DEFINED = {
    "env_status": (3, "7b5942e59d322cc4"),
    "node_desired": (4, "25024bdaa0941aa3"),
    "edge_desired": (4, "00a0d6ce844199bd"),
}


@pytest.mark.parametrize("name", [view.name for each in PROJECTIONS.values() for view in each.derived])
def test_another_definition_of_a_derived_view_is_another_version_of_its_projection(name: str) -> None:
    projection, view = derived_named(name)
    version, digest = DEFINED[name]
    assert digest_of(view) == digest, f"raise the version of {projection.name}, and name the definition here"
    assert version <= projection.version


def digest_of(view: DerivedView) -> str:
    return hashlib.sha256(sql.create_view(view, "views").encode()).hexdigest()[:16]


def test_derived_views_are_found_by_name() -> None:
    assert derived_named("env_status")[0] is PLATFORM
    with pytest.raises(KeyError):
        derived_named("apps")
