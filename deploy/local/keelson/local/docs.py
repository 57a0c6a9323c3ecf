"""What is generated from the code and committed: documents, events' JSON Schemas, the client, a dashboard."""

import inspect
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
from msgspec import inspect as types

from keelson.events import REGISTRY, ClaimChange, Envelope, Event, Ids, Release
from keelson.events import schema as event_schema
from keelson.events.registry import MODULES, events_of
from keelson.events.schema import file_stem, schema_of
from keelson.local.access_document import DOCUMENT as ACCESS
from keelson.local.access_document import access_document
from keelson.local.client_code import write_client
from keelson.local.dashboard import DASHBOARD, dashboard_text
from keelson.local.errors import LocalError
from keelson.local.settings_document import DOCUMENT as SETTINGS
from keelson.local.settings_document import settings_document

DOCUMENT = Path(__file__).parents[4] / "docs" / "events.md"
SCHEMAS = Path(event_schema.__file__).with_name("schemas")

INTRODUCTION = """\
# Events

Generated from the code by `make docs`; not edited by hand. What is promised of events and positions stands in
[architecture.md](architecture.md). The JSON Schema and a frozen sample of every version are in
`libs/events/keelson/events/schemas` and `samples`; a `?` marks what may be missing.
"""

WORDS: dict[type[types.Type], str] = {
    types.StrType: "text",
    types.IntType: "integer",
    types.BoolType: "boolean",
    types.NoneType: "null",
    types.DateTimeType: "time",
}


class SchemaChangedError(LocalError):
    """The code no longer says what was released: a version's schema never changes, a new version is added."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path.name} would change. If this version was ever released, add a new one with an upcast; "
            "if it never was, delete the file and run this again."
        )
        self.path = path


def main() -> None:
    """Write all anew; raises SchemaChangedError where a released schema would change."""
    write_schemas(SCHEMAS)
    DOCUMENT.write_text(events_document(), encoding="utf-8")
    SETTINGS.write_text(settings_document(), encoding="utf-8")
    ACCESS.write_text(access_document(), encoding="utf-8")
    DASHBOARD.write_text(dashboard_text(), encoding="utf-8")
    write_client()


def write_schemas(folder: Path) -> None:
    """Add the schemas that are missing; raises SchemaChangedError rather than overwrite one that differs."""
    folder.mkdir(exist_ok=True)
    for event_class in REGISTRY.classes.values():
        path, text = folder / f"{file_stem(event_class)}.json", schema_text(event_class)
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise SchemaChangedError(path)
        path.write_text(text, encoding="utf-8")


def schema_text(event_class: type[Event]) -> str:
    """Give a schema as it is committed."""
    return msgspec.json.format(msgspec.json.encode(schema_of(event_class)), indent=2).decode() + "\n"


def events_document() -> str:
    """Give the text of `docs/events.md`."""
    return "\n".join([INTRODUCTION, _envelope(), *map(_aggregate, MODULES), _values()])


def _envelope() -> str:
    return f"## Envelope\n\n{_prose(Envelope)}\n\n{_fields_table(Envelope)}"


def _aggregate(module: ModuleType) -> str:
    name = module.__name__.rpartition(".")[2]
    rows = [
        f"| `{each.event_type}` | {each.event_version} | {_prose(each)} | {_payload(each)} | {_claims(each)} |\n"
        for each in events_of(module)
    ]
    head = "| event | version | meaning | payload | claims |\n|---|---|---|---|---|\n"
    return f"## {name}\n\n{inspect.getdoc(module)}\n\n{head}{''.join(rows)}"


def _values() -> str:
    """Give a section with a table of each struct that payloads hold."""
    seen: dict[str, type[msgspec.Struct]] = {}
    for event_class in REGISTRY.classes.values():
        for field in msgspec.structs.fields(event_class):
            for struct in _structs_in(types.type_info(field.type)):
                seen[struct.__name__] = struct
    tables = [f"### {name}\n\n{_prose(seen[name])}\n\n{_fields_table(seen[name])}" for name in sorted(seen)]
    return "\n".join(["## Values in payloads\n", *tables])


def _structs_in(kind: types.Type) -> Iterator[type[msgspec.Struct]]:
    match kind:
        case types.StructType():
            yield kind.cls
            for field in kind.fields:
                yield from _structs_in(field.type)
        case types.DictType():
            yield from _structs_in(kind.value_type)
        case types.VarTupleType():
            yield from _structs_in(kind.item_type)
        case types.UnionType():
            for each in kind.types:
                yield from _structs_in(each)


def _prose(thing: type) -> str:
    """Give a docstring as one line."""
    return " ".join((inspect.getdoc(thing) or "").split())


def _fields_table(struct: type[msgspec.Struct]) -> str:
    rows = [f"| {_name(field)} | {_kind(types.type_info(field.type))} |\n" for field in msgspec.structs.fields(struct)]
    return f"| field | type |\n|---|---|\n{''.join(rows)}"


def _payload(struct: type[msgspec.Struct]) -> str:
    fields = [f"{_name(field)}: {_kind(types.type_info(field.type))}" for field in msgspec.structs.fields(struct)]
    return "<br>".join(fields) or "empty"


def _name(field: msgspec.structs.FieldInfo) -> str:
    return f"`{field.name}`" if field.required else f"`{field.name}`?"


def _kind(kind: types.Type) -> str:
    """Say in words what a value is; raises TypeError for a kind that no event has used yet."""
    match kind:
        case types.LiteralType():
            return ", ".join(f"`{value}`" for value in kind.values)
        case types.DictType():
            return f"map of {_kind(kind.key_type)} to {_kind(kind.value_type)}"
        case types.VarTupleType():
            return f"list of {_kind(kind.item_type)}"
        case types.StructType():
            return f"[{kind.cls.__name__}](#{kind.cls.__name__.lower()})"
        case types.UnionType():
            return " or ".join(_kind(each) for each in kind.types)
    if type(kind) not in WORDS:
        raise TypeError(f"docs/events.md has no words for {kind}")
    return WORDS[type(kind)]


def _claims(event_class: type[Event]) -> str:
    """Say which claims an event changes and why, with the names of fields in place of their values."""
    if event_class.claims_of is Event.claims_of:
        return "none"
    fields = msgspec.structs.fields(event_class)
    ids = Ids(**{field.name: f"{{{field.name}}}" for field in msgspec.structs.fields(Ids)})
    names = [field.name for field in fields]
    choices = product(*(_placeholders(field.name, types.type_info(field.type)) for field in fields))
    examples = (event_class(**dict(zip(names, values, strict=True))) for values in choices)
    changes = next(filter(None, (example.claims_of(ids) for example in examples)))  # where a field decides: any
    return "<br>".join([" ".join((inspect.getdoc(event_class.claims_of) or "").split()), *map(_claim, changes)])


class _Number(int):
    """A number that is shown as the name of its field."""

    name: str

    def __str__(self) -> str:
        return f"{{{self.name}}}"


def _placeholders(name: str, kind: types.Type) -> list[Any]:
    """Give values that stand for a field's: each choice where it has several, else one that shows its name."""
    match kind:
        case types.LiteralType():
            return list(kind.values)
        case types.IntType():
            number = _Number(1)
            number.name = name
            return [number]
        case types.StructType():
            inner = {
                field.name: _placeholders(field.name, types.type_info(field.type))[0]
                for field in msgspec.structs.fields(kind.cls)
            }
            return [kind.cls(**inner)]
        case types.DictType():
            return [{f"{{{name}}}": _placeholders(name, kind.value_type)[0]}]
        case types.UnionType():
            return _placeholders(name, kind.types[0])
    return [f"{{{name}}}"]


def _claim(change: ClaimChange) -> str:
    if isinstance(change, Release):
        return f"frees what it holds in `{change.scope}`"
    key = "its own id" if change.key is None else f"`{change.key}`"
    return f"takes {key} in `{change.scope}`{', for an amount' if change.amount else ''}"
