"""Grants: what an actor may, as of the state of what grants it."""

from datetime import datetime
from typing import Literal, assert_never

import msgspec

from keelson.access.holders import Access, Credentials, NodeAccess, OrgAccess, PrincipalAccess
from keelson.access.scopes import EVERYTHING, OPERATOR, SCOPES_OF_ROLE, expand
from keelson.events import Actor, Ids
from keelson.events.ids import AggregateId
from keelson.events.org import Role

Kind = Literal["operator", "member", "principal", "node", "enrollment", "nobody"]


class Identity(msgspec.Struct, frozen=True):
    """Who a request is from: what its credential says by itself, and never changes.

    `holder_id` is the aggregate that says whether the credential is good and what it may: the organisation of a member,
    the principal, the node. The operator of the settings has none, and neither has nobody.
    """

    actor: Actor
    kind: Kind
    credential_id: str = ""
    holder_id: AggregateId = AggregateId("")


class Grants(msgspec.Struct, frozen=True, kw_only=True):
    """What an actor may."""

    operator: bool = False
    org_id: str | None = None
    node_id: str | None = None
    # The node that a machine may enrol as: it is seen, and nothing else can be done with it.
    enrolls: str | None = None
    member_id: str | None = None
    role: Role | None = None
    scopes: frozenset[str] = frozenset()
    # Whether it may give `*` to others: an owner, or a principal that has it.
    everything: bool = False

    def allows(self, *scopes: str) -> bool:
        """Whether it has all these scopes, within its organisation."""
        return self.operator or self.scopes.issuperset(scopes)

    def sees(self, ids: Ids) -> bool:
        """Whether something of these ids is of its organisation, or is on its node."""
        return (
            self.operator
            or (self.org_id is not None and ids.org_id == self.org_id)
            or (self.node_id is not None and ids.node_id == self.node_id)
            or (self.enrolls is not None and ids == Ids(node_id=self.enrolls))
        )

    @property
    def sees_emails(self) -> bool:
        """Whether it is told the e-mails of members: who may change members is."""
        return self.allows("members:write")

    def covers(self, scopes: tuple[str, ...]) -> bool:
        """Whether it may give a principal these scopes: no more than it has itself, `*` only by an owner or by `*`."""
        if self.operator:
            return True
        if OPERATOR in scopes:
            return False
        if EVERYTHING in scopes:
            return self.everything
        return self.scopes.issuperset(expand(scopes))

    def covers_role(self, role: Role) -> bool:
        """Whether it may give somebody this role, or act on somebody who has it: only owners make or unmake owners."""
        if self.operator:
            return True
        if role == "owner":
            return self.role == "owner"
        return self.scopes.issuperset(SCOPES_OF_ROLE[role])


NOTHING = Grants()


def grants_of(identity: Identity, access: Access | None, ids: Ids | None, now: datetime) -> Grants | None:
    """Give what an identity may, given the fold of its holder (None if there is no such aggregate) and its ids.

    None if the credential is not good: revoked, expired, of a removed member, a deleted principal, a removed node.
    """
    if identity.kind == "operator":
        return Grants(operator=True)
    if identity.kind == "nobody":
        return NOTHING
    if access is None or ids is None:
        return None
    match access:
        case OrgAccess():
            return _grants_of_member(identity, access, ids, now)
        case PrincipalAccess():
            return _grants_of_principal(identity, access, ids, now)
        case NodeAccess():
            return _grants_of_node(identity, access, ids, now)
        case _:
            assert_never(access)


def expiry_of(identity: Identity, access: Access | None) -> datetime | None:
    """Give when an identity's credential expires, given the fold of its holder; None if it does not, or is not good."""
    match access:
        case OrgAccess(members=members):
            member = members.get(identity.actor.id)
            return member.credentials.get(identity.credential_id) if member is not None else None
        case PrincipalAccess(credentials=credentials):
            return credentials.get(identity.credential_id)
        case NodeAccess(credentials=credentials, enrollment=enrollment):
            return (enrollment if identity.kind == "enrollment" else credentials).get(identity.credential_id)
        case None:
            return None
        case _:
            assert_never(access)


def _grants_of_member(identity: Identity, access: OrgAccess, ids: Ids, now: datetime) -> Grants | None:
    member = access.members.get(identity.actor.id)
    if member is None or not _is_good(identity, member.credentials, now):
        return None
    return Grants(
        org_id=ids.org_id,
        member_id=identity.actor.id,
        role=member.role,
        scopes=SCOPES_OF_ROLE[member.role],
        everything=member.role == "owner",
    )


def _grants_of_principal(identity: Identity, access: PrincipalAccess, ids: Ids, now: datetime) -> Grants | None:
    if not _is_good(identity, access.credentials, now):
        return None
    if ids.org_id is None:
        return Grants(operator=OPERATOR in access.scopes)
    everything = EVERYTHING in access.scopes
    return Grants(org_id=ids.org_id, scopes=expand(access.scopes), everything=everything)


def _grants_of_node(identity: Identity, access: NodeAccess, ids: Ids, now: datetime) -> Grants | None:
    if identity.kind == "enrollment":
        return Grants(enrolls=ids.node_id) if _is_good(identity, access.enrollment, now) else None
    return Grants(node_id=ids.node_id) if _is_good(identity, access.credentials, now) else None


def _is_good(identity: Identity, live: Credentials, now: datetime) -> bool:
    if identity.credential_id not in live:
        return False
    expires_at = live[identity.credential_id]
    return expires_at is None or now < expires_at
