"""Canaries: values that are found wherever they get to, made to fit the fields of the commands' published schemas.

Each holds a core of its own, which is looked for in whichever case, and as hexadecimal digits or base64 would have it.
"""

import base64
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

# What nobody but its holder, or its node, may see; who somebody is; what people write; what things are called.
Kind = Literal["secret", "personal", "text", "name"]

# What no schema can tell: fields whose text is a secret, or who somebody is.
SECRET_FIELDS = frozenset({("secret.set", "values"), ("node.enroll", "token")})
PERSONAL_FIELDS = frozenset({("org.create", "owner_email"), ("org.add_member", "email"), ("org.add_member", "name")})

_FREE_TEXT = "free text, with a blank"
_RUN = re.compile(r"[0-9A-Za-z+/_-]{16,}")
_OFFSETS = ((0, 0), (1, 2), (2, 3))


class Canary(NamedTuple):
    """What was planted where; `core` is what it is known by."""

    kind: Kind
    place: str
    core: str

    def forms(self) -> Iterator[str]:
        """Give what to look for: in lower case, but for base64, which stands at any of three offsets in a text."""
        core = self.core.encode()
        yield self.core
        yield core.hex()
        for before, cut in _OFFSETS:
            whole = base64.b64encode(b"\0" * before + core).decode().rstrip("=")
            # The first and the last digits depend on what stands beside the core.
            yield whole[cut if before else 0 : -1 - (before + len(core)) % 3]


class Canaries:
    """All that were planted."""

    def __init__(self) -> None:
        self.planted: list[Canary] = []

    def plant(self, kind: Kind, place: str) -> str:
        """Give the core of a new one: a letter and digits, so that every kind of name may hold it."""
        core = f"c4n{secrets.token_hex(8)}"
        self.planted.append(Canary(kind, place, core))
        return core

    def note_token(self, place: str, token: str) -> None:
        """Take a token that was issued for a canary."""
        self.planted.append(Canary("secret", place, token.removeprefix("kls_")))

    def of(self, *kinds: Kind) -> list[Canary]:
        """Give those of some kinds."""
        return [each for each in self.planted if each.kind in kinds]


def find(text: str, canaries: Iterable[Canary]) -> set[str]:
    """Name the canaries that stand in a text in one form or another."""
    # All forms are runs of these; most of a log is the same again and again.
    runs = "\n".join(set(_RUN.findall(text)))
    lower = runs.lower()
    return {
        f"{canary.kind} of {canary.place}"
        for canary in canaries
        if any(form in lower or form in runs for form in canary.forms())
    }


class Maker:
    """Makes bodies of commands from their schemas, with a canary wherever one fits."""

    def __init__(self, schemas: Mapping[str, dict[str, Any]], canaries: Canaries) -> None:
        self.schemas = schemas
        self._canaries = canaries
        # Which fields, by their paths, had which kind of canary.
        self.fields: dict[str, Kind] = {}

    def make(self, command: str, known: Mapping[str, str], leave_out: Collection[str] = ()) -> dict[str, Any]:
        """Make a body that fits: ids as they are known by their fields' names, and of what is created none."""
        schema = self._struct(command)
        required = schema.get("required", ())
        own_id = f"{command.partition('.')[0]}_id"
        body = {}
        for name, field in schema["properties"].items():
            if name in leave_out or (name == own_id and name not in required):
                continue
            body[name] = known[name] if name in known else self._value(command, f"{command} {name}", field)
        return body

    def _struct(self, command: str) -> dict[str, Any]:
        return self._resolved(command, self.schemas[command])

    def _resolved(self, command: str, schema: dict[str, Any]) -> dict[str, Any]:
        while reference := schema.get("$ref"):
            schema = self.schemas[command]["$defs"][reference.rpartition("/")[2]]
        return schema

    def _value(self, command: str, path: str, schema: dict[str, Any]) -> Any:  # noqa: PLR0911 - one per type
        schema = self._resolved(command, schema)
        if "anyOf" in schema:
            return self._value(command, path, schema["anyOf"][0])
        if "enum" in schema:
            return schema["enum"][0]
        match schema["type"]:
            case "object" if "properties" in schema:
                return {
                    name: self._value(command, f"{path}/{name}", field) for name, field in schema["properties"].items()
                }
            case "object":
                name = self._text(command, f"{path} (key)", {"type": "string", **schema["propertyNames"]})
                return {name: self._value(command, f"{path}/*", schema["additionalProperties"])}
            case "array":
                return [self._value(command, f"{path}/*", schema["items"])]
            case "integer":
                return max(schema.get("minimum", 1), 1)
            case "boolean":
                return False
            case "string":
                return self._text(command, path, schema)
        raise AssertionError(f"{path} is of a type that no canary is made for: {schema}")

    def _text(self, command: str, path: str, schema: dict[str, Any]) -> str:
        """Give the first form that fits; a new pattern that none fits fails the test, and wants a form here."""
        if schema.get("format") == "date-time":
            return "2090-01-01T00:00:00Z"
        top = path.removeprefix(f"{command} ").partition("/")[0].removesuffix(" (key)")
        core = f"c4n{secrets.token_hex(8)}"
        forms = {
            _FREE_TEXT: f"Canary {core} of a test",
            "label": core,
            "address": f"{core}@person.example",
            "host": f"{core}.example",
            "image": f"{core}/shop@sha256:{'0' * 64}",
            "scope": "*",
            "path": f"/{core}",
        }
        form, value = next((form, value) for form, value in forms.items() if _fits(value, schema))
        if core in value:
            kind: Kind = "text" if form == _FREE_TEXT else "name"
            if not path.endswith("(key)") and (command, top) in SECRET_FIELDS:
                kind = "secret"
            elif (command, top) in PERSONAL_FIELDS:
                kind = "personal"
            self._canaries.planted.append(Canary(kind, path, core))
            self.fields[path] = kind
        return value


def _fits(value: str, schema: dict[str, Any]) -> bool:
    pattern = schema.get("pattern")
    return len(value) <= schema.get("maxLength", len(value)) and (pattern is None or bool(re.search(pattern, value)))


def spoil(body: dict[str, Any], canaries: Canaries, place: str) -> Iterator[dict[str, Any]]:
    """Give bodies that do not fit: each field of the wrong type, too long, or holding what belongs elsewhere."""
    for name, value in body.items():
        for kind in ("personal", "secret"):
            core = canaries.plant(kind, f"{place} {name}, misplaced")
            yield body | {name: [core]}
            if " " not in str(value):  # into free text anything fits
                yield body | {name: f"{core}@person.example\n"}
            yield body | {name: core + "x" * 40_000}
            yield body | {name: {"c4n": {"deeper": core}}}
    core = canaries.plant("secret", f"{place} of an unknown field")
    yield body | {"no_such_field": core}
