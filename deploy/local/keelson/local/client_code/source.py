"""A module of Python in the making: its imports, its structs, and annotations that say what msgspec was told."""

import inspect
import textwrap
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import NODEFAULT
from msgspec import inspect as types

MAX_COLUMNS = 120

# What a client says, the service checks, so any sequence or mapping will do; what it is told, it can rely on. Words of
# a closed list are checked in what it says, and are text in what it is told: a newer service may know more of them.
Role = Literal["said", "told"]

_WORDS: Mapping[type[types.Type], str] = {
    types.StrType: "str",
    types.IntType: "int",
    types.FloatType: "float",
    types.BoolType: "bool",
    types.NoneType: "None",
}

_IMPORTED: Mapping[type[types.Type], tuple[str, str]] = {
    types.DateTimeType: ("datetime", "datetime"),
    types.AnyType: ("typing", "Any"),
    types.RawType: ("typing", "Any"),
}

_FIRST_PARTY = "keelson."
_THIRD_PARTY = "msgspec"


class Homes(dict[type, tuple[str, str]]):
    """Which module declares a struct, and under which name."""


class Source:
    """One module. Structs that it needs and no module declares yet, it declares; the others it imports."""

    def __init__(self, name: str, summary: str, homes: Homes) -> None:
        self.name = name
        self._summary = summary
        self._homes = homes
        self._imports: dict[str, set[str]] = defaultdict(set)
        self._blocks: list[str] = []

    def use(self, module: str, name: str) -> str:
        """Import a name and give it back; ValueError if another module's is used under it."""
        others = [each for each, names in self._imports.items() if name in names and each != module]
        if others:
            raise ValueError(f"{self.name} would need {name} of both {module} and {others[0]}")
        if module != self.name:
            self._imports[module].add(name)
        return name

    def add(self, block: str) -> None:
        """Add a class."""
        self._blocks.append(block)

    def declare(self, struct: type[msgspec.Struct], bases: str, role: Role, constants: str = "") -> str:
        """Declare a struct with some lines before its fields, and give its name; what its fields need comes first."""
        # A generic struct with its argument in place is called what it is called without.
        named = getattr(struct, "__origin__", struct)
        name: str = named.__name__
        taken = [cls for cls, home in self._homes.items() if home == (self.name, name)]
        if taken:
            raise ValueError(f"{self.name} would declare both {taken[0]} and {struct}")
        self._homes[struct] = (self.name, name)
        info = types.type_info(struct)
        fields = [self.field(each, role) for each in getattr(info, "fields", ())]
        body = textwrap.indent("\n".join([constants, *fields]).strip(), "    ")
        self.add(f"class {name}({bases}, frozen=True, kw_only=True):\n{docstring(named, 4)}\n\n{body}\n")
        return name

    def field(self, field: types.Field, role: Role) -> str:
        """Declare a field. What may be left unsaid is None; or UNSET, where null would say something."""
        annotation, default = self.annotation(field.type, role), self.default(field, role)
        if is_unset(field):
            annotation = f"{annotation} | {self.use('msgspec', 'UnsetType')}"
        elif default == "None":
            annotation = optional(annotation)
        if field.encode_name != field.name:  # a word of Python's own, as `from`
            default = (
                f'{self.use("msgspec", "field")}({f"default={default}, " if default else ""}name="{field.encode_name}")'
            )
        return f"{field.name}: {annotation}" + (f" = {default}" if default else "")

    def default(self, field: types.Field, role: Role) -> str:
        """Give a field's default as source, empty if it must be given."""
        if field.required:
            return ""
        if is_unset(field):
            return self.use("msgspec", "UNSET")
        if role == "said" or field.default is None:
            return "None"
        if field.default_factory is not NODEFAULT:
            return f"{self.use('msgspec', 'field')}(default_factory={field.default_factory.__name__})"
        return repr(field.default)

    def annotation(self, kind: types.Type, role: Role) -> str:
        """Write a type; raises TypeError for a kind that nothing has used yet."""
        match kind:
            case types.Metadata():
                return self.annotation(kind.type, role)
            case types.UnionType():
                parts = dict.fromkeys(self.annotation(each, role) for each in kind.types)
                return " | ".join(sorted(parts, key=lambda part: part == "None"))
            case types.LiteralType():
                words = ", ".join(repr(value) for value in kind.values)
                return f"{self.use('typing', 'Literal')}[{words}]" if role == "said" else "str"
            case types.StructType():
                return self.struct(kind.cls, role)
        if type(kind) in _IMPORTED:
            return self.use(*_IMPORTED[type(kind)])
        return _WORDS[type(kind)] if type(kind) in _WORDS else self._collection(kind, role)

    def _collection(self, kind: types.Type, role: Role) -> str:
        match kind:
            case types.DictType():
                mapping = self.use("collections.abc", "Mapping") if role == "said" else "dict"
                return f"{mapping}[{self.annotation(kind.key_type, role)}, {self.annotation(kind.value_type, role)}]"
            case types.ListType() | types.VarTupleType():
                item = self.annotation(kind.item_type, role)
                return f"{self.use('collections.abc', 'Sequence')}[{item}]" if role == "said" else f"tuple[{item}, ...]"
            case types.TupleType():
                return f"tuple[{', '.join(self.annotation(each, role) for each in kind.item_types)}]"
        raise TypeError(f"the client has no words for {kind}")

    def struct(self, struct: type[msgspec.Struct], role: Role) -> str:
        """Give the name of a struct, declared here unless it is declared already."""
        if struct in self._homes:
            return self.use(*self._homes[struct])
        omitting = ", omit_defaults=True" if role == "said" else ""
        return self.declare(struct, f"{self.use('msgspec', 'Struct')}{omitting}", role)

    def text(self) -> str:
        """Give the whole module, yet to be formatted."""
        return f'"""{self._summary}"""\n\n{self._import_text()}\n\n\n' + "\n\n".join(self._blocks)

    def _import_text(self) -> str:
        blocks = (
            [module for module in self._imports if not module.startswith((_FIRST_PARTY, _THIRD_PARTY))],
            [module for module in self._imports if module.startswith(_THIRD_PARTY)],
            [module for module in self._imports if module.startswith(_FIRST_PARTY)],
        )
        return "\n\n".join("\n".join(map(self._import, sorted(block))) for block in blocks if block)

    def _import(self, module: str) -> str:
        names = sorted(self._imports[module], key=lambda name: (not name.isupper(), name[0].islower(), name))
        return f"from {module} import {', '.join(names)}"


def is_unset(field: types.Field) -> bool:
    """Say whether a field that is not given differs from one that is null."""
    return not field.required and field.default is NODEFAULT and field.default_factory is NODEFAULT


def optional(annotation: str) -> str:
    """Let a type be None too."""
    return annotation if annotation.endswith("| None") else f"{annotation} | None"


def docstring(thing: type, columns: int) -> str:
    """Give a class's docstring as it stands in the services, indented by so many columns."""
    text = inspect.getdoc(thing) or ""
    return textwrap.indent(f'"""{text}\n"""' if "\n" in text else f'"""{text}"""', " " * columns)


def summary(text: str, columns: int) -> str:
    """Give a docstring of one line; where it is too long for a line, that is allowed."""
    line = " " * columns + f'"""{text.rstrip(".")}."""'
    return line if len(line) <= MAX_COLUMNS else f"{line}  # noqa: E501"


def title(name: str) -> str:
    """Write a name as those of classes are: `EnvProcess` for env_process."""
    return "".join(word.title() for word in name.split("_"))


Operation = Any  # keelson.service.openapi.Operation, and keelson.command.handlers.Handler below: not ours to import
Handler = Any
