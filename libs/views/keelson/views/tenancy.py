"""The projection `tenancy`: who there is."""

from collections.abc import Iterator
from datetime import datetime

from keelson.events import Envelope
from keelson.events.org import OrgCreated, OrgRenamed
from keelson.events.project import ProjectCreated, ProjectDeleted, ProjectRenamed
from keelson.views.changes import Change, patch, put
from keelson.views.projection import Projection
from keelson.views.table import Row, Table


class OrgRow(Row, frozen=True, kw_only=True):
    """An organisation."""

    id: str
    name: str


class ProjectRow(Row, frozen=True, kw_only=True):
    """A project of an organisation."""

    id: str
    org_id: str
    name: str
    deleted_at: datetime | None = None


ORGS = Table(name="orgs", row=OrgRow, indexes=(("name",),), aggregate="org", collection=True)
PROJECTS = Table(name="projects", row=ProjectRow, indexes=(("org_id", "id"),), aggregate="project", collection=True)

TENANCY = Projection("tenancy", version=1, tables=(ORGS, PROJECTS))


@TENANCY.on(OrgCreated)
def org_created(envelope: Envelope, event: OrgCreated) -> Iterator[Change]:
    """Begin the organisation's row."""
    yield put(ORGS, id=envelope.aggregate_id, name=event.name)


@TENANCY.on(OrgRenamed)
def org_renamed(envelope: Envelope, event: OrgRenamed) -> Iterator[Change]:
    """Change its name."""
    yield patch(ORGS, envelope.aggregate_id, name=event.name)


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
