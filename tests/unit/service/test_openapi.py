"""The OpenAPI document: complete, and made of nothing but the declarations."""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import pytest

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
    Operation(method="GET", path="/open", summary="Open", public=True),
]


@pytest.fixture
def document() -> Any:
    # As clients get it: through JSON.
    return msgspec.json.decode(msgspec.json.encode(build_openapi("Test", "1", OPERATIONS)))


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def assert_sound(document: Any) -> None:
    """Check what the specification demands of every document of this kind."""
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= document["info"].keys()
    for reference in references(document):
        target = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
    names = []
    for path, methods in document["paths"].items():
        assert path.startswith("/")
        for method, operation in methods.items():
            assert method in {"get", "put", "post", "delete", "patch", "head", "options"}
            names.append(operation["operationId"])
            assert operation["responses"]
            for response in operation["responses"].values():
                assert response["description"]
            for parameter in operation["parameters"]:
                assert {"name", "in", "required", "schema"} <= parameter.keys()
            in_path = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
            assert in_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}
    assert len(names) == len(set(names))


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
        {"name": "app_id", "in": "query", "required": False, "schema": {"type": "string"}},
    ]
    assert document["paths"]["/v1/items/{id}"]["put"]["parameters"] == [
        {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}},
        {"name": "If-Match", "in": "header", "required": True, "schema": {"type": "string"}},
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
    assert {"400", "413", "431", "500", "503"} <= codes.keys()
    assert "401" not in document["paths"]["/open"]["get"]["responses"]
    assert document["paths"]["/open"]["get"]["security"] == []


def test_two_operations_cannot_share_a_method_and_a_path() -> None:
    with pytest.raises(ValueError, match="/open"):
        build_openapi("Test", "1", [*OPERATIONS, OPERATIONS[-1]])


async def test_a_service_serves_its_document() -> None:
    async with running(make_app(operations=OPERATIONS)) as app:
        answer = await ask(app, "GET", "/openapi.json", token=None)
    assert answer.header("content-type") == "application/json"
    assert_sound(answer.json)
    assert {"/v1/items", "/healthz", "/readyz", "/metrics", "/openapi.json"} <= answer.json["paths"].keys()
