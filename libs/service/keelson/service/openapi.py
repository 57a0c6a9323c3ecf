"""OpenAPI 3.1 from the structs that validate: what is documented is what is checked.

https://spec.openapis.org/oas/v3.1.1
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from keelson.service.problems import MEDIA_TYPE, PROBLEMS, FieldError

_REF = "#/components/schemas/{name}"
_REQUEST_ID_REF = {"$ref": "#/components/parameters/X-Request-Id"}

# Codes that the connection and the boundary may give at any path, and at any that needs a credential.
EVERYWHERE = ("malformed", "timeout", "too_large", "headers_too_large", "internal", "unavailable")
# What an actor may not see is not found.
_GUARDED = ("unauthenticated", "forbidden", "not_found", "rate_limited")

JSON = "application/json"
PROBLEM_JSON = MEDIA_TYPE.decode()
EVENT_STREAM = "text/event-stream"


class Header(NamedTuple):
    """A header of answers."""

    description: str
    schema: dict[str, Any]


HEADERS: dict[str, Header] = {
    "X-Request-Id": Header(
        "The request's own X-Request-Id, or one that was minted; kept on the events of a command",
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    ),
    "Keelson-Epoch": Header(
        "The lineage that positions belong to, once it is known to the replica",
        {"type": "string", "pattern": "^[0-9a-z]{1,26}$"},
    ),
    "Keelson-Position": Header("The position that the answer reflects", {"type": "integer", "minimum": 0}),
    "Preference-Applied": Header("How long was waited at most", {"type": "string", "pattern": "^wait=[0-9]{1,2}$"}),
    "ETag": Header(
        "The row's resource_version, its epoch unless that is the log's first, and the state of what is beside the log",
        {"type": "string", "pattern": r'^"[0-9]{1,19}(\.[0-9a-z]{1,26})?(-[0-9a-f]+)?"$'},
    ),
    "Retry-After": Header("After how many seconds to repeat", {"type": "integer", "minimum": 1}),
    "WWW-Authenticate": Header("The scheme of a good credential", {"type": "string"}),
}

# Headers that come with a refusal of these codes.
HEADERS_OF = {
    "unavailable": ("Retry-After",),
    "rate_limited": ("Retry-After",),
    "unauthenticated": ("WWW-Authenticate",),
}
# A refusal of these codes may say as of which position it is one.
REFLECTED_BY = frozenset({"not_found", "not_yet"})
REFLECTING = frozenset({"Keelson-Position", "Preference-Applied"})

_REQUEST_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "description": "An id by which to find this request; one that is not 1 to 128 of A-Z a-z 0-9 . _ - is replaced",
    "schema": {"type": "string"},
}


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path. `parameters` and `headers` are structs whose fields are parameters; all are optional.

    `problems` are the codes beyond those that any operation has. `gives` are headers that the answer always has,
    `may_give` those that it has when they were asked for, or that refusals have too. `conditional` operations answer
    304, `streams` is what the answer is to who accepts server-sent events, and `unready` is what a 503 holds in the
    place of a problem.
    """

    method: str
    path: str
    summary: str
    description: str | None = None
    parameters: type[msgspec.Struct] | None = None
    headers: type[msgspec.Struct] | None = None
    request: Any = None
    response: Any = None
    media_type: str = JSON
    gives: Sequence[str] = ()
    may_give: Sequence[str] = ()
    conditional: bool = False
    streams: str | None = None
    unready: Any = None
    problems: Sequence[str] = ()
    tags: Sequence[str] = ()
    public: bool = False


class ProblemDocument(msgspec.Struct, frozen=True):
    """A refusal (RFC 9457). `command_index` says which command of a bundle, `position` how far a view is (504)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldError] | msgspec.UnsetType = msgspec.UNSET
    command_index: int | msgspec.UnsetType = msgspec.UNSET
    position: int | msgspec.UnsetType = msgspec.UNSET


def build_openapi(title: str, version: str, operations: Iterable[Operation]) -> dict[str, Any]:
    """Build the document; ValueError if two operations have one method and path."""
    operations = tuple(operations)
    schemas = _Schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        methods = paths.setdefault(operation.path, {})
        method = operation.method.lower()
        if method in methods:
            raise ValueError(f"two operations are {operation.method} {operation.path}")
        methods[method] = _describe(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(tag for each in operations for tag in each.tags)],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "headers": {
                name: {"description": each.description, "schema": each.schema} for name, each in HEADERS.items()
            },
            "parameters": {"X-Request-Id": _REQUEST_ID},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "The token of who asks"},
            },
        },
        "security": [{"bearer": []}],
    }


class _Schemas:
    """The JSON Schemas of all types of the operations; those of parameters are taken apart, not shared."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        bodies = [
            body for each in operations for body in (each.request, each.response, each.unready) if body is not None
        ]
        lists = [each for operation in operations for each in (operation.parameters, operation.headers) if each]
        unique = list(dict.fromkeys([*bodies, *lists, ProblemDocument]))
        schemas, components = msgspec.json.schema_components(unique, ref_template=_REF)
        self._by_type = dict(zip(unique, schemas, strict=True))
        self._all = components
        hidden = {self._by_type[each]["$ref"].rpartition("/")[2] for each in lists}
        self.components = {name: schema for name, schema in components.items() if name not in hidden}

    def of(self, type_: Any) -> dict[str, Any]:
        """Give the schema of a type."""
        schema: dict[str, Any] = self._by_type[type_]
        return schema

    def fields_of(self, type_: type[msgspec.Struct]) -> tuple[dict[str, Any], frozenset[str]]:
        """Give the schemas of a struct's fields by name, and the names of those that are required."""
        schema = self._all[self.of(type_)["$ref"].rpartition("/")[2]]
        return schema["properties"], frozenset(schema["required"])


def _describe(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _name(operation),
        "summary": operation.summary,
        "parameters": [*_path_parameters(operation), *_parameters(operation, schemas), _REQUEST_ID_REF],
        "responses": _responses(operation, schemas),
    }
    if operation.description:
        described["description"] = operation.description
    if operation.tags:
        described["tags"] = list(operation.tags)
    if operation.request is not None:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": schemas.of(operation.request)}}}
    if operation.public:
        described["security"] = []
    return described


def _name(operation: Operation) -> str:
    return re.sub(r"[^a-z0-9]+", "_", f"{operation.method} {operation.path}".lower()).strip("_")


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)}", operation.path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _parameters(operation: Operation, schemas: _Schemas) -> list[dict[str, Any]]:
    parameters = []
    for place, struct in (("query", operation.parameters), ("header", operation.headers)):
        if struct is not None:
            properties, required = schemas.fields_of(struct)
            parameters += [
                {"name": name, "in": place, "required": name in required, "schema": _given(schema, place)}
                for name, schema in properties.items()
            ]
    return parameters


def _given(schema: dict[str, Any], place: str) -> dict[str, Any]:
    """Leave null out: a parameter that is absent is absent, it cannot be null. No text of a query may hold NUL."""
    choices = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(choices) == 1:
        schema = choices[0] | {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    if place == "query" and schema.get("type") == "string" and schema.keys() <= {"type", "description"}:
        return schema | {"pattern": r"^[^\x00]*$"}
    return schema


def _responses(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": "Done",
        "headers": _headers(operation.gives, operation.may_give),
    }
    if operation.response is not None:
        answer["content"] = {operation.media_type: {"schema": schemas.of(operation.response)}}
    if operation.streams is not None:
        answer["content"][EVENT_STREAM] = {"schema": {"type": "string", "description": operation.streams}}
    responses = {"200": answer}
    if operation.conditional:
        responses["304"] = {"description": "The client has it", "headers": answer["headers"]}
    codes_by_status: dict[int, list[str]] = defaultdict(list)
    for code in dict.fromkeys([*operation.problems, *EVERYWHERE, *(() if operation.public else _GUARDED)]):
        codes_by_status[PROBLEMS[code].status].append(code)
    for status, codes in sorted(codes_by_status.items()):
        responses[str(status)] = _problem_response(codes, operation, schemas)
    if operation.unready is not None:
        unready = responses[str(PROBLEMS["unavailable"].status)]
        unready["content"][JSON] = {"schema": schemas.of(operation.unready)}
        unready["headers"]["Retry-After"] = _header("Retry-After", required=False)
    return responses


def _problem_response(codes: list[str], operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    described = "; ".join(f"`{code}`: {PROBLEMS[code].title}" for code in codes)
    narrowed = {"properties": {"code": {"enum": codes}}}
    schema = {"allOf": [schemas.of(ProblemDocument), narrowed]}
    required = {name for code in codes for name in HEADERS_OF.get(code, ())}
    reflecting = [name for name in (*operation.gives, *operation.may_give) if name in REFLECTING]
    return {
        "description": described,
        "headers": _headers(sorted(required), reflecting if set(codes) & REFLECTED_BY else ()),
        "content": {PROBLEM_JSON: {"schema": schema}},
    }


def _headers(required: Iterable[str], optional: Iterable[str]) -> dict[str, Any]:
    """Describe the headers of an answer: those that every one has, and its own."""
    always = {name: _header(name, required=True) for name in ("X-Request-Id", *required)}
    return {name: _header(name, required=False) for name in ("Keelson-Epoch", *optional)} | always


def _header(name: str, *, required: bool) -> dict[str, Any]:
    if not required:
        return {"$ref": f"#/components/headers/{name}"}
    return {"description": HEADERS[name].description, "required": True, "schema": HEADERS[name].schema}
