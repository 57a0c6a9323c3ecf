"""Who holds credentials, folded: members in their organisation, principals, nodes.

Each fold takes every event of its aggregate and keeps what decides whether a credential is good and what it may.
"""

from datetime import datetime
from typing import Self, TypeVar

import msgspec
from msgspec.structs import replace

from keelson.events import Event
from keelson.events.node import NodeEnrolled, NodeEnrollmentCreated, NodeRemoved
from keelson.events.org import (
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

V = TypeVar("V")

# Live credentials by their ids, each with the time from which on it is good no more; None is never.
Credentials = dict[str, datetime | None]


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A person's membership of an organisation."""

    person_id: str
    role: Role
    credentials: Credentials = {}


class OrgAccess(msgspec.Struct, frozen=True):
    """An organisation's members, by their ids."""

    members: dict[str, Member] = {}

    def evolve(self, event: Event) -> Self:
        """Give it after an event of the organisation, of whatever kind."""
        match event:
            case OrgMemberAdded(member_id=member_id, person_id=person_id, role=role):
                return self._with(member_id, Member(person_id=person_id, role=role))
            case OrgMemberRoleChanged(member_id=member_id, role=role):
                return self._with(member_id, replace(self.members[member_id], role=role))
            case OrgMemberRemoved(member_id=member_id) | OrgMemberErased(member_id=member_id):
                return replace(self, members=_without(self.members, member_id))
            case OrgCredentialIssued(member_id=member_id, credential_id=credential_id, expires_at=expires_at):
                member = self.members[member_id]
                issued = {**member.credentials, credential_id: expires_at}
                return self._with(member_id, replace(member, credentials=issued))
            case OrgCredentialRevoked(member_id=member_id, credential_id=credential_id):
                member = self.members[member_id]
                return self._with(member_id, replace(member, credentials=_without(member.credentials, credential_id)))
        return self

    def _with(self, member_id: str, member: Member) -> Self:
        return replace(self, members={**self.members, member_id: member})


class PrincipalAccess(msgspec.Struct, frozen=True):
    """What a principal may, and by which credentials."""

    scopes: tuple[str, ...] = ()
    credentials: Credentials = {}

    def evolve(self, event: Event) -> Self:
        """Give it after an event of the principal; a deleted one has no credentials."""
        match event:
            case PrincipalCreated(scopes=scopes) | PrincipalScopesSet(scopes=scopes):
                return replace(self, scopes=scopes)
            case PrincipalCredentialIssued(credential_id=credential_id, expires_at=expires_at):
                return replace(self, credentials={**self.credentials, credential_id: expires_at})
            case PrincipalCredentialRevoked(credential_id=credential_id):
                return replace(self, credentials=_without(self.credentials, credential_id))
            case PrincipalDeleted():
                return replace(self, credentials={})
        return self


class NodeAccess(msgspec.Struct, frozen=True):
    """By which credential a node acts, and by which one its machine may enrol, once."""

    credentials: Credentials = {}
    enrollment: Credentials = {}

    def evolve(self, event: Event) -> Self:
        """Give it after an event of the node."""
        match event:
            case NodeEnrollmentCreated(credential_id=credential_id, expires_at=expires_at):
                return replace(self, enrollment={credential_id: expires_at})
            case NodeEnrolled(credential_id=credential_id):
                return replace(self, credentials={credential_id: None}, enrollment={})
            case NodeRemoved():
                return replace(self, credentials={}, enrollment={})
        return self


Access = OrgAccess | PrincipalAccess | NodeAccess


def _without(items: dict[str, V], key: str) -> dict[str, V]:
    return {name: value for name, value in items.items() if name != key}
