"""The best measure of the architecture: a new aggregate and a new view touch only the places that README.md names.

Both are added to a copy of the source, and the three services run from it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from keelson.client import Client, ProblemError
from support.database import Cluster, Database
from support.repository import CODE, ROOT
from support.stack import Stack, running_stack

EVENTS = '''
"""Events of widgets."""

from typing import ClassVar

from keelson.events.base import ClaimChange, Event, Release, Take
from keelson.events.envelope import Ids


def names_in(project_id: str | None) -> str:
    """Give the scope of the names of a project's widgets."""
    return f"widget.name:{project_id}"


class WidgetCreated(Event, frozen=True):
    """A widget exists from here on."""

    event_type: ClassVar[str] = "widget.created"
    event_version: ClassVar[int] = 1

    name: str

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Take the name in the project."""
        return (Take(names_in(ids.project_id), self.name),)


class WidgetRenamed(Event, frozen=True):
    """The widget has another name; its old one is free."""

    event_type: ClassVar[str] = "widget.renamed"
    event_version: ClassVar[int] = 1

    name: str

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Exchange the name in the project."""
        scope = names_in(ids.project_id)
        return (Release(scope), Take(scope, self.name))


class WidgetDeleted(Event, frozen=True):
    """The widget is gone: unknown to commands, its name free again."""

    event_type: ClassVar[str] = "widget.deleted"
    event_version: ClassVar[int] = 1

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Free the name in the project."""
        return (Release(names_in(ids.project_id)),)
'''

DOMAIN = '''
"""Widgets."""

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from keelson.command.domain.project import Project
from keelson.command.fields import Name, ProjectId
from keelson.command.handlers import Command, Handler
from keelson.command.state import State
from keelson.command.transaction import Transaction
from keelson.events import Event
from keelson.events.ids import id_pattern
from keelson.events.widget import WidgetCreated, WidgetDeleted, WidgetRenamed

WidgetId = Annotated[str, Meta(pattern=id_pattern("widget"))]


class Widget(State, frozen=True, kw_only=True):
    """A widget."""

    aggregate_type: ClassVar[str] = "widget"
    noun: ClassVar[str] = "widget"

    name: str

    @classmethod
    def evolve(cls, state: "Widget | None", event: Event) -> "Widget":
        """Give the state after an event."""
        match state, event:
            case None, WidgetCreated(name=name):
                return cls(name=name)
            case Widget(), WidgetRenamed(name=name):
                return msgspec.structs.replace(state, name=name)
            case Widget(), WidgetDeleted():
                return msgspec.structs.replace(state, deleted=True)
            case _:
                raise TypeError(f"not an event of this widget: {event.event_type}")


class CreateWidget(Command, frozen=True, kw_only=True):
    """Create a widget; its name is unique in the project."""

    project_id: ProjectId
    name: Name
    widget_id: WidgetId | None = None


class RenameWidget(Command, frozen=True, kw_only=True):
    """Rename a widget; its old name is free at once."""

    widget_id: WidgetId
    name: Name


class DeleteWidget(Command, frozen=True, kw_only=True):
    """Delete a widget; its name is free at once."""

    widget_id: WidgetId


class WidgetResult(msgspec.Struct, frozen=True):
    """Which widget."""

    widget_id: str


async def create_widget(tx: Transaction, command: CreateWidget) -> WidgetResult:
    """Create it, in a live project."""
    project = await tx.get(Project, command.project_id)
    widget_id = await tx.new_id(Widget, command.widget_id)
    tx.create(Widget, widget_id, project.ids, WidgetCreated(name=command.name))
    return WidgetResult(widget_id)


async def rename_widget(tx: Transaction, command: RenameWidget) -> WidgetResult:
    """Rename it, unless that is its name."""
    widget = await tx.get(Widget, command.widget_id)
    if widget.state.name != command.name:
        tx.append(widget, WidgetRenamed(name=command.name))
    return WidgetResult(widget.id)


async def delete_widget(tx: Transaction, command: DeleteWidget) -> WidgetResult:
    """Delete it."""
    widget = await tx.get(Widget, command.widget_id)
    tx.append(widget, WidgetDeleted())
    return WidgetResult(widget.id)


HANDLERS = (
    Handler(name="widget.create", command=CreateWidget, handle=create_widget, result=WidgetResult),
    Handler(
        name="widget.rename", command=RenameWidget, handle=rename_widget, result=WidgetResult, target="widget_id"
    ),
    Handler(
        name="widget.delete",
        command=DeleteWidget,
        handle=delete_widget,
        result=WidgetResult,
        target="widget_id",
        needs_reason=True,
    ),
)
'''

VIEW = '''
"""The projection `widgets`."""

from collections.abc import Iterator
from datetime import datetime

from keelson.events import Envelope
from keelson.events.widget import WidgetCreated, WidgetDeleted, WidgetRenamed
from keelson.views.changes import Change, patch, put
from keelson.views.projection import Projection
from keelson.views.table import Row, Table


class WidgetRow(Row, frozen=True, kw_only=True):
    """A widget of a project."""

    id: str
    org_id: str
    project_id: str
    name: str
    deleted_at: datetime | None = None


TABLE = Table(name="widgets", row=WidgetRow, indexes=(("project_id", "id"),), aggregate="widget", collection=True)

WIDGETS = Projection("widgets", version=1, tables=(TABLE,))


@WIDGETS.on(WidgetCreated)
def widget_created(envelope: Envelope, event: WidgetCreated) -> Iterator[Change]:
    """Begin the widget's row."""
    ids = envelope.ids
    yield put(TABLE, id=envelope.aggregate_id, org_id=ids.org_id, project_id=ids.project_id, name=event.name)


@WIDGETS.on(WidgetRenamed)
def widget_renamed(envelope: Envelope, event: WidgetRenamed) -> Iterator[Change]:
    """Change its name."""
    yield patch(TABLE, envelope.aggregate_id, name=event.name)


@WIDGETS.on(WidgetDeleted)
def widget_deleted(envelope: Envelope, event: WidgetDeleted) -> Iterator[Change]:
    """Say when it was deleted."""
    yield patch(TABLE, envelope.aggregate_id, deleted_at=envelope.recorded_at)
'''

SPEC = '''
"""The rules of widgets."""

from keelson.command.domain.widget import CreateWidget, DeleteWidget, RenameWidget
from keelson.events.widget import WidgetCreated, WidgetDeleted, WidgetRenamed
from support.specs import ORG, PROJECT, PROJECT_EXISTS, given, id_of

WIDGET = id_of("widget")
WIDGET_EXISTS = (*PROJECT_EXISTS, (WIDGET, WidgetCreated(name="gear"), {"org_id": ORG, "project_id": PROJECT}))


def test_a_widget_is_created_in_a_project() -> None:
    created = given(*PROJECT_EXISTS).when(CreateWidget(project_id=PROJECT, name="gear", widget_id=WIDGET))
    created.then(WIDGET_EXISTS[-1]).taking((f"widget.name:{PROJECT}", "gear"))


def test_a_widget_is_renamed() -> None:
    given(*WIDGET_EXISTS).when(RenameWidget(widget_id=WIDGET, name="cog")).then((WIDGET, WidgetRenamed(name="cog")))


def test_a_deleted_widget_is_unknown() -> None:
    gone = given(*WIDGET_EXISTS, (WIDGET, WidgetDeleted()))
    gone.when(DeleteWidget(widget_id=WIDGET)).then_refused("not_found")
'''

NEW_MODULES = {
    "libs/events/keelson/events/widget.py": EVENTS,
    "services/command/keelson/command/domain/widget.py": DOMAIN,
    "libs/views/keelson/views/widgets.py": VIEW,
    "tests/unit/command/domain/test_widget.py": SPEC,
}

COMMAND_RIGHTS = """\
    "widget.create": _scope("widgets:write", on="project_id"),
    "widget.rename": _scope("widgets:write", on="widget_id"),
    "widget.delete": _scope("widgets:write", on="widget_id"),
"""
READ_RIGHTS = """\
    "/v1/widgets": ReadRight(scope="widgets:read"),
    "/v1/widgets/{id}": ReadRight(scope="widgets:read"),
"""

# In each registry: what stands in a line of it, and what stands there with the new line.
REGISTRIES = {
    "libs/events/keelson/events/registry.py": [
        (", secret\n", ", secret, widget\n"),
        ("    instance,\n)", "    instance,\n    widget,\n)"),
    ],
    "libs/access/keelson/access/scopes.py": [
        ('"secrets", "instances", "audit"', '"secrets", "instances", "audit", "widgets"'),
        ('    "instance": "instances",\n', '    "instance": "instances",\n    "widget": "widgets",\n'),
    ],
    "libs/access/keelson/access/rights.py": [
        ('    "app.create":', f'{COMMAND_RIGHTS}    "app.create":'),
        ('    "/v1/apps":', f'{READ_RIGHTS}    "/v1/apps":'),
    ],
    "services/command/keelson/command/registry.py": [
        ("    secret,\n)", "    secret,\n    widget,\n)"),
        ("rollback)\n", "rollback, widget)\n"),
    ],
    "libs/views/keelson/views/__init__.py": [
        ("\n# One line per projection", "from keelson.views.widgets import WIDGETS\n\n# One line per projection"),
        ('    "activity": ACTIVITY,\n', '    "activity": ACTIVITY,\n    "widgets": WIDGETS,\n'),
    ],
}


def add_widgets(copy: Path) -> None:
    """Write the new modules and the lines in the registries."""
    for name, text in NEW_MODULES.items():
        assert not (copy / name).exists()
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(text.lstrip(), encoding="utf-8")
    for name, edits in REGISTRIES.items():
        text = (copy / name).read_text(encoding="utf-8")
        for old, new in edits:
            assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times"
            text = text.replace(old, new)
        (copy / name).write_text(text, encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a copy of the source with widgets in it, from which every process that is started now runs."""
    copy = tmp_path / "copy"
    for folder in (*CODE, "tests/support"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    add_widgets(copy)
    members = [path.parent for path in copy.glob("*/*/keelson")]
    # These come before what is installed.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, members)))
    return copy


def test_only_the_places_that_the_readme_names_are_touched() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    for name in [*NEW_MODULES, *REGISTRIES]:
        place = name.replace("widgets.py", "<projection>.py").replace("widget.py", "<aggregate>.py")
        assert f"`{place}`" in readme


def test_the_import_rules_hold_with_both_added(copy: Path) -> None:
    run_tool(copy, "lint-imports", "--no-cache", "--no-logo")


def test_the_new_aggregates_spec_holds(copy: Path) -> None:
    run_tool(copy, "pytest", "-p", "no:cacheprovider", "tests/unit/command/domain/test_widget.py")


def test_their_commands_and_reads_get_typed_methods(copy: Path) -> None:
    run_tool(copy, "python", "-c", "from keelson.local.client_code import write_client; write_client()")
    client = copy / "libs/client/keelson/client"

    assert "class CreateWidget(Command[WidgetResult]" in (client / "commands/widget.py").read_text(encoding="utf-8")
    assert "Listing[WidgetRow]" in (client / "reads/widgets.py").read_text(encoding="utf-8")
    run_tool(copy, "ruff", "check", "--no-cache", client)
    run_tool(copy, "mypy", client)


def run_tool(copy: Path, tool: str, *arguments: str | Path) -> None:
    """Run a tool of development on the copy; it must find nothing wrong."""
    ran = subprocess.run(  # noqa: S603 - our own tools
        [Path(sys.executable).with_name(tool), *arguments],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.usefixtures("copy")
async def test_a_new_aggregate_and_a_new_view_live(cluster: Cluster, database: Database, tmp_path: Path) -> None:
    async with running_stack(cluster, database, tmp_path) as stack, client_of(stack) as client:
        org = await client.command("org.create", {"name": "acorn"})
        project = await client.command("project.create", {"org_id": org.result["org_id"], "name": "shop"})
        ids = {"org_id": org.result["org_id"], "project_id": project.result["project_id"]}
        await follow_a_widget(client, ids)


def client_of(stack: Stack) -> Client:
    return Client(stack.commands[0].url, stack.queries[0].url, stack.operator_token)


async def follow_a_widget(client: Client, ids: dict[str, str]) -> None:
    """Create, refuse a second of its name, rename and delete a widget, reading what the views say each time."""
    wanted = {"project_id": ids["project_id"], "name": "gear"}
    created = await client.command("widget.create", wanted, wait_s=20)
    widget_id = created.result["widget_id"]
    assert created.projected
    row = await client.read("widgets", widget_id)
    assert {**ids, "id": widget_id, "name": "gear", "resource_version": 1, "deleted_at": None}.items() <= row.items()

    with pytest.raises(ProblemError, match="409 name_taken"):
        await client.command("widget.create", wanted)

    renamed = await client.command("widget.rename", {"widget_id": widget_id, "name": "cog"})
    row = await client.read("widgets", widget_id, min_position=renamed.position)
    assert (row["name"], row["resource_version"]) == ("cog", 2)

    deleted = await client.command("widget.delete", {"widget_id": widget_id}, reason="no longer built")
    row = await client.read("widgets", widget_id, min_position=deleted.position)
    assert row["deleted_at"] == row["updated_at"]
    assert [each async for each in client.list("widgets", project_id=ids["project_id"])] == []
    events = [each.type async for each in client.events.list(aggregate_id=widget_id)]
    assert events == ["widget.created", "widget.renamed", "widget.deleted"]
