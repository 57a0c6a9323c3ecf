"""Service principals: programs that act in an organisation, or as operators of the whole platform."""

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from keelson.access import PrincipalAccess
from keelson.access.scopes import OPERATOR
from keelson.command.domain.credentials import CredentialResult, IssuedResult, future_expiry
from keelson.command.domain.org import Org
from keelson.command.fields import CredentialId, Name, OrgId, PrincipalId, Scope, Time
from keelson.command.handlers import Command, Handler
from keelson.command.refusal import Denial, Refusal, not_found
from keelson.command.state import State
from keelson.command.transaction import Transaction
from keelson.events import Event, Ids
from keelson.events.principal import (
    PrincipalCreated,
    PrincipalCredentialIssued,
    PrincipalCredentialRevoked,
    PrincipalDeleted,
    PrincipalScopesSet,
)

Scopes = Annotated[list[Scope], Meta(min_length=1, max_length=100)]


class Principal(State, frozen=True, kw_only=True):
    """A service principal; `access` has its scopes and its live credentials."""

    aggregate_type: ClassVar[str] = "principal"
    noun: ClassVar[str] = "principal"

    name: str
    access: PrincipalAccess

    @classmethod
    def evolve(cls, state: "Principal | None", event: Event) -> "Principal":
        """Give the state after an event."""
        match state, event:
            case None, PrincipalCreated(name=name):
                return cls(name=name, access=PrincipalAccess().evolve(event))
            case Principal(), PrincipalScopesSet() | PrincipalCredentialIssued() | PrincipalCredentialRevoked():
                return replace(state, access=state.access.evolve(event))
            case Principal(), PrincipalDeleted():
                return replace(state, access=state.access.evolve(event), deleted=True)
            case _:
                raise TypeError(f"not an event of this principal: {event.event_type}")


class CreatePrincipal(Command, frozen=True, kw_only=True):
    """Create a principal with no more scopes than its maker, its name unique in the org; without org, an operator."""

    org_id: OrgId | None = None
    name: Name
    scopes: Scopes
    principal_id: PrincipalId | None = None


class SetPrincipalScopes(Command, frozen=True, kw_only=True):
    """Set what a principal may do, the whole of it: no more than whoever sets it."""

    principal_id: PrincipalId
    scopes: Scopes


class IssuePrincipalCredential(Command, frozen=True, kw_only=True):
    """Give a principal one more credential; its token is shown once, and those that it has stay good."""

    principal_id: PrincipalId
    expires_at: Time | None = None


class RevokePrincipalCredential(Command, frozen=True, kw_only=True):
    """End a credential of a principal at once."""

    principal_id: PrincipalId
    credential_id: CredentialId


class DeletePrincipal(Command, frozen=True, kw_only=True):
    """Delete a principal, with all its credentials; its name is free at once."""

    principal_id: PrincipalId


class PrincipalResult(msgspec.Struct, frozen=True):
    """Which principal."""

    principal_id: str


async def create_principal(tx: Transaction, command: CreatePrincipal) -> PrincipalResult:
    """Create it, in a live org or on the platform."""
    ids = (await tx.get(Org, command.org_id)).ids if command.org_id is not None else Ids()
    principal_id = await tx.new_id(Principal, command.principal_id)
    scopes = _fitting(ids, command.scopes)
    _require_cover(tx, scopes)
    tx.create(Principal, principal_id, ids, PrincipalCreated(name=command.name, scopes=scopes))
    return PrincipalResult(principal_id)


async def set_principal_scopes(tx: Transaction, command: SetPrincipalScopes) -> PrincipalResult:
    """Set them, unless they are so."""
    principal = await tx.get(Principal, command.principal_id)
    scopes = _fitting(principal.ids, command.scopes)
    _require_cover(tx, principal.state.access.scopes)
    _require_cover(tx, scopes)
    if principal.state.access.scopes != scopes:
        tx.append(principal, PrincipalScopesSet(scopes=scopes))
    return PrincipalResult(principal.id)


async def issue_principal_credential(tx: Transaction, command: IssuePrincipalCredential) -> IssuedResult:
    """Issue it. Who may issue one acts with the principal's scopes by it, and so must have as much."""
    principal = await tx.get(Principal, command.principal_id)
    _require_cover(tx, principal.state.access.scopes)
    expires_at = future_expiry(tx, command.expires_at)
    credential_id = tx.mint("credential")
    tx.append(principal, PrincipalCredentialIssued(credential_id=credential_id, expires_at=expires_at))
    return IssuedResult(credential_id, tx.issue_credential(credential_id, "principal", principal.id, principal.id))


async def revoke_principal_credential(tx: Transaction, command: RevokePrincipalCredential) -> CredentialResult:
    """Revoke it, and remove its hash."""
    principal = await tx.get(Principal, command.principal_id)
    _require_cover(tx, principal.state.access.scopes)
    if command.credential_id not in principal.state.access.credentials:
        raise not_found("credential", command.credential_id)
    tx.append(principal, PrincipalCredentialRevoked(credential_id=command.credential_id))
    tx.revoke_credential(command.credential_id)
    return CredentialResult(command.credential_id)


async def delete_principal(tx: Transaction, command: DeletePrincipal) -> PrincipalResult:
    """Delete it, and remove the hashes of its credentials."""
    principal = await tx.get(Principal, command.principal_id)
    _require_cover(tx, principal.state.access.scopes)
    for credential_id in principal.state.access.credentials:
        tx.revoke_credential(credential_id)
    tx.append(principal, PrincipalDeleted())
    return PrincipalResult(principal.id)


def _fitting(ids: Ids, scopes: list[str]) -> tuple[str, ...]:
    """Give the scopes as events have them, each once; `operator` is the platform's alone, and all it has."""
    if (scopes == [OPERATOR]) is not (ids.org_id is None) or (OPERATOR in scopes and len(scopes) > 1):
        raise Refusal("wrong_scope", "operator is the only scope of the platform's principals, and of no others")
    return tuple(sorted(set(scopes)))


def _require_cover(tx: Transaction, scopes: tuple[str, ...]) -> None:
    """Refuse to give scopes, or to act on a principal that has them, to whoever has less."""
    if not tx.grants.covers(scopes):
        raise Denial("forbidden", "a principal has no more scopes than who makes it, changes it or acts on it")


HANDLERS = (
    Handler(name="principal.create", command=CreatePrincipal, handle=create_principal, result=PrincipalResult),
    Handler(
        name="principal.set_scopes",
        command=SetPrincipalScopes,
        handle=set_principal_scopes,
        result=PrincipalResult,
        target="principal_id",
    ),
    Handler(
        name="principal.issue_credential",
        command=IssuePrincipalCredential,
        handle=issue_principal_credential,
        result=IssuedResult,
        target="principal_id",
    ),
    Handler(
        name="principal.revoke_credential",
        command=RevokePrincipalCredential,
        handle=revoke_principal_credential,
        result=CredentialResult,
        target="principal_id",
    ),
    Handler(
        name="principal.delete",
        command=DeletePrincipal,
        handle=delete_principal,
        result=PrincipalResult,
        target="principal_id",
        needs_reason=True,
    ),
)
