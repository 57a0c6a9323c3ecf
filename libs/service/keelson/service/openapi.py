"""OpenAPI 3.1 from the structs that validate: what is documented is what is checked.

https://spec.openapis.org/oas/v3.1.1
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from keelson.service.problems import PROBLEMS, FieldError

_REF = "#/components/schemas/{name}"

# Codes that the boundary may give at any path.
EVERYWHERE = ("not_found", "headers_too_large", "too_large", "internal")
_GUARDED = ("unauthenticated", "rate_limited", "unavailable")


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path. `parameters` and `headers` are structs whose fields are parameters; all are optional.

    `problems` are the codes beyond those that any operation has.
    """

    method: str
    path: str
    summary: str
    description: str | None = None
    parameters: type[msgspec.Struct] | None = None
    headers: type[msgspec.Struct] | None = None
    request: Any = None
    response: Any = None
    problems: Sequence[str] = ()
    tags: Sequence[str] = ()
    public: bool = False


class ProblemDocument(msgspec.Struct, frozen=True):
    """A refusal (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldError] | msgspec.UnsetType = msgspec.UNSET


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
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"bearer": []}],
    }


class _Schemas:
    """The JSON Schemas of all types of the operations; those of parameters are taken apart, not shared."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        bodies = [body for each in operations for body in (each.request, each.response) if body is not None]
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
        "parameters": [*_path_parameters(operation), *_parameters(operation, schemas)],
        "responses": _responses(operation, schemas),
    }
    if operation.description:
        described["description"] = operation.description
    if operation.tags:
        described["tags"] = list(operation.tags)
    if operation.request is not None:
        described["requestBody"] = {"required": True, "content": _json(schemas.of(operation.request))}
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
                {"name": name, "in": place, "required": name in required, "schema": _given(schema)}
                for name, schema in properties.items()
            ]
    return parameters


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave null out: a parameter that is absent is absent, it cannot be null."""
    choices = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(choices) != 1:
        return schema
    choice: dict[str, Any] = choices[0]
    return choice | {key: value for key, value in schema.items() if key not in ("anyOf", "default")}


def _responses(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "Done"}
    if operation.response is not None:
        answer["content"] = _json(schemas.of(operation.response))
    responses = {"200": answer}
    codes_by_status: dict[int, list[str]] = defaultdict(list)
    for code in dict.fromkeys([*operation.problems, *EVERYWHERE, *(() if operation.public else _GUARDED)]):
        codes_by_status[PROBLEMS[code].status].append(code)
    for status, codes in sorted(codes_by_status.items()):
        responses[str(status)] = _problem_response(codes, schemas)
    return responses


def _problem_response(codes: list[str], schemas: _Schemas) -> dict[str, Any]:
    described = "; ".join(f"`{code}`: {PROBLEMS[code].title}" for code in codes)
    narrowed = {"properties": {"code": {"enum": codes}}}
    schema = {"allOf": [schemas.of(ProblemDocument), narrowed]}
    return {"description": described, "content": {"application/problem+json": {"schema": schema}}}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
