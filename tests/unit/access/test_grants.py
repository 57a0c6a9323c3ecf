"""What whom allows what: given events of who grants, then what an identity may."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from keelson.access import Grants, Identity, NodeAccess, OrgAccess, PrincipalAccess, grants_of
from keelson.access.grants import NOTHING, Kind
from keelson.access.holders import Access
from keelson.access.scopes import ORG_SCOPES, READS, WRITES, expand
from keelson.events import Actor, ActorType, Event, Ids
from keelson.events.ids import AggregateId
from keelson.events.node import NodeEnrolled, NodeEnrollmentCreated, NodeRemoved
from keelson.events.org import (
    OrgCreated,
    OrgCredentialIssued,
    OrgCredentialRevoked,
    OrgMemberAdded,
    OrgMemberErased,
    OrgMemberRemoved,
    OrgMemberRoleChanged,
    Role,
)
from keelson.events.principal import (
    PrincipalCreated,
    PrincipalCredentialIssued,
    PrincipalCredentialRevoked,
    PrincipalDeleted,
    PrincipalScopesSet,
)

NOW = datetime(2026, 11, 25, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)
ORG, NODE = Ids(org_id="org_1"), Ids(node_id="node_1")
TOKEN = "credential_1"

ADDED = OrgMemberAdded(member_id="member_1", person_id="person_1", role="developer")
ISSUED = OrgCredentialIssued(member_id="member_1", credential_id=TOKEN)
MEMBER = (OrgCreated(name="a"), ADDED, ISSUED)

PRINCIPAL = (
    PrincipalCreated(name="a", scopes=("apps:write", "audit:read")),
    PrincipalCredentialIssued(credential_id=TOKEN),
)

WAITING = (NodeEnrollmentCreated(expires_at=LATER, credential_id="credential_0"),)
ENROLLED = (*WAITING, NodeEnrolled(name="a", labels={}, cpu_millis=1, memory_bytes=1, credential_id=TOKEN))


def identity(kind: Kind, actor_type: ActorType, actor_id: str, credential_id: str = TOKEN) -> Identity:
    return Identity(Actor(actor_type, actor_id), kind, credential_id, AggregateId("holder"))


AS_MEMBER = identity("member", "user", "member_1")
AS_PRINCIPAL = identity("principal", "principal", "principal_1")
AS_NODE = identity("node", "node", "node_1")
AS_MACHINE = identity("enrollment", "node", "node_1", "credential_0")


def fold(access: Access, events: Sequence[Event]) -> Access:
    for event in events:
        access = access.evolve(event)
    return access


def member(*events: Event) -> Grants | None:
    return grants_of(AS_MEMBER, fold(OrgAccess(), (*MEMBER, *events)), ORG, NOW)


def principal(*events: Event, ids: Ids = ORG) -> Grants | None:
    return grants_of(AS_PRINCIPAL, fold(PrincipalAccess(), (*PRINCIPAL, *events)), ids, NOW)


def test_a_member_may_what_its_role_contains() -> None:
    grants = member()

    assert grants is not None
    assert (grants.org_id, grants.member_id, grants.role) == ("org_1", "member_1", "developer")
    assert grants.allows("apps:write", "audit:read")
    assert not grants.allows("apps:write", "members:write")


ROLES: list[tuple[Role, set[str], bool]] = [
    ("owner", set(READS | WRITES), True),
    ("admin", set(READS | WRITES), True),
    (
        "developer",
        set(READS) | {f"{each}:write" for each in ["apps", "envs", "releases", "deploys", "routes", "secrets"]},
        False,
    ),
    ("readonly", set(READS), False),
]


@pytest.mark.parametrize(("role", "scopes", "emails"), ROLES)
def test_each_role_contains_just_this(role: Role, scopes: set[str], emails: bool) -> None:
    grants = member(OrgMemberRoleChanged(member_id="member_1", role=role))

    assert grants is not None
    assert grants.scopes == scopes
    assert grants.sees_emails is emails
    assert not grants.operator


@pytest.mark.parametrize(
    "events",
    [
        [OrgMemberRemoved(member_id="member_1")],
        [OrgMemberErased(member_id="member_1")],
        [OrgCredentialRevoked(member_id="member_1", credential_id=TOKEN)],
        [OrgMemberRemoved(member_id="member_1"), ADDED],
        [OrgCredentialIssued(member_id="member_1", credential_id=TOKEN, expires_at=NOW)],
    ],
)
def test_a_members_credential_ends(events: list[Event]) -> None:
    assert member(*events) is None


def test_one_credential_of_several_can_end() -> None:
    other = OrgCredentialIssued(member_id="member_1", credential_id="credential_2", expires_at=LATER)
    assert member(other, OrgCredentialRevoked(member_id="member_1", credential_id="credential_2")) is not None
    rotated = fold(OrgAccess(), (*MEMBER, other, OrgCredentialRevoked(member_id="member_1", credential_id=TOKEN)))
    second = identity("member", "user", "member_1", "credential_2")
    assert grants_of(second, rotated, ORG, NOW) is not None
    assert grants_of(second, rotated, ORG, LATER) is None


def test_somebody_elses_credential_is_not_a_members() -> None:
    access = fold(OrgAccess(), (*MEMBER, OrgMemberAdded(member_id="member_2", person_id="person_2", role="owner")))
    assert grants_of(identity("member", "user", "member_2"), access, ORG, NOW) is None


def test_a_principal_may_what_its_scopes_say_and_read_what_it_may_write() -> None:
    grants = principal()

    assert grants is not None
    assert grants.org_id == "org_1"
    assert grants.scopes == {"apps:read", "apps:write", "audit:read"}
    changed = principal(PrincipalScopesSet(scopes=("*",)))
    assert changed is not None
    assert changed.scopes == READS | WRITES


@pytest.mark.parametrize("event", [PrincipalCredentialRevoked(credential_id=TOKEN), PrincipalDeleted()])
def test_a_principals_credential_ends(event: Event) -> None:
    assert principal(event) is None


def test_only_without_an_organisation_is_a_principal_an_operator() -> None:
    operators = PrincipalScopesSet(scopes=("operator",))
    inside, outside = principal(operators), principal(operators, ids=Ids())

    assert inside is not None
    assert not inside.operator
    assert outside is not None
    assert outside.operator
    assert outside.allows("apps:write")
    without = principal(ids=Ids())
    assert without is not None
    assert not without.operator


def test_a_node_acts_by_its_credential_and_enrols_by_another() -> None:
    waiting, enrolled = fold(NodeAccess(), WAITING), fold(NodeAccess(), ENROLLED)

    assert grants_of(AS_MACHINE, waiting, NODE, NOW) == Grants(enrolls="node_1")
    assert grants_of(AS_MACHINE, waiting, NODE, LATER) is None
    assert grants_of(AS_MACHINE, enrolled, NODE, NOW) is None
    assert grants_of(AS_NODE, waiting, NODE, NOW) is None
    assert grants_of(AS_NODE, enrolled, NODE, NOW) == Grants(node_id="node_1")
    assert grants_of(AS_NODE, fold(enrolled, [NodeRemoved()]), NODE, NOW) is None


def test_who_holds_nothing_may_nothing() -> None:
    for each in (AS_MEMBER, AS_PRINCIPAL, AS_NODE, AS_MACHINE):
        assert grants_of(each, None, None, NOW) is None
    nobody = grants_of(identity("nobody", "system", "nobody"), None, None, NOW)
    assert nobody == NOTHING
    assert not NOTHING.allows("apps:read")
    assert not NOTHING.sees(Ids())
    assert not NOTHING.sees(ORG)


def test_what_is_seen() -> None:
    tenant, node = Grants(org_id="org_1"), Grants(node_id="node_1")
    both = Ids(org_id="org_1", node_id="node_1")

    assert (tenant.sees(both), tenant.sees(Ids(org_id="org_2")), tenant.sees(Ids())) == (True, False, False)
    assert (node.sees(both), node.sees(Ids(node_id="node_2")), node.sees(ORG)) == (True, False, False)
    assert Grants(operator=True).sees(Ids())
    machine = Grants(enrolls="node_1")
    assert (machine.sees(NODE), machine.sees(both), machine.sees(Ids())) == (True, False, False)


def test_nobody_gives_more_than_it_has() -> None:
    owner, admin = as_role("owner"), as_role("admin")
    star = principal(PrincipalScopesSet(scopes=("*",)))
    narrow = principal()
    assert star is not None
    assert narrow is not None

    assert [each.covers(("*",)) for each in (owner, admin, star, narrow)] == [True, False, True, False]
    assert [each.covers(("operator",)) for each in (owner, admin, star, narrow)] == [False] * 4
    assert narrow.covers(("apps:write",))
    assert not narrow.covers(("audit:write",))
    assert [each.covers_role("owner") for each in (owner, admin, star, narrow)] == [True, False, False, False]
    assert [each.covers_role("admin") for each in (owner, admin, star, narrow)] == [True, True, True, False]
    assert not narrow.covers_role("readonly")
    assert Grants(operator=True).covers_role("owner")
    assert Grants(operator=True).covers(("operator",))


def as_role(role: Role) -> Grants:
    grants = member(OrgMemberRoleChanged(member_id="member_1", role=role))
    assert grants is not None
    return grants


def test_scopes_are_a_closed_list() -> None:
    assert len(ORG_SCOPES) == 25
    assert expand(("deploys:write",)) == {"deploys:read", "deploys:write"}
