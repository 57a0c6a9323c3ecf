"""The OpenAPI document: complete, and made of nothing but the declarations."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import jsonschema_rs
import msgspec
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from keelson.command.registry import HANDLERS
from keelson.command.routes import OPERATIONS as COMMANDS
from keelson.projector.app import STATUS
from keelson.query.app import endpoints
from keelson.service.openapi import Operation, build_openapi
from unit.service.asgi import ask, make_app, running


class Item(msgspec.Struct):
    """One thing."""

    id: str
    parent: "Item | None" = None


class Page(msgspec.Struct):
    """Several things."""

    items: list[Item]
    next: str | None


class Query(msgspec.Struct):
    """Parameters in the query."""

    limit: Annotated[int, msgspec.Meta(ge=1)] = 100
    app: str | None = msgspec.field(default=None, name="app_id")


class Headers(msgspec.Struct):
    """Parameters in headers."""

    match: str = msgspec.field(name="If-Match")


OPERATIONS = [
    Operation(method="GET", path="/v1/items", summary="List", parameters=Query, response=Page, tags=("items",)),
    Operation(
        method="PUT",
        path="/v1/items/{id}",
        summary="Set",
        description="At length.",
        headers=Headers,
        request=Item,
        response=Item,
        problems=("not_found", "seq_mismatch", "invalid"),
    ),
    Operation(method="GET", path="/open", summary="Open", response=str, media_type="text/plain", public=True),
    Operation(
        method="GET",
        path="/v1/items/{id}",
        summary="One",
        response=Item,
        gives=("Keelson-Position", "ETag"),
        may_give=("Preference-Applied",),
        conditional=True,
        problems=("not_found",),
    ),
    Operation(method="GET", path="/ready", summary="Ready", response=Page, unready=Page, public=True),
]


REQUEST_ID = {"$ref": "#/components/parameters/X-Request-Id"}


@pytest.fixture
def document() -> Any:
    # As clients get it: through JSON.
    return msgspec.json.decode(msgspec.json.encode(build_openapi("Test", "1", OPERATIONS)))


def assert_sound(document: Any) -> None:
    """Check what the specification demands of a document, by its own schema, and what a schema cannot demand."""
    errors = [str(error) for error in OPENAPI_31_VALIDATOR.iter_errors(document)]
    assert not errors, errors[0]
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    for reference in references(document):
        target = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))
    for path, methods in document["paths"].items():
        for operation in methods.values():
            in_path = {each["name"] for each in operation["parameters"] if each.get("in") == "path"}
            assert in_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def test_the_document_is_sound(document: Any) -> None:
    assert_sound(document)


def test_parameters_are_the_fields_of_their_struct(document: Any) -> None:
    assert document["paths"]["/v1/items"]["get"]["parameters"] == [
        {
            "name": "limit",
            "in": "query",
            "required": False,
            "schema": {"type": "integer", "minimum": 1, "default": 100},
        },
        {"name": "app_id", "in": "query", "required": False, "schema": {"type": "string", "pattern": "^[^\\x00]*$"}},
        REQUEST_ID,
    ]
    assert document["paths"]["/v1/items/{id}"]["put"]["parameters"] == [
        {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}},
        {"name": "If-Match", "in": "header", "required": True, "schema": {"type": "string"}},
        REQUEST_ID,
    ]
    assert document["components"]["schemas"].keys() == {"Item", "Page", "ProblemDocument", "FieldError"}


def test_every_problem_is_named_under_its_status(document: Any) -> None:
    responses = document["paths"]["/v1/items/{id}"]["put"]["responses"]
    codes = {
        status: response["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"]["code"]["enum"]
        for status, response in responses.items()
        if status != "200"
    }
    assert codes["404"] == ["not_found"]
    assert codes["412"] == ["seq_mismatch"]
    assert codes["401"] == ["unauthenticated"]
    assert codes["403"] == ["forbidden"]
    assert codes["400"] == ["invalid", "malformed"]
    assert {"400", "401", "403", "404", "408", "412", "413", "429", "431", "500", "503"} == codes.keys()
    assert "401" not in document["paths"]["/open"]["get"]["responses"]
    assert document["paths"]["/open"]["get"]["security"] == []


def headers_of(document: Any, path: str, status: str) -> dict[str, bool]:
    """Give the headers of an answer, and whether it always has them."""
    headers = document["paths"][path]["get"]["responses"][status]["headers"]
    return {name: header.get("required", False) for name, header in headers.items()}


def test_an_answer_has_the_headers_that_are_promised(document: Any) -> None:
    everywhere = {"X-Request-Id": True, "Keelson-Epoch": False}
    reflecting = {"Keelson-Position": True, "ETag": True, "Preference-Applied": False}
    assert headers_of(document, "/v1/items", "200") == everywhere
    assert headers_of(document, "/v1/items/{id}", "200") == everywhere | reflecting
    assert headers_of(document, "/v1/items/{id}", "304") == everywhere | reflecting
    assert headers_of(document, "/v1/items/{id}", "404") == everywhere | {
        "Keelson-Position": False,
        "Preference-Applied": False,
    }
    assert headers_of(document, "/v1/items", "401") == everywhere | {"WWW-Authenticate": True}
    assert headers_of(document, "/v1/items", "429") == everywhere | {"Retry-After": True}
    assert headers_of(document, "/v1/items", "503") == everywhere | {"Retry-After": True}


def test_a_page_of_readiness_is_no_problem(document: Any) -> None:
    unready = document["paths"]["/ready"]["get"]["responses"]["503"]
    assert unready["content"].keys() == {"application/json", "application/problem+json"}
    assert headers_of(document, "/ready", "503")["Retry-After"] is False
    assert document["paths"]["/open"]["get"]["responses"]["200"]["content"].keys() == {"text/plain"}


@pytest.mark.parametrize("plant", [{"openapi": "3.2"}, {"paths": {"/x": {"get": {"responses": 1}}}}, {"info": {}}])
def test_a_document_that_is_not_sound_is_found(document: Any, plant: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        assert_sound(document | plant)


@pytest.mark.parametrize("operations", [COMMANDS, [each.operation for each in endpoints()], [STATUS]])
def test_the_documents_of_all_services_are_sound(operations: Sequence[Operation]) -> None:
    assert_sound(msgspec.json.decode(msgspec.json.encode(build_openapi("Keelson", "1", operations))))


def test_a_bundle_has_every_command_with_its_own_fields() -> None:
    document = msgspec.json.decode(msgspec.json.encode(build_openapi("Keelson", "1", COMMANDS)))
    command = document["components"]["schemas"]["Bundle"]["properties"]["commands"]["items"]
    assert command["discriminator"]["mapping"].keys() == HANDLERS.keys()


def test_what_a_command_demands_of_headers_is_said() -> None:
    document = build_openapi("Keelson", "1", COMMANDS)
    demanded = {
        path.rpartition("/")[2]: {each["name"]: each["required"] for each in methods["post"]["parameters"][:-1]}
        for path, methods in document["paths"].items()
        if "/commands/" in path
    }
    for name, handler in HANDLERS.items():
        assert demanded[name]["Keelson-Reason"] == handler.needs_reason
        assert ("If-Match" in demanded[name]) == (handler.target is not None)


def test_two_operations_cannot_share_a_method_and_a_path() -> None:
    with pytest.raises(ValueError, match="/open"):
        build_openapi("Test", "1", [*OPERATIONS, OPERATIONS[2]])


async def test_a_service_serves_its_document() -> None:
    async with running(make_app(operations=OPERATIONS)) as app:
        answer = await ask(app, "GET", "/openapi.json", token=None)
    assert answer.header("content-type") == "application/json"
    assert_sound(answer.json)
    assert {"/v1/items", "/healthz", "/readyz", "/metrics", "/openapi.json"} <= answer.json["paths"].keys()
