"""Query parameters as a struct: the same declaration validates them and documents them in OpenAPI."""

from collections.abc import Collection
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request

from keelson.service.problems import Problem
from keelson.service.validation import without_value

T = TypeVar("T", bound=msgspec.Struct)

MAX_PARAMETERS = 100


def read_parameters(request: Request, type_: type[T], *, not_built: Collection[str] = ()) -> T:
    """Read the query string into a struct, every field of which is a parameter under its encoded name.

    Raises Problem `invalid`, naming the parameter, for an unknown, repeated or unfit one, and `not_supported` for one
    of `not_built`: those that the API knows and this version does not have yet.
    """
    query_string: bytes = request.scope["query_string"]
    return decode_parameters(query_string, type_, not_built=not_built)


def decode_parameters(query_string: bytes, type_: type[T], *, not_built: Collection[str] = ()) -> T:
    """Do what read_parameters says, with the bytes after the question mark."""
    values: dict[str, str] = {}
    for name, value in _split(query_string):
        _check(name, value, type_, not_built, repeated=name in values)
        values[name] = value
    try:
        return msgspec.convert(values, type_, strict=False)
    except msgspec.ValidationError as error:
        raise Problem("invalid", _named(str(error))) from None


def _split(query_string: bytes) -> list[tuple[str, str]]:
    if not query_string:
        return []
    try:
        return parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError:
        raise Problem("invalid", "The query string is not a list of name=value in UTF-8") from None


def _check(name: str, value: str, type_: type[T], not_built: Collection[str], *, repeated: bool) -> None:
    if name in not_built:
        raise Problem("not_supported", f"The parameter {name} is not built yet")
    if name not in type_.__struct_encode_fields__:
        raise Problem("invalid", f"There is no parameter {name} here")
    if repeated:
        raise Problem("invalid", f"The parameter {name} stands more than once")
    if "\0" in value:
        raise Problem("invalid", f"The parameter {name} holds NUL")


def _named(message: str) -> str:
    what, _, path = message.rpartition(" - at `$.")
    return f"The parameter {path.rstrip('`')}: {without_value(what)}" if what else path
