"""Apps."""

from typing import ClassVar

import msgspec

from keelson.command.domain.project import Project
from keelson.command.domain.quota import limit_count
from keelson.command.fields import AppId, Name, ProjectId
from keelson.command.handlers import Command, Handler
from keelson.command.refusal import Refusal
from keelson.command.state import State
from keelson.command.transaction import Transaction
from keelson.events import Event
from keelson.events.app import AppCreated, AppDeleted, AppRenamed
from keelson.events.env import names_in as env_names_in


class App(State, frozen=True, kw_only=True):
    """An app."""

    aggregate_type: ClassVar[str] = "app"
    noun: ClassVar[str] = "app"

    name: str

    @classmethod
    def evolve(cls, state: "App | None", event: Event) -> "App":
        """Give the state after an event."""
        match state, event:
            case None, AppCreated(name=name):
                return cls(name=name)
            case App(), AppRenamed(name=name):
                return msgspec.structs.replace(state, name=name)
            case App(), AppDeleted():
                return msgspec.structs.replace(state, deleted=True)
            case _:
                raise TypeError(f"not an event of this app: {event.event_type}")


class CreateApp(Command, frozen=True, kw_only=True):
    """Create an app; its name is unique in the project."""

    project_id: ProjectId
    name: Name
    app_id: AppId | None = None


class RenameApp(Command, frozen=True, kw_only=True):
    """Rename an app; its old name is free at once."""

    app_id: AppId
    name: Name


class DeleteApp(Command, frozen=True, kw_only=True):
    """Delete an app that has no environments; its name is free at once."""

    app_id: AppId


class AppResult(msgspec.Struct, frozen=True):
    """Which app."""

    app_id: str


async def create_app(tx: Transaction, command: CreateApp) -> AppResult:
    """Create it, in a live project of an organisation that may have one more."""
    project = await tx.get(Project, command.project_id)
    app_id = await tx.new_id(App, command.app_id)
    ids = msgspec.structs.replace(project.ids, app_id=app_id)
    await limit_count(tx, ids.org_id, "apps")
    tx.create(App, app_id, ids, AppCreated(name=command.name))
    return AppResult(app_id)


async def rename_app(tx: Transaction, command: RenameApp) -> AppResult:
    """Rename it, unless that is its name."""
    app = await tx.get(App, command.app_id)
    if app.state.name != command.name:
        tx.append(app, AppRenamed(name=command.name))
    return AppResult(app.id)


async def delete_app(tx: Transaction, command: DeleteApp) -> AppResult:
    """Delete it, unless it has environments."""
    app = await tx.get(App, command.app_id)
    if await tx.held(env_names_in(app.id)):
        raise Refusal("in_use", f"the app {app.id} still has environments")
    tx.append(app, AppDeleted())
    return AppResult(app.id)


HANDLERS = (
    Handler(name="app.create", command=CreateApp, handle=create_app, result=AppResult),
    Handler(name="app.rename", command=RenameApp, handle=rename_app, result=AppResult, target="app_id"),
    Handler(
        name="app.delete",
        command=DeleteApp,
        handle=delete_app,
        result=AppResult,
        target="app_id",
        needs_reason=True,
    ),
)
