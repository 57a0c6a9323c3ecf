"""The projection `tenancy`: who there is."""

from collections.abc import Iterator
from datetime import datetime

import msgspec

from keelson.events import Envelope
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
    Role,
)
from keelson.events.principal import (
    PrincipalCreated,
    PrincipalCredentialIssued,
    PrincipalCredentialRevoked,
    PrincipalDeleted,
    PrincipalScopesSet,
)
from keelson.events.project import ProjectCreated, ProjectDeleted, ProjectRenamed
from keelson.views.changes import Change, patch, put
from keelson.views.projection import Projection
from keelson.views.table import Row, Table


class OrgRow(Row, frozen=True, kw_only=True):
    """An organisation; `quota` is how much it may have at most, of what is limited."""

    id: str
    name: str
    quota: Quota = msgspec.field(default_factory=Quota)


class MemberRow(Row, frozen=True, kw_only=True):
    """A person's membership of an organisation; `resource_version` is the organisation's seq.

    Who the person is stands in the vault alone, so that it can be erased: it is joined when it is read.
    """

    id: str
    org_id: str
    person_id: str
    role: Role
    erased: bool = False
    deleted_at: datetime | None = None


class PrincipalRow(Row, frozen=True, kw_only=True):
    """A program that acts in an organisation, or without one on the platform."""

    id: str
    org_id: str | None
    name: str
    scopes: tuple[str, ...]
    deleted_at: datetime | None = None


class CredentialRow(Row, frozen=True, kw_only=True):
    """A credential of a member or a principal; `resource_version` is the seq of the aggregate that issued it.

    One that was not revoked ends with its holder all the same: with the membership, or with the principal.
    """

    credential_id: str
    holder_id: str
    org_id: str | None
    issued_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None = None


class ProjectRow(Row, frozen=True, kw_only=True):
    """A project of an organisation."""

    id: str
    org_id: str
    name: str
    deleted_at: datetime | None = None


ORGS = Table(name="orgs", row=OrgRow, indexes=(("name",),), aggregate="org", collection=True)
PROJECTS = Table(name="projects", row=ProjectRow, indexes=(("org_id", "id"),), aggregate="project", collection=True)
MEMBERS = Table(
    name="members",
    row=MemberRow,
    indexes=(("org_id", "id"), ("person_id", "id")),
    collection=True,
)
PRINCIPALS = Table(
    name="principals",
    row=PrincipalRow,
    indexes=(("org_id", "id"),),
    aggregate="principal",
    collection=True,
)
CREDENTIALS = Table(
    name="credentials",
    row=CredentialRow,
    key=("credential_id",),
    indexes=(("holder_id", "credential_id"),),
)

TENANCY = Projection("tenancy", version=2, tables=(ORGS, PROJECTS, MEMBERS, PRINCIPALS, CREDENTIALS))


@TENANCY.on(OrgCreated)
def org_created(envelope: Envelope, event: OrgCreated) -> Iterator[Change]:
    """Begin the organisation's row."""
    yield put(ORGS, id=envelope.aggregate_id, name=event.name)


@TENANCY.on(OrgRenamed)
def org_renamed(envelope: Envelope, event: OrgRenamed) -> Iterator[Change]:
    """Change its name."""
    yield patch(ORGS, envelope.aggregate_id, name=event.name)


@TENANCY.on(OrgQuotaSet)
def org_quota_set(envelope: Envelope, event: OrgQuotaSet) -> Iterator[Change]:
    """Exchange its quota."""
    yield patch(ORGS, envelope.aggregate_id, quota=event.quota)


@TENANCY.on(OrgMemberAdded)
def member_added(envelope: Envelope, event: OrgMemberAdded) -> Iterator[Change]:
    """Begin the member's row."""
    yield put(
        MEMBERS,
        id=event.member_id,
        org_id=envelope.org_id,
        person_id=event.person_id,
        role=event.role,
    )


@TENANCY.on(OrgMemberRoleChanged)
def member_role_changed(envelope: Envelope, event: OrgMemberRoleChanged) -> Iterator[Change]:  # noqa: ARG001
    """Change the role."""
    yield patch(MEMBERS, event.member_id, role=event.role)


@TENANCY.on(OrgMemberRemoved)
def member_removed(envelope: Envelope, event: OrgMemberRemoved) -> Iterator[Change]:
    """Say when the membership ended."""
    yield patch(MEMBERS, event.member_id, deleted_at=envelope.recorded_at)


@TENANCY.on(OrgMemberErased)
def member_erased(envelope: Envelope, event: OrgMemberErased) -> Iterator[Change]:  # noqa: ARG001 - no more to say
    """Say that nobody knows any more who it was; that the membership ended was said by org.member_removed."""
    yield patch(MEMBERS, event.member_id, erased=True)


@TENANCY.on(OrgCredentialIssued)
def member_credential_issued(envelope: Envelope, event: OrgCredentialIssued) -> Iterator[Change]:
    """Begin the row of a member's credential."""
    yield _issued(envelope, event.member_id, event.credential_id, event.expires_at)


@TENANCY.on(OrgCredentialRevoked)
def member_credential_revoked(envelope: Envelope, event: OrgCredentialRevoked) -> Iterator[Change]:
    """Say when it was revoked."""
    yield patch(CREDENTIALS, event.credential_id, revoked_at=envelope.recorded_at)


@TENANCY.on(PrincipalCreated)
def principal_created(envelope: Envelope, event: PrincipalCreated) -> Iterator[Change]:
    """Begin the principal's row."""
    yield put(
        PRINCIPALS,
        id=envelope.aggregate_id,
        org_id=envelope.org_id,
        name=event.name,
        scopes=event.scopes,
    )


@TENANCY.on(PrincipalScopesSet)
def principal_scopes_set(envelope: Envelope, event: PrincipalScopesSet) -> Iterator[Change]:
    """Exchange its scopes."""
    yield patch(PRINCIPALS, envelope.aggregate_id, scopes=event.scopes)


@TENANCY.on(PrincipalCredentialIssued)
def principal_credential_issued(envelope: Envelope, event: PrincipalCredentialIssued) -> Iterator[Change]:
    """Begin the row of a principal's credential."""
    yield _issued(envelope, envelope.aggregate_id, event.credential_id, event.expires_at)


@TENANCY.on(PrincipalCredentialRevoked)
def principal_credential_revoked(envelope: Envelope, event: PrincipalCredentialRevoked) -> Iterator[Change]:
    """Say when it was revoked."""
    yield patch(CREDENTIALS, event.credential_id, revoked_at=envelope.recorded_at)


@TENANCY.on(PrincipalDeleted)
def principal_deleted(envelope: Envelope, event: PrincipalDeleted) -> Iterator[Change]:  # noqa: ARG001 - no more to say
    """Say when it was deleted."""
    yield patch(PRINCIPALS, envelope.aggregate_id, deleted_at=envelope.recorded_at)


@TENANCY.on(ProjectCreated)
def project_created(envelope: Envelope, event: ProjectCreated) -> Iterator[Change]:
    """Begin the project's row."""
    yield put(PROJECTS, id=envelope.aggregate_id, org_id=envelope.org_id, name=event.name)


@TENANCY.on(ProjectRenamed)
def project_renamed(envelope: Envelope, event: ProjectRenamed) -> Iterator[Change]:
    """Change its name."""
    yield patch(PROJECTS, envelope.aggregate_id, name=event.name)


@TENANCY.on(ProjectDeleted)
def project_deleted(envelope: Envelope, event: ProjectDeleted) -> Iterator[Change]:  # noqa: ARG001 - says nothing more
    """Say when it was deleted."""
    yield patch(PROJECTS, envelope.aggregate_id, deleted_at=envelope.recorded_at)


def _issued(envelope: Envelope, holder_id: str, credential_id: str, expires_at: datetime | None) -> Change:
    return put(
        CREDENTIALS,
        credential_id=credential_id,
        holder_id=holder_id,
        org_id=envelope.org_id,
        issued_at=envelope.recorded_at,
        expires_at=expires_at,
    )
