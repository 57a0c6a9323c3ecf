"""Where a value does not fit: the pointer names the place, keys of maps included."""

from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keelson.service.problems import Problem
from keelson.service.validation import convert

Name = Annotated[str, msgspec.Meta(pattern="^[a-z]+$")]


class Port(msgspec.Struct, forbid_unknown_fields=True):
    """At the bottom."""

    port: int


class Process(msgspec.Struct, forbid_unknown_fields=True):
    """Within a map."""

    command: list[str] = []
    health: Port | None = None
    env: dict[Name, dict[Name, int]] = {}


class Release(msgspec.Struct, forbid_unknown_fields=True):
    """At the top."""

    image: str
    processes: dict[Name, Process] = {}
    ports: list[Port] = []


def pointer_of(value: Any, at: str = "") -> str:
    with pytest.raises(Problem) as caught:
        convert(value, Release, at=at)
    [error] = caught.value.errors
    assert caught.value.code == "invalid"
    assert error.detail in caught.value.detail
    return error.pointer


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ([], ""),
        ({}, "/image"),
        ({"image": 1}, "/image"),
        ({"image": "i", "unknown": 1}, "/unknown"),
        ({"image": "i", "a`b/c~d": 1}, "/a`b~1c~0d"),
        ({"image": "i", "ports": [{"port": 1}, {"port": "2"}]}, "/ports/1/port"),
        ({"image": "i", "ports": [{"port": 1}, {}]}, "/ports/1/port"),
        ({"image": "i", "processes": {"web": {}, "worker": {"command": ["a", 1]}}}, "/processes/worker/command/1"),
        ({"image": "i", "processes": {"web": {}, "Bad/Name": {}, "also_bad": {}}}, "/processes/Bad~1Name"),
        ({"image": "i", "processes": {"a": {}, "b": {"health": {"port": None}}}}, "/processes/b/health/port"),
        ({"image": "i", "processes": {"a": {"env": {"x": {"y": 1}, "z": {"q": ""}}}}}, "/processes/a/env/z/q"),
        ({"image": "i", "processes": {"a": {"env": {"x": {"Y": 1}}}}}, "/processes/a/env/x/Y"),
        ({"image": "i", "processes": {"a": {"env": {"x": {"y": 1}, "Z": {}}}}}, "/processes/a/env/Z"),
    ],
)
def test_the_pointer_names_the_place(value: Any, pointer: str) -> None:
    assert pointer_of(value) == pointer
    assert pointer_of(value, at="/commands/3/data") == "/commands/3/data" + pointer


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_first_bad_entry_of_a_long_map_is_found(first: int, second: int) -> None:
    names = [f"{chr(97 + n // 26 % 26)}{chr(97 + n % 26)}" for n in range(301)]
    bad = {min(first, second), max(first, second)}
    processes = {name: {"command": [1 if n in bad else "ok"]} for n, name in enumerate(names)}
    assert pointer_of({"image": "i", "processes": processes}) == f"/processes/{names[min(bad)]}/command/0"


def test_what_fits_is_converted() -> None:
    assert convert({"image": "i"}, Release) == Release("i")


def test_f43_a_value_that_is_none_of_those_there_are_is_not_repeated() -> None:
    for sent in ("canary-7f3a", "a quote ' and\nanother line, at `$.x`"):
        with pytest.raises(Problem) as caught:
            convert({"a/b": sent}, dict[str, Literal["web", "jobs"]])
        assert caught.value.errors[0].pointer == "/a~1b"
        assert (caught.value.errors[0].detail, caught.value.detail) == (
            "Invalid enum value",
            "Invalid enum value at /a~1b",
        )
