"""The front by itself, on raw sockets: what it refuses, what it passes on, what it never repeats, what it keeps open.

Behind it is not Keelson but a stub that notes each request as it came, and misbehaves where it is told to.
"""

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from support.containers import Composed, Container, wait_until
from support.waiting import free_port

STUB = Path(__file__).with_name("stub.py")
DEADLINE_S = 10.0
SILENCE_S = 60.0
# The interval of the front's checks, and what a busy machine adds.
FOUND_OUT_S = 2.0


@dataclass(frozen=True)
class Answer:
    """What came back: the status (0 for none), headers by lower-case name, the body; and when the connection ended."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def code(self) -> str:
        """The problem's code; fails for what is no problem, or says another status than it has."""
        problem = json.loads(self.body)
        assert self.headers["content-type"] == "application/problem+json"
        assert problem["status"] == self.status
        assert problem["type"] == f"urn:keelson:problem:{problem['code']}"
        assert self.headers["x-request-id"]
        return str(problem["code"])


@dataclass(frozen=True)
class Front:
    """A front in front of a stub, alone on a network."""

    network: Any
    engine: Any
    port: int

    def send(self, request: bytes, *, until: bytes | None = None, timeout_s: float = 2 * DEADLINE_S) -> list[Answer]:
        """Send bytes on a connection of their own and read until it ends, or until these come; give all answers."""
        begun = time.monotonic()
        received = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            try:
                connection.sendall(request)
                while (until is None or until not in received) and (part := connection.recv(65536)):
                    received += part
            except (ConnectionResetError, BrokenPipeError):
                pass
        return list(_answers(received, time.monotonic() - begun))

    def seen(self) -> list[str]:
        """Give what the stub has seen so far."""
        (answer,) = self.send(_request("GET", "/seen"))
        return [str(each) for each in json.loads(answer.body)]

    @contextmanager
    def stub(self, *, ready: bool) -> Iterator[Container]:
        """Run a stub that the front finds as a replica of both services."""
        container = self.engine.containers.create(
            "keelson-cli:test",
            entrypoint=["python", "/stub.py", "8081,8082", "ready" if ready else "never"],
            volumes=[f"{STUB}:/stub.py:ro"],
            network_disabled=False,
        )
        try:
            self.engine.networks.get("bridge").disconnect(container)
            self.network.connect(container, aliases=["command", "query"])
            container.start()
            yield container
        finally:
            container.remove(force=True)


def _request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: keelson", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _answers(received: bytes, seconds: float) -> Iterator[Answer]:
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", len(rest)))
        yield Answer(int(status.split(" ")[1]), headers, rest[:length], seconds)
        received = rest[length:]


@pytest.fixture(scope="session")
def front(stack: Composed) -> Iterator[Front]:
    """Run a front and a stub, from the images of the stack."""
    engine, port = stack.engine, free_port()
    network = engine.networks.create(f"keelson-test-front-{os.getpid()}")
    front = Front(network, engine, port)
    try:
        with front.stub(ready=True):
            container = engine.containers.run(
                "keelson-front:test",
                detach=True,
                network=network.name,
                ports={"8082/tcp": ("127.0.0.1", port)},
                read_only=True,
                cap_drop=["ALL"],
            )
            try:
                wait_until(lambda: _is_open(front), 30)
                yield front
            finally:
                container.remove(force=True)
    finally:
        network.remove()


def _is_open(front: Front) -> bool:
    try:
        return [each.status for each in front.send(_request("GET", "/v1/x"))] == [200]
    except OSError:
        return False


@pytest.fixture(scope="session")
def long_stream(front: Front) -> Iterator[socket.socket]:
    """Open a stream that says something every 15 s, before anything else happens here."""
    with socket.create_connection(("127.0.0.1", front.port), timeout=DEADLINE_S) as connection:
        connection.sendall(_request("GET", "/v1/long"))
        received = b""
        while b":\n\n" not in received:
            received += connection.recv(65536)
        yield connection


@pytest.fixture(scope="session")
def opened_at(long_stream: socket.socket) -> float:
    """Tell when it was opened."""
    assert long_stream.fileno() > 0
    return time.monotonic()


@pytest.mark.usefixtures("opened_at")
@pytest.mark.parametrize(
    ("request_", "code", "seconds"),
    [
        pytest.param(_request("GET", "/", f"X: {'a' * 20_000}"), "headers_too_large", 0, id="large head"),
        pytest.param(_request("POST", "/", "Content-Length: 1048577"), "too_large", 0, id="large body"),
        pytest.param(_request("POST", "/", "Content-Length: 9", body=b"{"), "timeout", DEADLINE_S, id="slow body"),
    ],
)
def test_f35_f36_what_is_too_large_or_too_slow_is_refused_as_the_services_do(
    front: Front, request_: bytes, code: str, seconds: float
) -> None:
    before = front.seen()
    # It goes on waiting for a body that it has refused, as for any other silence.
    (answer,) = front.send(request_, until=b"}")
    assert answer.code == code
    assert seconds <= answer.seconds < seconds + 2
    assert front.seen() == before


def test_f35_a_slow_head_and_silence_are_cut_after_the_deadline(front: Front) -> None:
    before = front.seen()
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(front.send, b"GET / HTTP/1.1\r\n")
        silent = threads.submit(front.send, b"")
        (answer,) = slow.result()
        assert silent.result() == []
    assert answer.status == 408
    assert answer.seconds == pytest.approx(DEADLINE_S, abs=2)
    assert front.seen() == before


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", id="two hosts"),
        pytest.param(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", id="space before the colon"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", id="bare CR"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", id="NUL"),
        pytest.param(b"GET /\r\n\r\n", id="HTTP/0.9"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2 without TLS"),
        pytest.param(b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", id="two hosts, one in the target"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", id="two lengths"
        ),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\n{}", id="a signed length"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="coding"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\n\n", id="chunks ended by LF"),
        pytest.param(_request("GET", "/", f"X: {'a' * 200_000}"), id="a head beyond all bounds"),
    ],
)
def test_f37_what_can_be_read_in_two_ways_is_refused(front: Front, request_: bytes) -> None:
    before = front.seen()
    answers = front.send(request_)
    assert answers
    assert {each.status for each in answers} <= {400, 422}
    assert front.seen() == before


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(
            b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%b"
            % (len(SMUGGLED) + 5, SMUGGLED),
            {"host": ["a"], "transfer-encoding": ["chunked"]},
            id="length beside chunks",
        ),
        pytest.param(
            b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
            {"host": ["a"], "content-length": ["2"]},
            id="the same length twice",
        ),
        pytest.param(
            b"GET /v1/x HTTP/1.1\r\nHost: a\r\nHost: a\r\nConnection: close\r\n\r\n",
            {"host": ["a"]},
            id="one host twice",
        ),
        pytest.param(b"GET /v1/x HTTP/1.1\nHost: a\nConnection: close\n\n", {"host": ["a"]}, id="lines ended by LF"),
        pytest.param(
            b"GET /v1/x HTTP/1.1\r\nHost: a\r\nX: b\r\n Host: c\r\nConnection: close\r\n\r\n",
            {"host": ["a"]},
            id="a folded line",
        ),
    ],
)
def test_f37_what_is_passed_on_can_be_read_in_one_way_alone(
    front: Front, request_: bytes, expected: dict[str, list[str]]
) -> None:
    """Where HAProxy mends instead of refusing, the service gets one request, with one host and one length."""
    before = len(front.seen())
    (answer,) = front.send(request_)
    (passed_on,) = front.seen()[before:]
    assert answer.status == 200
    head = passed_on.split("\r\n")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in head[1:] if line)]
    framing = ("host", "content-length", "transfer-encoding")
    found = {name: [value for known, value in headers if known == name] for name in framing}
    assert {name: values for name, values in found.items() if values} == expected
    assert not re.search(r"(?<!\r)\n", passed_on)


def test_a_request_that_was_sent_is_never_sent_again(front: Front) -> None:
    """The replica is gone without an answer: 503, once, and nobody else gets it."""
    with front.stub(ready=True) as second:
        wait_until(lambda: second.logs() != b"", 20)
        for method in ("POST", "GET"):
            before = front.seen().count(f"{method} /v1/drop")
            (answer,) = front.send(_request(method, "/v1/drop", "Content-Length: 2", body=b"{}"))
            assert (answer.status, answer.code) == (503, "unavailable")
            assert answer.headers["retry-after"] == "1"
            assert sum(line.startswith(f"{method} /v1/drop") for line in front.seen()) <= before + 1


def test_a_replica_that_is_not_ready_is_found_out_at_once(front: Front) -> None:
    """Requests go on while it appears; it gets some until its first check at most, and none after that."""
    refused = []
    with front.stub(ready=False):
        until = time.monotonic() + 5
        while (now := time.monotonic()) < until:
            (answer,) = front.send(_request("GET", "/v1/x"))
            if answer.status != 200:
                refused.append(now)
    assert not refused or refused[-1] - refused[0] < FOUND_OUT_S


def test_a_stream_is_passed_on_as_it_comes(front: Front) -> None:
    """Five comments, each sent alone: each arrives alone, long before the stream ends."""
    with socket.create_connection(("127.0.0.1", front.port), timeout=DEADLINE_S) as connection:
        connection.sendall(_request("GET", "/v1/stream"))
        arrivals = []
        while part := connection.recv(65536):
            arrivals += [time.monotonic()] * part.count(b":\n\n")
    assert len(arrivals) == 5
    assert min(later - earlier for earlier, later in pairwise(arrivals)) > 0.1


def test_without_a_replica_the_front_says_that_nothing_was_promised(stack: Composed) -> None:
    engine, port = stack.engine, free_port()
    container = engine.containers.run(
        "keelson-front:test", detach=True, ports={"8081/tcp": ("127.0.0.1", port)}, read_only=True, cap_drop=["ALL"]
    )
    alone = Front(None, engine, port)
    try:
        wait_until(lambda: _answers_at_all(alone), 20)
        (answer,) = alone.send(_request("POST", "/v1/commands/org.create", "Content-Length: 2", body=b"{}"))
    finally:
        container.remove(force=True)
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "unavailable", "1")


def _answers_at_all(front: Front) -> bool:
    try:
        return bool(front.send(_request("GET", "/")))
    except OSError:
        return False


def test_f33_a_stream_outlives_every_deadline_while_it_says_something(
    long_stream: socket.socket, opened_at: float
) -> None:
    """A comment every 15 s keeps it: it is open when all that the front allows for silence has passed."""
    comments = b""
    long_stream.settimeout(20)
    while time.monotonic() < opened_at + SILENCE_S + 12:
        part = long_stream.recv(65536)
        assert part, "the stream was cut"
        comments += part
    assert comments.count(b":\n\n") >= 4
