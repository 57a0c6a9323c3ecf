"""The headers of commands: what is read, and what is refused by name."""

import msgspec
import pytest

from keelson.command.headers import CommandHeaders, read_command_headers
from keelson.service.problems import Problem

TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def refusal_of(*headers: tuple[bytes, bytes]) -> Problem:
    with pytest.raises(Problem) as caught:
        read_command_headers(list(headers))
    return caught.value


def test_no_header_is_required() -> None:
    assert read_command_headers([(b"host", b"x"), (b"content-type", b"application/json")]) == CommandHeaders()


def test_every_header_is_read() -> None:
    headers = [
        (b"keelson-reason", "größer, weil nötig".encode()),
        (b"idempotency-key", b"deploy 42 / try #1"),
        (b"if-match", b'"7"'),
        (b"prefer", b"wait=2"),
        (b"keelson-correlation-id", b"incident-1.a_B"),
        (b"keelson-causation", b"41"),
        (b"traceparent", TRACEPARENT),
    ]
    assert msgspec.structs.asdict(read_command_headers(headers)) == {
        "reason": "größer, weil nötig",
        "idempotency_key": "deploy 42 / try #1",
        "if_match": 7,
        "wait_s": 2,
        "correlation_id": "incident-1.a_B",
        "causation_id": 41,
        "traceparent": TRACEPARENT.decode(),
    }


def test_f26_an_entity_tag_that_has_an_epoch_is_good_for_its_seq() -> None:
    assert read_command_headers([(b"if-match", b'"7.0123abcd"')]).if_match == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"keelson-reason", b"\xff"),
        (b"keelson-reason", b""),
        (b"keelson-reason", b"  "),
        (b"keelson-reason", b"a\x00b"),
        (b"keelson-reason", "é".encode() * 501),
        (b"idempotency-key", b""),
        (b"idempotency-key", b"k" * 256),
        (b"idempotency-key", "é".encode()),
        (b"idempotency-key", b"a\tb"),
        (b"if-match", b"7"),
        (b"if-match", b'W/"7"'),
        (b"if-match", b'"7", "8"'),
        (b"if-match", b"*"),
        (b"if-match", b'"07"'),
        (b"if-match", b'"7-0123abcd"'),
        (b"if-match", b'"7."'),
        (b"if-match", b'".epoch"'),
        (b"if-match", b'"-1"'),
        (b"if-match", b'"9223372036854775808"'),
        (b"keelson-correlation-id", b"a b"),
        (b"keelson-correlation-id", b""),
        (b"keelson-correlation-id", b"a" * 129),
        (b"keelson-causation", b"0"),
        (b"keelson-causation", b"1.0"),
        (b"keelson-causation", b"9223372036854775808"),
        (b"prefer", b"wait=soon"),
    ],
)
def test_an_unfit_header_is_invalid_and_named(name: bytes, value: bytes) -> None:
    problem = refusal_of((name, value))
    assert (problem.status, problem.code) == (400, "invalid")
    assert name.decode().title() in problem.detail


def test_the_longest_fit() -> None:
    headers = [(b"keelson-reason", "é".encode() * 500), (b"idempotency-key", b"~" * 255), (b"if-match", b'"0"')]
    read = read_command_headers(headers)
    assert (len(read.reason or ""), len(read.idempotency_key or ""), read.if_match) == (500, 255, 0)


@pytest.mark.parametrize("name", [b"keelson-reason", b"idempotency-key", b"keelson-causation"])
def test_a_repeated_header_is_invalid(name: bytes) -> None:
    assert "repeated" in refusal_of((name, b"1"), (name, b"1")).detail


def test_a_misspelt_header_of_ours_is_not_ignored() -> None:
    problem = refusal_of((b"keelson-reson", b"why"))
    assert problem.code == "not_supported"
    assert "Keelson-Reson" in problem.detail


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"garbage",
        TRACEPARENT.upper(),
        b"ff" + TRACEPARENT[2:],
        b"00-" + b"0" * 32 + TRACEPARENT[35:],
        TRACEPARENT + b"-x",
    ],
)
def test_an_unfit_traceparent_is_ignored(value: bytes) -> None:
    assert read_command_headers([(b"traceparent", value)]).traceparent is None


def test_a_repeated_traceparent_is_ignored() -> None:
    assert read_command_headers([(b"traceparent", TRACEPARENT)] * 2).traceparent is None
