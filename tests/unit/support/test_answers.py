"""The judge of answers: it could not prove that no 500 came if it did not see one."""

from typing import Any

import msgspec
import pytest

from support.answers import CAUSES, judge

TYPE = {"Content-Type": "application/problem+json"}
SOON = {**TYPE, "Retry-After": "1"}


def problem(status: int, code: str, detail: str = "why") -> bytes:
    return msgspec.json.encode({"status": status, "code": code, "detail": detail})


@pytest.mark.parametrize(
    ("path", "status", "headers", "body", "what"),
    [
        ("/v1/orgs", 200, {}, b"{}", "200"),
        ("/readyz", 503, {}, b"{}", "503"),
        ("/v1/orgs", 504, TYPE, problem(504, "not_yet"), "not_yet"),
        ("/v1/commands", 409, TYPE, problem(409, "name_taken"), "name_taken"),
        *(("/v1/orgs", 503, SOON, problem(503, "unavailable", cause), "unavailable") for cause in CAUSES),
    ],
)
def test_what_is_documented_is_no_fault(path: str, status: int, headers: Any, body: bytes, what: str) -> None:
    assert judge(path, status, headers, body) == (what, "")


@pytest.mark.parametrize(
    ("path", "status", "headers", "body"),
    [
        ("/v1/orgs", 500, TYPE, problem(500, "internal")),
        ("/v1/orgs", 500, {"Content-Type": "text/plain"}, b"Internal Server Error"),
        ("/readyz", 500, TYPE, problem(500, "internal")),
        ("/v1/orgs", 503, TYPE, problem(503, "unavailable", min(CAUSES))),
        ("/v1/orgs", 503, SOON, problem(503, "unavailable", "I was busy")),
        ("/v1/orgs", 500, SOON, problem(500, "unavailable", min(CAUSES))),
        ("/v1/orgs", 409, TYPE, problem(422, "name_taken")),
        ("/v1/orgs", 409, TYPE, problem(409, "idempotency_key_reuse")),
        ("/v1/orgs", 408, TYPE, problem(408, "timeout")),
    ],
)
def test_anything_else_is_a_fault(path: str, status: int, headers: Any, body: bytes) -> None:
    _, fault = judge(path, status, headers, body)
    assert fault
