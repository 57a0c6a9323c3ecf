"""Organisations."""

from typing import ClassVar

import msgspec

from keelson.command.fields import Name, OrgId
from keelson.command.handlers import Command, Handler
from keelson.command.state import State
from keelson.command.transaction import Transaction
from keelson.events import Event, Ids
from keelson.events.org import OrgCreated, OrgQuotaSet, OrgRenamed, Quota


class Org(State, frozen=True, kw_only=True):
    """An organisation."""

    aggregate_type: ClassVar[str] = "org"
    noun: ClassVar[str] = "organisation"

    name: str
    quota: Quota = Quota()

    @classmethod
    def evolve(cls, state: "Org | None", event: Event) -> "Org":
        """Give the state after an event."""
        match state, event:
            case None, OrgCreated(name=name):
                return cls(name=name)
            case Org(), OrgRenamed(name=name):
                return msgspec.structs.replace(state, name=name)
            case Org(), OrgQuotaSet(quota=quota):
                return msgspec.structs.replace(state, quota=quota)
            case _:
                raise TypeError(f"not an event of this organisation: {event.event_type}")


class CreateOrg(Command, frozen=True, kw_only=True):
    """Create an organisation; its name is unique on the platform."""

    name: Name
    org_id: OrgId | None = None


class RenameOrg(Command, frozen=True, kw_only=True):
    """Rename an organisation; its old name is free at once."""

    org_id: OrgId
    name: Name


class OrgResult(msgspec.Struct, frozen=True):
    """Which organisation."""

    org_id: str


async def create_org(tx: Transaction, command: CreateOrg) -> OrgResult:
    """Create it."""
    org_id = await tx.new_id(Org, command.org_id)
    tx.create(Org, org_id, Ids(org_id=org_id), OrgCreated(name=command.name))
    return OrgResult(org_id)


async def rename_org(tx: Transaction, command: RenameOrg) -> OrgResult:
    """Rename it, unless that is its name."""
    org = await tx.get(Org, command.org_id)
    if org.state.name != command.name:
        tx.append(org, OrgRenamed(name=command.name))
    return OrgResult(org.id)


HANDLERS = (
    Handler(name="org.create", command=CreateOrg, handle=create_org, result=OrgResult, not_built=("owner_email",)),
    Handler(name="org.rename", command=RenameOrg, handle=rename_org, result=OrgResult, target="org_id"),
)
