"""Projects."""

from typing import ClassVar

import msgspec

from keelson.command.domain.org import Org
from keelson.command.domain.quota import limit_count
from keelson.command.fields import Name, OrgId, ProjectId
from keelson.command.handlers import Command, Handler
from keelson.command.refusal import Refusal
from keelson.command.state import State
from keelson.command.transaction import Transaction
from keelson.events import Event
from keelson.events.app import names_in as app_names_in
from keelson.events.project import ProjectCreated, ProjectDeleted, ProjectRenamed


class Project(State, frozen=True, kw_only=True):
    """A project."""

    aggregate_type: ClassVar[str] = "project"
    noun: ClassVar[str] = "project"

    name: str

    @classmethod
    def evolve(cls, state: "Project | None", event: Event) -> "Project":
        """Give the state after an event."""
        match state, event:
            case None, ProjectCreated(name=name):
                return cls(name=name)
            case Project(), ProjectRenamed(name=name):
                return msgspec.structs.replace(state, name=name)
            case Project(), ProjectDeleted():
                return msgspec.structs.replace(state, deleted=True)
            case _:
                raise TypeError(f"not an event of this project: {event.event_type}")


class CreateProject(Command, frozen=True, kw_only=True):
    """Create a project; its name is unique in the org."""

    org_id: OrgId
    name: Name
    project_id: ProjectId | None = None


class RenameProject(Command, frozen=True, kw_only=True):
    """Rename a project; its old name is free at once."""

    project_id: ProjectId
    name: Name


class DeleteProject(Command, frozen=True, kw_only=True):
    """Delete a project that has no apps; its name is free at once."""

    project_id: ProjectId


class ProjectResult(msgspec.Struct, frozen=True):
    """Which project."""

    project_id: str


async def create_project(tx: Transaction, command: CreateProject) -> ProjectResult:
    """Create it, in a live org that may have one more."""
    org = await tx.get(Org, command.org_id)
    project_id = await tx.new_id(Project, command.project_id)
    ids = msgspec.structs.replace(org.ids, project_id=project_id)
    await limit_count(tx, org.id, "projects")
    tx.create(Project, project_id, ids, ProjectCreated(name=command.name))
    return ProjectResult(project_id)


async def rename_project(tx: Transaction, command: RenameProject) -> ProjectResult:
    """Rename it, unless that is its name."""
    project = await tx.get(Project, command.project_id)
    if project.state.name != command.name:
        tx.append(project, ProjectRenamed(name=command.name))
    return ProjectResult(project.id)


async def delete_project(tx: Transaction, command: DeleteProject) -> ProjectResult:
    """Delete it, unless it has apps."""
    project = await tx.get(Project, command.project_id)
    if await tx.held(app_names_in(project.id)):
        raise Refusal("in_use", f"the project {project.id} still has apps")
    tx.append(project, ProjectDeleted())
    return ProjectResult(project.id)


HANDLERS = (
    Handler(name="project.create", command=CreateProject, handle=create_project, result=ProjectResult),
    Handler(
        name="project.rename", command=RenameProject, handle=rename_project, result=ProjectResult, target="project_id"
    ),
    Handler(
        name="project.delete",
        command=DeleteProject,
        handle=delete_project,
        result=ProjectResult,
        target="project_id",
        needs_reason=True,
    ),
)
