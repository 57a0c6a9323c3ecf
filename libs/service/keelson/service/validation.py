"""From decoded JSON to structs; what does not fit is a Problem that points at the place (RFC 6901).

msgspec names the place as `$.processes[...].ports[0].port`: the keys of maps are left out. Which key it was is found
by converting again with ever fewer entries: msgspec reports the first misfit in order, so bisecting finds it in about
log2(entries) conversions, and only of requests that are refused anyway.
"""

import re
from typing import Any, NoReturn, TypeVar

import msgspec

from keelson.service.problems import FieldError, Problem

T = TypeVar("T")

_MESSAGE = re.compile(r"(?P<what>.*?)(?: - at (?P<key>`key` in )?`(?P<path>\$.*)`)?", re.DOTALL)
_FIELD = re.compile(r"Object (?:contains unknown|missing required) field `(?P<name>.*)`", re.DOTALL)
# What was sent instead may be personal or a secret in the wrong field; it is not repeated (F43).
_ENUM_VALUE = re.compile(r"^Invalid enum value .*", re.DOTALL)
_STEP = re.compile(r"\.(?P<field>[^.\[]+)|\[(?P<index>\d+)\]|(?P<any>\[\.\.\.\])")

Token = str | int


def convert(value: Any, type_: type[T], *, at: str = "") -> T:
    """Convert decoded JSON to a struct; raise Problem `invalid` for the first misfit, its pointer beginning with `at`.

    A missing or unknown field is pointed at by its own name.
    """
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        _refuse(value, type_, str(error), at)


def _refuse(value: Any, type_: Any, message: str, at: str) -> NoReturn:
    parsed = _MESSAGE.fullmatch(message)
    assert parsed is not None  # noqa: S101 - every part of the pattern is optional
    what = without_value(parsed["what"])
    tokens = _resolve(value, type_, message, parsed["path"] or "$")
    if parsed["key"]:
        tokens.append(_failing_key(value, type_, message, tokens))
    if field := _FIELD.fullmatch(what):
        tokens.append(field["name"])
    pointer = at + "".join(f"/{escape_token(token)}" for token in tokens)
    raise Problem("invalid", f"{what} at {pointer or 'the top'}", errors=[FieldError(pointer, what)]) from None


def without_value(what: str) -> str:
    """Give what msgspec says of a value, without the value."""
    return _ENUM_VALUE.sub("Invalid enum value", what)


def escape_token(token: Token) -> str:
    """Write one step of a JSON Pointer."""
    return str(token).replace("~", "~0").replace("/", "~1")


def _resolve(value: Any, type_: Any, message: str, path: str) -> list[Token]:
    tokens: list[Token] = []
    for step in _STEP.finditer(path, 1):
        if step["any"]:
            tokens.append(_failing_key(value, type_, message, tokens))
        else:
            tokens.append(step["field"] or int(step["index"]))
    return tokens


def _failing_key(value: Any, type_: Any, message: str, tokens: list[Token]) -> str:
    entries = list(_read(value, tokens).items())
    low, high = 1, len(entries)
    while low < high:
        middle = (low + high) // 2
        if _message(_with(value, tokens, dict(entries[:middle])), type_) == message:
            high = middle
        else:
            low = middle + 1
    key: str = entries[low - 1][0]
    return key


def _read(value: Any, tokens: list[Token]) -> Any:
    for token in tokens:
        value = value[token]
    return value


def _with(value: Any, tokens: list[Token], replacement: Any) -> Any:
    """Give a copy of the value, sharing what is unchanged, with another one at a place."""
    if not tokens:
        return replacement
    copy = value.copy()
    copy[tokens[0]] = _with(value[tokens[0]], tokens[1:], replacement)
    return copy


def _message(value: Any, type_: Any) -> str | None:
    try:
        msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        return str(error)
    return None
