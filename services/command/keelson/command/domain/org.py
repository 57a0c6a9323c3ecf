"""Organisations: who they are, who is in them, and how much they may have. What their members do is in `member`."""

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from keelson.access import OrgAccess
from keelson.command.domain.people import known_person
from keelson.command.fields import Email, Name, OrgId
from keelson.command.handlers import Command, Handler
from keelson.command.state import State
from keelson.command.transaction import Transaction
from keelson.events import Event, Ids
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

Amount = Annotated[int, Meta(ge=0, le=2**53)]


class Org(State, frozen=True, kw_only=True):
    """An organisation; `access` has its members, `former` the persons of those who left and were not erased."""

    aggregate_type: ClassVar[str] = "org"
    noun: ClassVar[str] = "organisation"

    name: str
    quota: Quota = Quota()
    access: OrgAccess = OrgAccess()
    former: dict[str, str] = {}

    @classmethod
    def evolve(cls, state: "Org | None", event: Event) -> "Org":
        """Give the state after an event."""
        match state, event:
            case None, OrgCreated(name=name):
                return cls(name=name)
            case Org(), OrgRenamed(name=name):
                return replace(state, name=name)
            case Org(), OrgQuotaSet(quota=quota):
                return replace(state, quota=quota)
            case Org(), OrgMemberRemoved(member_id=member_id):
                former = {**state.former, member_id: state.access.members[member_id].person_id}
                return replace(state, access=state.access.evolve(event), former=former)
            case Org(), OrgMemberErased(member_id=member_id):
                former = {each: person_id for each, person_id in state.former.items() if each != member_id}
                return replace(state, access=state.access.evolve(event), former=former)
            case Org(), OrgMemberAdded() | OrgMemberRoleChanged() | OrgCredentialIssued() | OrgCredentialRevoked():
                return replace(state, access=state.access.evolve(event))
            case _:
                raise TypeError(f"not an event of this organisation: {event.event_type}")


class CreateOrg(Command, frozen=True, kw_only=True):
    """Create an organisation, with its first owner or for later; its name is unique on the platform."""

    name: Name
    owner_email: Email | None = None
    org_id: OrgId | None = None


class RenameOrg(Command, frozen=True, kw_only=True):
    """Rename an organisation; its old name is free at once."""

    org_id: OrgId
    name: Name


class QuotaFields(Command, frozen=True, kw_only=True):
    """How much an organisation may have at most; what is left out is not limited."""

    projects: Amount | None = None
    apps: Amount | None = None
    envs: Amount | None = None
    instances: Amount | None = None
    memory_bytes: Amount | None = None


class SetOrgQuota(Command, frozen=True, kw_only=True):
    """Set how much an organisation may have, the whole of it; what it has already stays, whatever the quota says."""

    org_id: OrgId
    quota: QuotaFields


class OrgResult(msgspec.Struct, frozen=True):
    """Which organisation."""

    org_id: str


class CreatedOrgResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which organisation, and which member its first owner is, if it has one."""

    org_id: str
    member_id: str | None = None


async def create_org(tx: Transaction, command: CreateOrg) -> CreatedOrgResult:
    """Create it, and make its first owner a member."""
    org_id = await tx.new_id(Org, command.org_id)
    org = tx.create(Org, org_id, Ids(org_id=org_id), OrgCreated(name=command.name))
    if command.owner_email is None:
        return CreatedOrgResult(org_id)
    person_id, member_id = await known_person(tx, command.owner_email), tx.mint("member")
    tx.append(org, OrgMemberAdded(member_id=member_id, person_id=person_id, role="owner"))
    return CreatedOrgResult(org_id, member_id)


async def rename_org(tx: Transaction, command: RenameOrg) -> OrgResult:
    """Rename it, unless that is its name."""
    org = await tx.get(Org, command.org_id)
    if org.state.name != command.name:
        tx.append(org, OrgRenamed(name=command.name))
    return OrgResult(org.id)


async def set_org_quota(tx: Transaction, command: SetOrgQuota) -> OrgResult:
    """Set it, unless it is so."""
    org = await tx.get(Org, command.org_id)
    quota = msgspec.convert(command.quota, Quota, from_attributes=True)
    if org.state.quota != quota:
        tx.append(org, OrgQuotaSet(quota=quota))
    return OrgResult(org.id)


HANDLERS = (
    Handler(name="org.create", command=CreateOrg, handle=create_org, result=CreatedOrgResult),
    Handler(name="org.rename", command=RenameOrg, handle=rename_org, result=OrgResult, target="org_id"),
    Handler(
        name="org.set_quota",
        command=SetOrgQuota,
        handle=set_org_quota,
        result=OrgResult,
        target="org_id",
        needs_reason=True,
    ),
)
