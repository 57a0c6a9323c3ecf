"""What is wrong with the head of a request, and what is not."""

import pytest

from keelson.service.connection import MAX_HEADER_BYTES, MAX_HEADERS, fault_of

HOST = (b"host", b"sample")
CHUNKED = (b"transfer-encoding", b"chunked")


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        ("1.1", [HOST]),
        ("1.0", []),
        ("1.1", [HOST, (b"transfer-encoding", b"Chunked")]),
        ("1.1", [HOST, *[(b"x", b"")] * (MAX_HEADERS - 1)]),
        ("1.1", [HOST, (b"x", b"x" * (MAX_HEADER_BYTES - len(b"/hostsamplex")))]),
    ],
)
def test_a_head_without_fault(version: str, headers: list[tuple[bytes, bytes]]) -> None:
    assert fault_of(version, b"/", headers) is None


@pytest.mark.parametrize(
    ("version", "headers", "code"),
    [
        ("1.1", [], "malformed"),
        ("0.9", [], "malformed"),
        ("1.0", [HOST, HOST], "malformed"),
        ("1.0", [HOST, CHUNKED], "malformed"),
        ("1.1", [HOST, CHUNKED, CHUNKED], "malformed"),
        ("1.1", [HOST, (b"transfer-encoding", b"gzip, chunked")], "malformed"),
        ("1.1", [HOST, *[(b"x", b"")] * MAX_HEADERS], "headers_too_large"),
        ("1.1", [HOST, (b"x", b"x" * (MAX_HEADER_BYTES - len(b"hostsamplex")))], "headers_too_large"),
    ],
)
def test_a_head_at_fault(version: str, headers: list[tuple[bytes, bytes]], code: str) -> None:
    fault = fault_of(version, b"/", headers)
    assert fault is not None
    assert fault.code == code
