"""What is wrong with the head of a request, and what is not; and how an answer leaves."""

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from keelson.service.connection import MAX_HEADER_BYTES, MAX_HEADERS, AnswerTransport, fault_of

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


class Wire(asyncio.Transport):
    """Keeps what is written, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False
        self.socket: socket.socket | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        assert not self.closed
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed

    def close(self) -> None:
        """Take no more."""
        self.closed = True
        if self.socket is not None:
            self.socket.close()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Give the socket."""
        return self.socket if name == "socket" else default


def answer_on(wire: Any) -> AnswerTransport:
    """Give an answer to a request that came by a connection with this transport."""
    connection: Any = SimpleNamespace(transport=wire, loop=asyncio.get_running_loop())
    return AnswerTransport(connection)


async def test_an_answer_leaves_in_one_piece() -> None:
    wire = Wire()
    answer = answer_on(wire)
    answer.write(b"head ")
    answer.write(b"body")
    assert wire.written == [b"head body"]
    answer.write(b"more")
    await asyncio.sleep(0)
    assert wire.written == [b"head body", b"more"]


async def test_a_head_without_a_body_yet_leaves_by_itself() -> None:
    wire = Wire()
    answer = answer_on(wire)
    answer.write(b"head ")
    assert not wire.written
    await asyncio.sleep(0)
    assert wire.written == [b"head "]
    answer.write(b"body")
    assert wire.written == [b"head ", b"body"]


async def test_what_was_kept_is_written_before_the_end() -> None:
    wire = Wire()
    answer = answer_on(wire)
    answer.write(b"head ")
    assert not answer.is_closing()
    answer.close()
    assert wire.written == [b"head "]
    assert answer.is_closing()
    await asyncio.sleep(0)
    assert wire.written == [b"head "]


async def test_nothing_is_bounded_of_who_has_gone_already() -> None:
    wire = Wire()
    wire.socket = socket.socket()
    answer = answer_on(wire)
    answer.bound_silence(2.0)
    assert wire.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2000
    wire.close()
    answer.bound_silence(2.0)
    answer.bound_unsent(1000)
