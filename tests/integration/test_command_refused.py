"""Requests that the command service refuses before any handler runs: unfit headers, bodies, paths, credentials."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from keelson.command.registry import HANDLERS
from support.command_world import IMAGE, TOKEN, Answer, Replica, World, open_world
from support.database import Database
from support.specs import id_of

JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database) as world:
        yield world


@pytest.fixture
def replica(world: World) -> Replica:
    return world.replica


async def post(replica: Replica, body: bytes, path: str = "/v1/commands/org.create", **headers: str) -> Answer:
    """Post raw bytes."""
    return await replica.send("POST", path, headers=JSON | headers, body=body)


UNFIT_HEADERS = [
    ("Keelson-Reason", " "),
    ("Keelson-Reason", "x" * 501),
    ("Idempotency-Key", "k" * 256),
    ("Idempotency-Key", "\u00e9"),
    ("If-Match", "1"),
    ("If-Match", 'W/"1"'),
    ("If-Match", '"1"'),  # goes with no command that creates
    ("Keelson-Causation", "0"),
    ("Keelson-Correlation-Id", "a b"),
    ("Prefer", "wait=soon"),
]


async def test_an_unfit_header_is_invalid_and_named(world: World, replica: Replica) -> None:
    for header, value in UNFIT_HEADERS:
        answer = await post(replica, b'{"name": "acme"}', **{header: value})
        assert (answer.status, answer.code) == (400, "invalid"), header
        assert header in answer.body["detail"]
    assert await world.head() == 1


REPEATABLE = {
    "Keelson-Reason": "why",
    "Idempotency-Key": "key",
    "If-Match": '"1"',
    "Keelson-Correlation-Id": "id",
    "Keelson-Causation": "1",
    "Authorization": f"Bearer {TOKEN}",
}


async def test_a_repeated_header_is_invalid(replica: Replica) -> None:
    body = msgspec.json.encode({"org_id": id_of("org"), "name": "x"})
    for header, value in REPEATABLE.items():
        headers = [("Content-Type", "application/json"), (header, value), (header, value)]
        token = None if header == "Authorization" else TOKEN
        answer = await replica.send("POST", "/v1/commands/org.rename", token=token, headers=headers, body=body)
        assert (answer.status, answer.code) == (400, "invalid"), header
        assert header in answer.body["detail"]


async def test_a_header_of_ours_that_is_not_known_is_not_supported(replica: Replica) -> None:
    answer = await post(replica, b'{"name": "acme"}', **{"Keelson-Reson": "why"})
    assert (answer.status, answer.code) == (400, "not_supported")
    listed = await replica.send("GET", "/v1/commands", headers={"Keelson-Reson": "why"})
    assert (listed.status, listed.code) == (400, "not_supported")


# What a command that needs a reason needs beside its target.
_BESIDE: dict[str, dict[str, Any]] = {
    "org.set_quota": {"quota": {}},
    "org.erase_member": {"member_id": id_of("member")},
    "env.rollback": {"position": 1},
}


async def test_what_cannot_be_undone_needs_a_reason(replica: Replica) -> None:
    for name in (name for name, handler in HANDLERS.items() if handler.needs_reason):
        target = HANDLERS[name].target
        assert target is not None
        body = msgspec.json.encode({target: id_of(target.removesuffix("_id")), **_BESIDE.get(name, {})})
        answer = await post(replica, body, f"/v1/commands/{name}")
        assert (answer.status, answer.code) == (400, "reason_required"), name
        given = await post(replica, body, f"/v1/commands/{name}", **{"Keelson-Reason": "why not"})
        assert (given.status, given.code) == (404, "not_found"), name


def test_what_needs_a_reason_is_what_the_api_says() -> None:
    needing = {name for name, handler in HANDLERS.items() if handler.needs_reason}
    beside = {"env.rollback", "org.set_quota", "org.erase_member"}
    assert needing == {name for name in HANDLERS if name.endswith(".delete")} | beside


# What JSON readers take in two ways, choke on, or cannot keep; the code that it is refused with, and the reason told.
NOT_STRICT_JSON = {
    "nothing": (b"", "malformed", "truncated"),
    "half an object": (b"{", "malformed", "truncated"),
    "more than one value": (b'{"name": "acme"} x', "malformed", "trailing characters"),
    "other quotes": (b"'name'", "malformed", "invalid character"),
    "duplicate keys": (b'{"name": "acme", "name": "apex"}', "malformed", "the same key twice"),
    "duplicate keys, one escaped": (b'{"name": "acme", "n\\u0061me": "apex"}', "malformed", "the same key twice"),
    "duplicate keys deep inside": (b'{"name": {"a": [{"b": 1, "b": 1}]}}', "malformed", "the same key twice"),
    "bad UTF-8": (b'{"name": "\xff"}', "malformed", "not UTF-8"),
    "UTF-8 of a surrogate": (b'{"name": "\xed\xa0\x80"}', "malformed", "not UTF-8"),
    "a lone high surrogate": (b'{"name": "\\ud800 and more"}', "malformed", "surrogate"),
    "a lone low surrogate": (b'{"name": "\\udc00"}', "malformed", "surrogate"),
    "NaN": (b'{"name": NaN}', "malformed", "invalid character"),
    "infinity": (b'{"name": -Infinity}', "malformed", "invalid character"),
    "1e999999": (b'{"name": 1e999999}', "malformed", "out of range"),
    "5000 digits": (b'{"name": ' + b"9" * 5000 + b"}", "malformed", "out of range"),
    "deep lists": (b'{"name": ' + b"[" * 100 + b"]" * 100 + b"}", "malformed", "deep"),
    "deep objects": (b'{"a":' * 100 + b"1" + b"}" * 100, "malformed", "deep"),
    "brackets without end": (b"[" * 1_000_000, "malformed", "deep"),
    "NUL in text": (b'{"name": "a\\u0000"}', "invalid", "NUL in text at /name"),
    "NUL in a key": (b'{"a\\u0000": 1}', "invalid", "NUL in text"),
}


async def test_f38_what_is_not_strict_json_is_refused_with_its_reason(world: World, replica: Replica) -> None:
    for shape, (body, code, reason) in NOT_STRICT_JSON.items():
        for path in ("/v1/commands/org.create", "/v1/commands"):
            answer = await post(replica, body, path)
            assert (answer.status, answer.code) == (400, code), shape
            assert reason in answer.body["detail"], shape
    assert await world.head() == 1


# Bodies of org.create, and where each is wrong.
UNFIT_BODIES = [
    (b"[]", ""),
    (b"{}", "/name"),
    (b'{"name": 1}', "/name"),
    (b'{"name": ""}', "/name"),
    (b'{"name": "Acme"}', "/name"),
    (b'{"name": "acme\\n"}', "/name"),
    (b'{"name": "a\\u0000"}', "/name"),
    (b'{"name": "acme-"}', "/name"),
    (b'{"name": "' + b"a" * 64 + b'"}', "/name"),
    (b'{"name": "acme", "nome": "x"}', "/nome"),
    (b'{"name": "acme", "org_id": "app_00000000000000000000000001"}', "/org_id"),
    (b'{"name": "acme", "org_id": "org_8zzzzzzzzzzzzzzzzzzzzzzzzz"}', "/org_id"),
]


async def test_what_the_schema_refuses_is_invalid_and_pointed_at(world: World, replica: Replica) -> None:
    for body, pointer in UNFIT_BODIES:
        answer = await post(replica, body)
        assert (answer.status, answer.code) == (400, "invalid"), body
        assert [error["pointer"] for error in answer.body["errors"]] == [pointer]
    assert await world.head() == 1


async def test_deep_places_are_pointed_at(replica: Replica) -> None:
    web = {"command": ["x"], "ports": [{"name": "http", "port": 0}]}
    answer = await replica.command("release.create", app_id=id_of("app"), image=IMAGE, processes={"web": web})
    assert [error["pointer"] for error in answer.body["errors"]] == ["/processes/web/ports/0/port"]


async def test_an_unknown_command_is_unknown(replica: Replica) -> None:
    for name in ("app.crate", "env.roll_back", "secret.get", "%00", "org.create%20", "bundle"):
        answer = await post(replica, b"{}", f"/v1/commands/{name}")
        assert (answer.status, answer.code) == (404, "unknown_command"), name


OTHER_PATHS = [
    ("GET", "/v1/commands/org.create", 405, "method_not_allowed"),
    ("PUT", "/v1/commands", 405, "method_not_allowed"),
    ("POST", "/v1/commands/org.create/", 404, "not_found"),
    ("POST", "/v1/orgs", 404, "not_found"),
    ("GET", "/v1/nodes/node_1/heartbeat", 405, "method_not_allowed"),
    ("POST", "/v1/nodes/node_1/heartbeats", 404, "not_found"),
]


async def test_other_paths_and_methods(replica: Replica) -> None:
    for method, path, status, code in OTHER_PATHS:
        answer = await replica.send(method, path)
        assert (answer.status, answer.code) == (status, code), path


async def test_parameters_are_refused(world: World, replica: Replica) -> None:
    for method, path in (("POST", "/v1/commands/org.create"), ("POST", "/v1/commands"), ("GET", "/v1/commands")):
        body = b'{"name": "acme"}' if method == "POST" else None
        answer = await replica.send(method, f"{path}?dry_run=true", headers=JSON, body=body)
        assert (answer.status, answer.code) == (400, "invalid"), path
    assert await world.head() == 1


async def test_another_media_type_is_unsupported(replica: Replica) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/json2"):
        headers = {"Content-Type": content_type}
        answer = await replica.send("POST", "/v1/commands/org.create", headers=headers, body=b'{"name": "acme"}')
        assert (answer.status, answer.code) == (415, "unsupported_media_type"), content_type


async def test_a_body_of_more_than_a_mebibyte_is_too_large(world: World, replica: Replica) -> None:
    answer = await post(replica, b'{"name": "' + b"a" * 1024 * 1024 + b'"}')
    assert (answer.status, answer.code) == (413, "too_large")
    assert await world.head() == 1


async def test_nobody_else_may(world: World, replica: Replica) -> None:
    for token in (None, "wrong", TOKEN[:-1], f"{TOKEN}x"):
        body = b'{"name": "acme"}'
        answer = await replica.send("POST", "/v1/commands/org.create", token=token, headers=JSON, body=body)
        assert (answer.status, answer.code) == (401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert await world.head() == 1
