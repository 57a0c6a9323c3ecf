"""Problem details: the table, the members, and text that UTF-8 cannot hold."""

import msgspec
import pytest

from keelson.service import problems
from keelson.service.problems import PROBLEMS, FieldError, Problem, declare_rule

# The whole of the documented list: a code that is added here or there must be added in both.
DOCUMENTED = {
    400: "malformed invalid reason_required not_supported bad_cursor",
    401: "unauthenticated",
    403: "forbidden",
    404: "unknown_command not_found",
    405: "method_not_allowed",
    408: "timeout",
    409: "name_taken id_taken in_use concurrent_change idempotency_key_reuse",
    410: "cursor_expired",
    412: "seq_mismatch",
    413: "too_large",
    415: "unsupported_media_type",
    429: "rate_limited",
    431: "headers_too_large",
    500: "internal",
    503: "unavailable",
    504: "not_yet",
}


def test_the_list_of_codes_is_closed() -> None:
    expected = {code: status for status, codes in DOCUMENTED.items() for code in codes.split()}
    assert {code: kind.status for code, kind in PROBLEMS.items() if kind.status != 422} == expected
    with pytest.raises(KeyError):
        Problem("made_up", "x")


def test_a_service_declares_the_codes_of_its_rules_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "PROBLEMS", dict(PROBLEMS))
    assert declare_rule("out_of_cheese", "There is no cheese left") == "out_of_cheese"
    assert Problem("out_of_cheese", "x").status == 422
    for taken in ("out_of_cheese", "not_found"):
        with pytest.raises(ValueError, match="twice"):
            declare_rule(taken, "x")


def test_the_body_has_the_members_of_the_standard_and_ours() -> None:
    problem = Problem("invalid", "No.", errors=[FieldError("/a", "bad")], command_index=2)
    assert msgspec.json.decode(problem.body()) == {
        "type": "urn:keelson:problem:invalid",
        "title": "The request does not fit its schema",
        "status": 400,
        "detail": "No.",
        "code": "invalid",
        "errors": [{"pointer": "/a", "detail": "bad"}],
        "command_index": 2,
    }


def test_lone_surrogates_are_replaced() -> None:
    problem = Problem("invalid", "bad \ud800", errors=[FieldError("/\udfff", "x")], seen=["\ud801"])
    document = msgspec.json.decode(problem.body())
    assert (document["detail"], document["errors"][0]["pointer"], document["seen"]) == ("bad ?", "/?", ["?"])
