"""Query parameters: read by their declaration, refused by name."""

from typing import Annotated, Literal

import msgspec
import pytest

from keelson.service.parameters import MAX_PARAMETERS, decode_parameters
from keelson.service.problems import Problem


class Paging(msgspec.Struct, frozen=True):
    """Parameters of all kinds."""

    name: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100
    deleted: bool = False
    order: Literal["asc", "desc"] = "asc"
    app: str | None = msgspec.field(default=None, name="app_id")


def refusal_of(query: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        decode_parameters(query, Paging, not_built=("as_of",))
    return caught.value


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", Paging()),
        (b"limit=5&deleted=true&order=desc", Paging(limit=5, deleted=True, order="desc")),
        (b"name=null", Paging(name="null")),
        (b"name=&app_id=x", Paging(name="", app="x")),
        (b"name=%C3%A9+%26", Paging(name="é &")),
    ],
)
def test_what_is_read(query: bytes, expected: Paging) -> None:
    assert decode_parameters(query, Paging, not_built=("as_of",)) == expected


@pytest.mark.parametrize(
    ("query", "named"),
    [
        (b"limti=5", "limti"),
        (b"app=x", "app"),
        (b"limit=5&limit=5", "limit"),
        (b"limit=0", "limit"),
        (b"limit=501", "limit"),
        (b"limit=many", "limit"),
        (b"limit=", "limit"),
        (b"deleted=maybe", "deleted"),
        (b"order=up", "order"),
        (b"name=a%00b", "name"),
    ],
)
def test_an_unfit_parameter_is_invalid_and_named(query: bytes, named: str) -> None:
    problem = refusal_of(query)
    assert (problem.status, problem.code) == (400, "invalid")
    assert f"parameter {named}" in problem.detail


@pytest.mark.parametrize("query", [b"name", b"&&", b"name=%FF", b"name=\xff", b"name=x&" * (MAX_PARAMETERS + 1)])
def test_a_query_string_that_is_none_is_invalid(query: bytes) -> None:
    assert refusal_of(query).code == "invalid"


def test_a_parameter_that_is_not_built_yet_says_so() -> None:
    problem = refusal_of(b"as_of=7")
    assert problem.code == "not_supported"
    assert "as_of" in problem.detail


def test_f43_a_value_that_is_none_of_those_there_are_is_not_repeated() -> None:
    assert refusal_of(b"order=canary-7f3a").detail == "The parameter order: Invalid enum value"
    assert "canary" not in refusal_of(b"order=canary%20-%20at%20`$.limit`").detail
