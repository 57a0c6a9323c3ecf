"""Strict JSON: everything that could be read in two ways, or not be kept, is refused with its reason."""

import json
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keelson.service.json import MAX_DEPTH, decode, decode_json, require_json
from keelson.service.problems import FieldError, Problem


def refusal_of(body: bytes, read: Callable[[bytes], Any] = decode_json) -> Problem:
    with pytest.raises(Problem) as caught:
        read(body)
    return caught.value


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b'{"a": 1} x', "trailing"),
        (b'{"a": 1,}', "trailing comma"),
        (b"\xef\xbb\xbf{}", "invalid character"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "UTF-8"),
        (b"{'a': 1}", "strings"),
        (b'{"a": NaN}', "invalid character"),
        (b'{"a": Infinity}', "invalid character"),
        (b'{"a": -Infinity}', "invalid"),
        (b'{"a": 1e999999}', "out of range"),
        (b'{"a": ' + b"9" * 5000 + b"}", "out of range"),
        (b'"\\ud800"', "truncated"),
        (b'"\\ud800 and more text"', "surrogate"),
        (b'"\\udc00"', "surrogate"),
        (b'"\x01"', "invalid character"),
        (b'{"a": 1, "a": 2}', "same key twice"),
        (b'{"a": 1, "\\u0061": 2}', "same key twice"),
        (b'{"x": [{"a": {"b:": 1}, "a": {}}]}', "same key twice"),
        (b'{"a" :1, "a" :2, "c": ":"}', "same key twice"),
        (b'{"a": "\\u003a", "a": ":"}', "same key twice"),
        (nested(MAX_DEPTH + 1), "deep"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "deep"),
        (b"[" * 2**20, "deep"),
    ],
)
def test_f38_what_is_not_strict_json_is_malformed(body: bytes, reason: str) -> None:
    problem = refusal_of(body)
    assert (problem.status, problem.code) == (400, "malformed")
    assert reason in problem.detail


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "x:y", "b": "\\":", "c": {"a": "::"}}',
        b' { "a" : [ 1 , { "a" : "\\\\" } ] } ',
        b'{"a\\u003a": 1, "a": 2, ":": ":"}',
        b'"\\ud83d\\ude00"',
        nested(MAX_DEPTH),
        b"[" + b"[]," * 100 + b"[]]",
    ],
)
def test_what_is_strict_json_is_read_as_json_reads_it(body: bytes) -> None:
    assert decode_json(body) == json.loads(body)


SCALARS = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(':"\\a\n é\u0001', max_size=4)


def _write(value: Any, draw: st.DrawFn) -> str:
    """Write JSON with arbitrary blanks and escapes; lists of pairs in a tuple are objects, keys may be repeated."""
    blank = draw(st.sampled_from(["", " ", "\n"]))
    if isinstance(value, tuple):
        members = (f"{_write(key, draw)}{blank}:{blank}{_write(item, draw)}" for key, item in value)
        return "{" + f"{blank},".join(members) + "}"
    if isinstance(value, list):
        return f"[{blank}" + ",".join(_write(item, draw) for item in value) + "]"
    if isinstance(value, str) and draw(st.booleans()):
        return '"' + "".join(f"\\u{ord(each):04x}" for each in value) + '"'
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


@st.composite
def documents(draw: st.DrawFn) -> str:
    keys = st.text(':"\\ab', max_size=2)
    value = draw(
        st.recursive(
            SCALARS,
            lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(keys, inner), max_size=4).map(tuple),
        )
    )
    return _write(value, draw)


class _RepeatedError(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _RepeatedError
    return dict(pairs)


@given(documents())
def test_f38_repeated_keys_are_found_exactly_where_the_standard_library_finds_them(document: str) -> None:
    try:
        expected = json.loads(document, object_pairs_hook=_unique)
    except _RepeatedError:
        assert "same key twice" in refusal_of(document.encode()).detail
    else:
        assert decode_json(document.encode()) == expected


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'"a\\u0000"', ""),
        (b'{"a": ["x", {"b/c": "\\u0000"}]}', "/a/1/b~1c"),
        (b'{"a": {"\\u0000": 1}}', "/a/\0"),
    ],
)
def test_f38_nul_in_text_is_invalid_and_pointed_at(body: bytes, pointer: str) -> None:
    problem = refusal_of(body)
    assert problem.code == "invalid"
    assert [error.pointer for error in problem.errors] == [pointer]


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert decode_json(b'"\\\\u0000"') == "\\u0000"


class Point(msgspec.Struct, forbid_unknown_fields=True):
    """A struct like those of commands."""

    x: Annotated[int, msgspec.Meta(ge=0)]
    label: str | None = None


def test_a_struct_is_decoded() -> None:
    assert decode(b'{"x": 1, "label": "a"}', Point) == Point(1, "a")


def test_what_does_not_fit_the_struct_is_invalid() -> None:
    problem = refusal_of(b'{"x": -1}', lambda body: decode(body, Point))
    assert (problem.status, problem.code) == (400, "invalid")
    assert problem.errors == (FieldError("/x", "Expected `int` >= 0"),)


@pytest.mark.parametrize(
    "value", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
def test_json_content_types(value: str) -> None:
    require_json([(b"content-type", value.encode())])


@pytest.mark.parametrize(
    "values",
    [
        [],
        [b""],
        [b"text/plain"],
        [b"application/json; charset=latin-1"],
        [b"application/json-patch+json"],
        [b"application/json"] * 2,
    ],
)
def test_other_content_types_are_refused(values: list[bytes]) -> None:
    with pytest.raises(Problem) as caught:
        require_json([(b"content-type", value) for value in values])
    assert caught.value.status == 415
