"""Which claims events take and free: given events of one aggregate, then what it holds."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import pytest

from keelson.events import REGISTRY, Event, Ids, Release, Take
from keelson.events.app import AppCreated, AppDeleted, AppRenamed
from keelson.events.deploy import DeployCreated, DeployStatusChanged
from keelson.events.env import (
    EnvConfigSet,
    EnvCreated,
    EnvDeleted,
    EnvProcess,
    EnvReleaseSet,
    EnvRenamed,
    EnvScaled,
    EnvScaledV1,
)
from keelson.events.instance import (
    InstanceAllocated,
    InstanceDesiredStateChanged,
    InstanceSpec,
    InstanceStatusChanged,
)
from keelson.events.node import NodeCapacitySet, NodeEnrolled, NodeEnrollmentCreated, NodeRemoved, NodeStateChanged
from keelson.events.org import (
    OrgCreated,
    OrgCredentialIssued,
    OrgCredentialRevoked,
    OrgMemberAdded,
    OrgMemberErased,
    OrgMemberRemoved,
    OrgMemberRoleChanged,
    OrgQuotaSet,
    OrgRenamed,
    Quota,
)
from keelson.events.platform import EpochBegan
from keelson.events.principal import (
    PrincipalCreated,
    PrincipalCredentialIssued,
    PrincipalCredentialRevoked,
    PrincipalDeleted,
    PrincipalScopesSet,
)
from keelson.events.project import ProjectCreated, ProjectDeleted, ProjectRenamed
from keelson.events.release import ReleaseCreated
from keelson.events.route import RouteCreated, RouteDeleted, RouteUpdated
from keelson.events.secret import SecretCreated, SecretDeleted, SecretRevealed, SecretVersionSet

IDS = Ids(org_id="org_1", project_id="project_1", app_id="app_1", env_id="env_1", node_id="node_1")
OWN = "own_1"

CREATED_RELEASE = ReleaseCreated(number=7, image="images.example.com/shop@sha256:0", processes={})
CREATED_ROUTE = RouteCreated(hostname="a.example", process="web", port="http")
SET_RELEASE = EnvReleaseSet(deploy_id="deploy_1", release_id="release_1", release_number=7, processes={})
WANTS = {("env.instances:org_1", OWN), ("env.memory_bytes:org_1", OWN)}
NOW = datetime(2026, 11, 25, tzinfo=UTC)
ENROLLED = NodeEnrolled(name="a", labels={}, cpu_millis=1, memory_bytes=1, credential_id="credential_1")
SPEC = InstanceSpec(image="i", command=("x",), cpu_millis=1, memory_bytes=5)
ALLOCATED = InstanceAllocated(process="web", release_id="release_1", release_number=1, spec=SPEC, spec_hash="0")
PLACED = {("node.memory_bytes:node_1", OWN), ("instance.of:env_1", OWN)}

EXAMPLES: list[tuple[list[Event], set[tuple[str, str]]]] = [
    ([OrgCreated(name="a")], {("org.name", "a")}),
    ([OrgCreated(name="a"), OrgRenamed(name="b")], {("org.name", "b")}),
    ([ProjectCreated(name="a")], {("project.name:org_1", "a")}),
    ([ProjectCreated(name="a"), ProjectRenamed(name="b")], {("project.name:org_1", "b")}),
    ([ProjectCreated(name="a"), ProjectDeleted()], set()),
    ([AppCreated(name="a")], {("app.name:project_1", "a"), ("app.of:org_1", OWN)}),
    ([AppCreated(name="a"), AppRenamed(name="b")], {("app.name:project_1", "b"), ("app.of:org_1", OWN)}),
    ([AppCreated(name="a"), AppRenamed(name="b"), AppDeleted()], set()),
    ([EnvCreated(name="a")], {("env.name:app_1", "a"), ("env.of:org_1", OWN)}),
    ([EnvCreated(name="a"), EnvRenamed(name="b")], {("env.name:app_1", "b"), ("env.of:org_1", OWN)}),
    ([EnvCreated(name="a"), EnvRenamed(name="a")], {("env.name:app_1", "a"), ("env.of:org_1", OWN)}),
    ([EnvCreated(name="a"), EnvDeleted()], set()),
    ([EnvConfigSet(variables={})], set()),
    ([SET_RELEASE], WANTS),
    ([EnvScaled(replicas={"web": 2}, memory_bytes=7)], WANTS),
    ([SET_RELEASE, EnvScaled(replicas={"web": 2})], WANTS),
    ([EnvCreated(name="a"), SET_RELEASE, EnvDeleted()], set()),
    ([CREATED_RELEASE], {("release.number:app_1", "7")}),
    ([DeployCreated(release_id="release_1", release_number=7, kind="deploy")], set()),
    ([DeployStatusChanged(status="rolling")], set()),
    ([CREATED_ROUTE], {("route.hostname", "a.example"), ("route.hostname:env_1", "a.example")}),
    (
        [CREATED_ROUTE, RouteUpdated(hostname="b.example", process="web", port="http")],
        {("route.hostname", "b.example"), ("route.hostname:env_1", "b.example")},
    ),
    ([CREATED_ROUTE, RouteDeleted()], set()),
    ([EpochBegan(epoch="e1", cause="created")], set()),
    ([OrgQuotaSet(quota=Quota())], set()),
    ([OrgMemberAdded(member_id="member_1", person_id="person_1", role="owner")], set()),
    ([OrgMemberRoleChanged(member_id="member_1", role="admin")], set()),
    ([OrgMemberRemoved(member_id="member_1"), OrgMemberErased(member_id="member_1")], set()),
    ([OrgCredentialIssued(member_id="member_1", credential_id="credential_1")], set()),
    ([OrgCredentialRevoked(member_id="member_1", credential_id="credential_1")], set()),
    ([PrincipalCreated(name="a", scopes=())], {("principal.name:org_1", "a")}),
    ([PrincipalCreated(name="a", scopes=()), PrincipalDeleted()], set()),
    ([PrincipalScopesSet(scopes=()), PrincipalCredentialIssued(credential_id="credential_1")], set()),
    ([PrincipalCredentialRevoked(credential_id="credential_1")], set()),
    ([SecretCreated()], {("secret.of:env_1", "secret")}),
    ([SecretCreated(), SecretVersionSet(version=1, keys=(), digest="0"), SecretDeleted()], set()),
    ([SecretRevealed(version=1, node_id="node_1", instance_id="instance_1")], set()),
    ([NodeEnrollmentCreated(expires_at=NOW, credential_id="credential_1")], set()),
    ([ENROLLED], {("node.name", "a")}),
    ([ENROLLED, NodeRemoved()], set()),
    ([NodeStateChanged(state="offline"), NodeCapacitySet(cpu_millis=1, memory_bytes=1)], set()),
    ([ALLOCATED, InstanceDesiredStateChanged(desired_state="stopped")], PLACED),
    ([ALLOCATED, InstanceStatusChanged(status="failed", reason_code="exited")], PLACED),
    ([ALLOCATED, InstanceStatusChanged(status="stopped")], set()),
]


def held_after(events: Sequence[Event]) -> set[tuple[str, str]]:
    """Fold the claims of one aggregate's events into the (scope, key) pairs that it holds."""
    held: set[tuple[str, str]] = set()
    for event in events:
        for change in event.claims_of(IDS):
            if isinstance(change, Take):
                held.add((change.scope, change.key_of(OWN)))
            else:
                held = {each for each in held if each[0] != change.scope}
    return held


@pytest.mark.parametrize(
    ("given", "then"), EXAMPLES, ids=[" ".join(each.event_type for each in given) for given, _ in EXAMPLES]
)
def test_what_an_aggregate_holds_after_its_events(given: list[Event], then: set[tuple[str, str]]) -> None:
    assert held_after(given) == then


def test_every_event_has_an_example() -> None:
    shown = {type(event) for given, _ in EXAMPLES for event in given}

    assert shown == set(REGISTRY.newest.values())


def test_a_rename_frees_the_old_name_before_it_takes_the_new_one() -> None:
    """In this order an aggregate may be renamed to the name that it has."""
    assert AppRenamed(name="b").claims_of(IDS) == (Release("app.name:project_1"), Take("app.name:project_1", "b"))


def amounts_of(*events: Event) -> dict[str, int]:
    """Give what an aggregate holds of each scope after its events."""
    held: dict[str, int] = {}
    for event in events:
        for change in event.claims_of(IDS):
            if isinstance(change, Take):
                held[change.scope] = change.amount
            else:
                held.pop(change.scope, None)
    return held


def test_an_environment_wants_the_replicas_and_the_memory_of_its_release() -> None:
    process = EnvProcess(command=("x",), cpu_millis=1, memory_bytes=10, replicas=3)
    once = msgspec.structs.replace(process, replicas=1)
    release = msgspec.structs.replace(SET_RELEASE, processes={"web": process, "jobs": once})

    assert amounts_of(release) == {"env.instances:org_1": 4, "env.memory_bytes:org_1": 40}


def test_scaling_says_what_is_wanted_instead_and_its_first_version_leaves_the_memory_as_it_was() -> None:
    scaled = EnvScaled(replicas={"web": 2, "jobs": 0}, memory_bytes=20)
    first = EnvScaledV1(replicas={"web": 5}).upcast()

    assert amounts_of(scaled) == {"env.instances:org_1": 2, "env.memory_bytes:org_1": 20}
    assert amounts_of(scaled, first) == {"env.instances:org_1": 5, "env.memory_bytes:org_1": 20}


def test_an_instance_holds_its_memory() -> None:
    assert amounts_of(ALLOCATED) == {"node.memory_bytes:node_1": 5, "instance.of:env_1": 0}
