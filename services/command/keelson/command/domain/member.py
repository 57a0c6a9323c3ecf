"""Members of organisations and their credentials. All of it is the organisation's own state, and so its seq."""

import msgspec

from keelson.access.holders import Member
from keelson.command.domain.credentials import CredentialResult, IssuedResult, future_expiry
from keelson.command.domain.org import Org
from keelson.command.domain.people import known_person
from keelson.command.fields import CredentialId, Email, MemberId, OrgId, PersonName, Time
from keelson.command.handlers import Command, Handler
from keelson.command.refusal import Denial, Refusal, not_found
from keelson.command.state import Aggregate
from keelson.command.transaction import Transaction
from keelson.events.org import (
    OrgCredentialIssued,
    OrgCredentialRevoked,
    OrgMemberAdded,
    OrgMemberErased,
    OrgMemberRemoved,
    OrgMemberRoleChanged,
    Role,
)


class AddMember(Command, frozen=True, kw_only=True):
    """Make a person a member; only owners make owners. The name is kept of a person who is new to the platform."""

    org_id: OrgId
    email: Email
    role: Role
    name: PersonName | None = None


class ChangeMemberRole(Command, frozen=True, kw_only=True):
    """Give a member another role; only owners make or unmake owners, and never the last one."""

    org_id: OrgId
    member_id: MemberId
    role: Role


class RemoveMember(Command, frozen=True, kw_only=True):
    """End a membership, with all its credentials; a member may leave by itself, the last owner may not."""

    org_id: OrgId
    member_id: MemberId


class EraseMember(Command, frozen=True, kw_only=True):
    """Erase who a member is, or was, from the whole platform, and end the membership.

    The person's memberships of other organisations stay, without e-mail and name.
    """

    org_id: OrgId
    member_id: MemberId


class IssueMemberCredential(Command, frozen=True, kw_only=True):
    """Give a member one more credential; its token is shown once."""

    org_id: OrgId
    member_id: MemberId
    expires_at: Time | None = None


class RevokeMemberCredential(Command, frozen=True, kw_only=True):
    """End a credential of a member at once."""

    org_id: OrgId
    member_id: MemberId
    credential_id: CredentialId


class MemberResult(msgspec.Struct, frozen=True):
    """Which member."""

    member_id: str


async def add_member(tx: Transaction, command: AddMember) -> MemberResult:
    """Add the person, who is a member no more than once."""
    org = await tx.get(Org, command.org_id)
    _require_cover(tx, command.role)
    person_id = await known_person(tx, command.email, command.name)
    for member_id, member in org.state.access.members.items():
        if member.person_id == person_id:
            raise Refusal("name_taken", f"the person is a member already: {member_id}")
    added = OrgMemberAdded(member_id=tx.mint("member"), person_id=person_id, role=command.role)
    tx.append(org, added)
    return MemberResult(added.member_id)


async def change_member_role(tx: Transaction, command: ChangeMemberRole) -> MemberResult:
    """Change the role, unless it is so."""
    org, member = await _get_member(tx, command.org_id, command.member_id)
    _require_cover(tx, member.role)
    _require_cover(tx, command.role)
    if member.role != command.role:
        _require_another_owner(org, command.member_id)
        tx.append(org, OrgMemberRoleChanged(member_id=command.member_id, role=command.role))
    return MemberResult(command.member_id)


async def remove_member(tx: Transaction, command: RemoveMember) -> MemberResult:
    """Remove the member, and the hashes of its credentials with it."""
    org, member = await _get_member(tx, command.org_id, command.member_id)
    _require_cover(tx, member.role)
    _remove(tx, org, command.member_id)
    return MemberResult(command.member_id)


async def erase_member(tx: Transaction, command: EraseMember) -> MemberResult:
    """Erase the person, also one whose membership has ended, until nobody knows any more who it was."""
    org = await tx.get(Org, command.org_id)
    member = org.state.access.members.get(command.member_id)
    person_id = member.person_id if member else org.state.former.get(command.member_id)
    if person_id is None:
        raise not_found("member", command.member_id)
    if member:
        org = _remove(tx, org, command.member_id)
    tx.append(org, OrgMemberErased(member_id=command.member_id))
    tx.erase_person(person_id)
    return MemberResult(command.member_id)


async def issue_member_credential(tx: Transaction, command: IssueMemberCredential) -> IssuedResult:
    """Issue it. Who may issue one for a member acts with the member's role by it, and so must have as much."""
    org, member = await _get_member(tx, command.org_id, command.member_id)
    _require_cover(tx, member.role)
    expires_at = future_expiry(tx, command.expires_at)
    credential_id = tx.mint("credential")
    issued = OrgCredentialIssued(member_id=command.member_id, credential_id=credential_id, expires_at=expires_at)
    tx.append(org, issued)
    return IssuedResult(credential_id, tx.issue_credential(credential_id, "member", org.id, command.member_id))


async def revoke_member_credential(tx: Transaction, command: RevokeMemberCredential) -> CredentialResult:
    """Revoke it, and remove its hash."""
    org, member = await _get_member(tx, command.org_id, command.member_id)
    _require_cover(tx, member.role)
    if command.credential_id not in member.credentials:
        raise not_found("credential", command.credential_id)
    tx.append(org, OrgCredentialRevoked(member_id=command.member_id, credential_id=command.credential_id))
    tx.revoke_credential(command.credential_id)
    return CredentialResult(command.credential_id)


async def _get_member(tx: Transaction, org_id: str, member_id: str) -> tuple[Aggregate[Org], Member]:
    org = await tx.get(Org, org_id)
    member = org.state.access.members.get(member_id)
    if member is None:
        raise not_found("member", member_id)
    return org, member


def _remove(tx: Transaction, org: Aggregate[Org], member_id: str) -> Aggregate[Org]:
    _require_another_owner(org, member_id)
    for credential_id in org.state.access.members[member_id].credentials:
        tx.revoke_credential(credential_id)
    return tx.append(org, OrgMemberRemoved(member_id=member_id))


def _require_cover(tx: Transaction, role: Role) -> None:
    """Refuse to act on a role, or to give it, for whoever has less: only owners make, unmake and act on owners."""
    if not tx.grants.covers_role(role):
        raise Denial("forbidden", f"the role {role} is beyond what you may give or act on")


def _require_another_owner(org: Aggregate[Org], member_id: str) -> None:
    """Refuse to take its last owner from an organisation; one that was made without any has none to lose."""
    owners = {each for each, member in org.state.access.members.items() if member.role == "owner"}
    if owners == {member_id}:
        raise Refusal("last_owner", f"{member_id} is the only owner of {org.id}")


HANDLERS = (
    Handler(name="org.add_member", command=AddMember, handle=add_member, result=MemberResult, target="org_id"),
    Handler(
        name="org.change_member_role",
        command=ChangeMemberRole,
        handle=change_member_role,
        result=MemberResult,
        target="org_id",
    ),
    Handler(name="org.remove_member", command=RemoveMember, handle=remove_member, result=MemberResult, target="org_id"),
    Handler(
        name="org.erase_member",
        command=EraseMember,
        handle=erase_member,
        result=MemberResult,
        target="org_id",
        needs_reason=True,
    ),
    Handler(
        name="org.issue_credential",
        command=IssueMemberCredential,
        handle=issue_member_credential,
        result=IssuedResult,
        target="org_id",
    ),
    Handler(
        name="org.revoke_credential",
        command=RevokeMemberCredential,
        handle=revoke_member_credential,
        result=CredentialResult,
        target="org_id",
    ),
)
