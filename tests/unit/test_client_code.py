"""The client's commands and reads are what the services declare, and what cannot be said by them is refused."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from keelson.client import Client, Command
from keelson.client.commands import Commands
from keelson.client.reads import Reads
from keelson.command.registry import HANDLERS
from keelson.local.client_code import FOLDERS, PACKAGE, client_files
from keelson.local.client_code.commands import command_sources
from keelson.local.client_code.reads import read_sources
from keelson.local.client_code.source import Homes, Source
from keelson.query.app import endpoints


def test_the_committed_client_is_what_the_services_say() -> None:
    committed = {
        path: path.read_text(encoding="utf-8") for folder in FOLDERS for path in (PACKAGE / folder).glob("*.py")
    }
    committed = {path: text for path, text in committed.items() if path.suffix == ".py"}
    assert committed == client_files(), "run `make docs`"


def test_every_command_has_a_method_and_every_path_a_read() -> None:
    client = Client("http://127.0.0.1:1", "http://127.0.0.1:1", "token")
    for name in HANDLERS:
        group, _, method = name.partition(".")
        assert callable(getattr(getattr(client, group), method)), name
    for endpoint in endpoints():
        group, *rest = endpoint.operation.path.removeprefix("/v1/").split("/")
        method = "list" if not rest else "get" if rest[-1].startswith("{") else rest[-1]
        assert callable(getattr(getattr(client, group), method)), endpoint.operation.path


def test_the_parts_of_the_client_do_not_hide_each_other() -> None:
    sender: Any = None
    parts = [set(vars(Commands(sender))), set(vars(Reads(sender))), set(dir(Client)) | {"_transport"}]
    assert sum(map(len, parts)) == len(set().union(*parts))


def test_a_typed_command_encodes_as_the_service_reads_it() -> None:
    commands = {each.command_name: each for each in typed_commands()}
    assert commands.keys() == HANDLERS.keys()
    for name, command in commands.items():
        said = {field.name: field.required for field in msgspec.structs.fields(command)}
        assert said == {field.name: field.required for field in msgspec.structs.fields(HANDLERS[name].command)}


def typed_commands() -> list[type[Command[Any]]]:
    """Give the classes of all typed commands, those of tests left out."""
    return [each for each in Command.__subclasses__() if each.__module__.startswith("keelson.client.commands.")]


class Result(msgspec.Struct):
    """A result."""

    id: str


class Clashing(msgspec.Struct):
    """A command with a field that is said with every command."""

    reason: str


class Odd(msgspec.Struct):
    """A result of a kind that nothing has used yet."""

    data: bytes


class Renamed(msgspec.Struct):
    """A result with fields that have other names on the wire."""

    from_: str = msgspec.field(name="from")
    class_: str | None = msgspec.field(default=None, name="class")


def handler(command: type[msgspec.Struct], result: type[msgspec.Struct] = Result) -> Any:
    names = {"name": "thing.set", "summary": "Set it.", "target": None, "needs_reason": False}
    return SimpleNamespace(**names, command=command, result=result)


@pytest.mark.parametrize(
    ("planted", "why"),
    [
        (handler(Clashing), "reason"),
        (handler(Result, Odd), "no words"),
        (handler(Renamed), "other names"),
    ],
    ids=["clashing", "odd", "renamed"],
)
def test_what_the_client_cannot_say_is_refused(planted: Any, why: str) -> None:
    with pytest.raises((TypeError, ValueError), match=why):
        list(command_sources({"thing.set": planted}))


def test_a_field_has_the_name_on_the_wire_that_the_service_gives_it() -> None:
    source = Source("keelson.client.commands.thing", "Things.", Homes())
    source.struct(Renamed, "told")
    assert 'from_: str = field(name="from")' in source.text()
    assert 'class_: str | None = field(default=None, name="class")' in source.text()


def test_two_structs_of_one_name_are_refused() -> None:
    source = Source("keelson.client.commands.thing", "Things.", Homes())
    source.struct(Result, "told")
    with pytest.raises(ValueError, match="both"):
        source.struct(msgspec.defstruct("Result", [("id", str)]), "told")


class Query(msgspec.Struct, kw_only=True):
    """Parameters one of which is a word of Python's."""

    start: str | None = msgspec.field(default=None, name="from")
    class_: str | None = None


def test_a_parameter_is_called_by_a_name_that_python_allows() -> None:
    answer = msgspec.defstruct("Diff", [("changes", dict[str, Any])])
    operation = SimpleNamespace(
        method="GET", path="/v1/diff", summary="The diff", parameters=Query, headers=None, response=answer
    )
    text = "\n".join(source.text() for source in read_sources([operation]))
    assert "start: str | None = None" in text
    assert '"from": start' in text
