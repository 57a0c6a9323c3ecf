"""Hostile clients on raw sockets against a real process: too slow (F35), too large (F36), ambiguous (F37).

And the services themselves, told to stop while requests wait (F33).
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from integration import test_service_http as service
from support.database import Database
from support.keys import DIGEST_KEY, SECRET_KEYS
from support.query_world import open_world
from support.waiting import eventually, free_port

DEADLINE_S = 0.4
# For a slow machine; far below any other bound of the service's.
LEEWAY_S = 4.0
KIB = 1024
MIB = 1024 * KIB

TYPED = f"Authorization: Bearer {service.TOKEN}\r\nContent-Type: application/json\r\n"
GREET = f"POST /greet HTTP/1.1\r\nHost: sample\r\n{TYPED}"
CHUNKED = f"{GREET}Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: sample\r\n\r\n"

start = service.start


@pytest.fixture
async def sample(start: service.Start) -> service.Sample:
    """Lend a service with short deadlines."""
    return await start(
        flaw=service.NO_DATABASE,
        until="/readyz",
        receive_deadline_s=str(DEADLINE_S),
        body_deadline_s=str(DEADLINE_S),
    )


class Client:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> service.Answer:
        """Read an answer."""
        return await service.read_answer(self.reader)

    async def problem(self) -> tuple[int, str]:
        """Read an answer that is a problem and the connection's last: its status and code."""
        answer = await self.answer()
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["connection"] == "close"
        assert answer.json["status"] == answer.status
        assert await self.is_cut()
        return answer.status, answer.json["code"]

    async def is_cut(self) -> bool:
        """Wait for the end of the connection; nothing may come before it."""
        async with asyncio.timeout(DEADLINE_S + LEEWAY_S):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True

    async def trickle(self, data: bytes) -> None:
        """Send byte by byte, again and again, until the connection is cut: never silent for a deadline."""
        try:
            while not self.writer.is_closing():
                for byte in data:
                    self.writer.write(bytes([byte]))
                    await self.writer.drain()
                    await asyncio.sleep(DEADLINE_S / 8)
        except ConnectionError:
            pass

    async def flood(self, data: bytes, limit_bytes: int) -> None:
        """Send this again and again, as fast as it is taken, until the connection is cut."""
        try:
            for _ in range(limit_bytes // len(data)):
                self.writer.write(data)
                await self.writer.drain()
        except ConnectionError:
            pass


@asynccontextmanager
async def connected(sample: service.Sample, data: str | bytes = b"") -> AsyncIterator[Client]:
    """Open a connection, and send something."""
    client = Client(*await sample.connect())
    client.writer.write(data.encode("latin-1") if isinstance(data, str) else data)
    try:
        yield client
    finally:
        client.writer.transport.abort()


@asynccontextmanager
async def sending(client: Client, data: bytes) -> AsyncIterator[None]:
    """Trickle meanwhile."""
    task = asyncio.create_task(client.trickle(data))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def assert_serves(sample: service.Sample) -> None:
    """Others are served."""
    async with asyncio.timeout(LEEWAY_S):
        assert (await sample.ask("POST", "/greet", body=b'{"name": "x"}')).json == {"hello": "x"}


def memory_of(sample: service.Sample) -> int:
    """Give the process's resident memory, in bytes."""
    lines = Path(f"/proc/{sample.process.pid}/status").read_text().splitlines()
    [resident] = [line.split()[1] for line in lines if line.startswith("VmRSS")]
    return int(resident) * KIB


# ---- F35: too slow --------------------------------------------------------------------------------------------------


async def test_f35_a_silent_connection_is_cut(sample: service.Sample) -> None:
    began = time.monotonic()
    async with connected(sample) as client:
        await assert_serves(sample)
        assert await client.is_cut()
    assert time.monotonic() - began >= DEADLINE_S / 2


@pytest.mark.parametrize(
    "head", ["GET /healthz HTTP/1.1\r\n", "GET /heal", "GET /healthz HTTP/1.1\r\nHost: sample\r\nX-"]
)
async def test_f35_a_head_that_stops_is_timed_out(sample: service.Sample, head: str) -> None:
    async with connected(sample, head) as client:
        assert await client.problem() == (408, "timeout")


async def test_f35_a_head_that_trickles_is_timed_out_as_a_whole(sample: service.Sample) -> None:
    async with (
        connected(sample, "GET /healthz HTTP/1.1\r\nHost: sample\r\n") as client,
        sending(client, b"X-Slow: x\r\n"),
    ):
        assert await client.problem() == (408, "timeout")


async def test_f35_a_head_that_ends_after_its_deadline_is_no_request(sample: service.Sample) -> None:
    async with connected(sample, "GET /nothing HTTP/1.1\r\nHost: sample\r\n") as client:
        assert (await client.answer()).status == 408
        client.writer.write(b"X: y\r\n\r\n")
        assert await client.is_cut()
    await assert_serves(sample)
    await eventually(lambda: sample.logged("request_served"))
    assert [line["route"] for line in sample.logged("request_served")] == ["/greet"]


async def test_f35_empty_lines_keep_no_connection(sample: service.Sample) -> None:
    async with connected(sample, service.request_bytes("GET", "/healthz")) as client:
        assert (await client.answer()).status == 200
        async with sending(client, b"\r\n"):
            assert await client.problem() == (408, "timeout")


async def test_f35_a_body_that_trickles_is_timed_out(sample: service.Sample) -> None:
    async with connected(sample, f"{GREET}Content-Length: 1000\r\n\r\n") as client, sending(client, b"x"):
        assert await client.problem() == (408, "timeout")


async def test_f35_a_body_that_trickles_after_its_answer_is_cut(sample: service.Sample) -> None:
    head = "POST /greet HTTP/1.1\r\nHost: sample\r\nContent-Length: 1000\r\n\r\n"
    async with connected(sample, head) as client:
        assert (await client.answer()).status == 401
        async with sending(client, b"x"):
            assert await client.is_cut()


async def test_f35_a_body_that_ends_after_its_answer_leaves_a_good_connection(sample: service.Sample) -> None:
    async with connected(sample, "POST /greet HTTP/1.1\r\nHost: sample\r\nContent-Length: 3\r\n\r\n") as client:
        assert (await client.answer()).status == 401
        for part in (b"a", b"bc", service.request_bytes("GET", "/healthz")):
            client.writer.write(part)
            await client.writer.drain()
        assert (await client.answer()).status == 200


async def test_f35_a_deadline_does_not_cut_an_answer_off(sample: service.Sample) -> None:
    """A head that stops behind a request that is still being worked on: the request is answered first."""
    async with connected(sample, service.request_bytes("GET", "/slow") + b"GET /heal") as client:
        await eventually(lambda: sample.logged("connection_refused"))
        (sample.folder / "go-on").touch()
        assert (await client.answer()).json == {"slept": True}
        assert await client.problem() == (408, "timeout")


async def test_f35_a_crowd_of_slow_clients_leaves_nothing_behind(sample: service.Sample) -> None:
    await assert_serves(sample)
    sockets = sample.files
    clients = [Client(*await sample.connect()) for _ in range(200)]
    for number, client in enumerate(clients):
        client.writer.write(b"GET /healthz HTTP/1.1\r\nX-"[: number % 20])
    await assert_serves(sample)
    await asyncio.gather(*(client.reader.read() for client in clients))
    for client in clients:
        client.writer.transport.abort()
    await eventually(lambda: sample.files <= sockets)
    await assert_serves(sample)


# ---- F36: too large -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        f"GET /healthz HTTP/1.1\r\nHost: sample\r\nX-Large: {'x' * 17 * KIB}\r\n\r\n",
        f"GET /healthz HTTP/1.1\r\nHost: sample\r\n{'x' * 17 * KIB}: x\r\n\r\n",
        f"GET /healthz?{'x' * 17 * KIB} HTTP/1.1\r\nHost: sample\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: sample\r\n" + "X: y\r\n" * 100 + "\r\n",
        f"GET /healthz HTTP/1.1\r\nHost: sample\r\nX-Large: {'x' * 40 * KIB}",
        f"GET /{'x' * 40 * KIB}",
    ],
    ids=["value", "name", "url", "many", "endless value", "endless url"],
)
async def test_f36_a_large_head_is_refused(sample: service.Sample, head: str) -> None:
    async with connected(sample, head) as client:
        assert await client.problem() == (431, "headers_too_large")
    await assert_serves(sample)


@pytest.mark.parametrize("data", [b"x" * 64 * KIB, b"X: y\r\n" * 1000], ids=["one", "many"])
async def test_f36_endless_headers_cost_no_memory(sample: service.Sample, data: bytes) -> None:
    await assert_serves(sample)
    memory, sockets = memory_of(sample), sample.files
    for _ in range(8):
        async with connected(sample, b"GET /healthz HTTP/1.1\r\nHost: sample\r\nX: ") as client:
            flood = asyncio.create_task(client.flood(data, 50 * MIB))
            assert await client.problem() == (431, "headers_too_large")
            await flood
    await assert_serves(sample)
    await eventually(lambda: sample.files <= sockets)
    assert memory_of(sample) - memory < 8 * MIB


async def test_f36_a_huge_body_is_refused_before_it_comes(sample: service.Sample) -> None:
    async with connected(sample, f"{GREET}Content-Length: {50 * MIB}\r\n\r\n") as client:
        assert await client.problem() == (413, "too_large")


@pytest.mark.parametrize(
    ("begin", "endless"),
    [("1;", b"x"), ("", b"0"), ("0\r\nX: ", b"x"), ("0\r\n", b"X: y\r\n")],
    ids=["extension", "size", "trailer", "trailers"],
)
async def test_f36_endless_framing_of_a_body_is_refused(sample: service.Sample, begin: str, endless: bytes) -> None:
    async with connected(sample, CHUNKED + begin) as client:
        flood = asyncio.create_task(client.flood(endless * 10 * KIB, 50 * MIB))
        assert await client.problem() == (400, "malformed")
        await flood
    await assert_serves(sample)


async def test_f36_a_body_in_the_smallest_chunks_is_taken(sample: service.Sample) -> None:
    body = '{"name": "' + "x" * 400 + '"}'
    async with connected(sample, CHUNKED + "".join(f"1\r\n{each}\r\n" for each in body) + "0\r\n\r\n") as client:
        assert (await client.answer()).json == {"hello": "x" * 400}


# ---- F37: ambiguous -------------------------------------------------------------------------------------------------

POST = "POST /greet HTTP/1.1\r\nHost: sample\r\n"

HEADS = {
    "two hosts": "GET /healthz HTTP/1.1\r\nHost: sample\r\nHost: other\r\n\r\n",
    "no host": "GET /healthz HTTP/1.1\r\n\r\n",
    "length and chunked": f"{POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": f"{POST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": f"{POST}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "equal lengths": f"{POST}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": f"{POST}Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": f"{POST}Content-Length: +3\r\n\r\nabc",
    "a negative length": f"{POST}Content-Length: -3\r\n\r\nabc",
    "a hexadecimal length": f"{POST}Content-Length: 0x3\r\n\r\nabc",
    "an empty length": f"{POST}Content-Length: \r\n\r\n",
    "a length that overflows": f"{POST}Content-Length: 18446744073709551619\r\n\r\nabc",
    "bare LF in the request line": "GET /healthz HTTP/1.1\nHost: sample\r\n\r\n",
    "bare LF in a header": "GET /healthz HTTP/1.1\r\nHost: sample\nX: y\r\n\r\n",
    "bare LF at the end": "GET /healthz HTTP/1.1\r\nHost: sample\r\n\n",
    "bare CR": "GET /healthz HTTP/1.1\r\nHost: sample\rX: y\r\n\r\n",
    "folding": "GET /healthz HTTP/1.1\r\nHost: sample\r\nX: y\r\n z\r\n\r\n",
    "folding of the first": "GET /healthz HTTP/1.1\r\n Host: sample\r\n\r\n",
    "space before the colon": "GET /healthz HTTP/1.1\r\nHost: sample\r\nX : y\r\n\r\n",
    "tab before the colon": "GET /healthz HTTP/1.1\r\nHost: sample\r\nX\t: y\r\n\r\n",
    "no name": "GET /healthz HTTP/1.1\r\nHost: sample\r\n: y\r\n\r\n",
    "NUL": "GET /healthz HTTP/1.1\r\nHost: sample\r\nX: a\0b\r\n\r\n",
    "identity": f"{POST}Transfer-Encoding: identity\r\n\r\n",
    "another coding": f"{POST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked not last": f"{POST}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": f"{POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "almost chunked": f"{POST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": "POST /greet HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/0.9": "GET /healthz\r\n\r\n",
    "HTTP/1.2": "GET /healthz HTTP/1.2\r\nHost: sample\r\n\r\n",
    "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}

BODIES = {
    "bare LF after an extension": "3;a\nabc\r\n0\r\n\r\n",
    "bare LF after a size": "3\nabc\r\n0\r\n\r\n",
    "bare LF after a chunk": "3\r\nabc\n0\r\n\r\n",
    "nothing after a chunk": "3\r\nabc0\r\n\r\n",
    "a prefix of the size": "0x3\r\nabc\r\n0\r\n\r\n",
    "a signed size": "+3\r\nabc\r\n0\r\n\r\n",
    "a negative size": "-3\r\nabc\r\n0\r\n\r\n",
    "space after the size": "3 \r\nabc\r\n0\r\n\r\n",
    "space before the size": " 3\r\nabc\r\n0\r\n\r\n",
    "no size": "\r\nabc\r\n0\r\n\r\n",
    "a size that overflows": "10000000000000003\r\nabc\r\n0\r\n\r\n",
    "trailers": '2\r\n{}\r\n0\r\nIf-Match: "1"\r\n\r\n',
    "a length in the trailers": "0\r\nContent-Length: 5\r\n\r\n",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
async def test_f37_an_ambiguous_head_is_refused(sample: service.Sample, head: str) -> None:
    async with connected(sample, head.encode() + SMUGGLED) as client:
        assert await client.problem() == (400, "malformed")
    await assert_serves(sample)
    await eventually(lambda: sample.logged("request_served"))
    assert [line["route"] for line in sample.logged("request_served")] == ["/greet"]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_f37_an_ambiguous_body_is_refused(sample: service.Sample, body: str) -> None:
    async with connected(sample, CHUNKED.encode() + body.encode() + SMUGGLED) as client:
        assert await client.problem() == (400, "malformed")
    await assert_serves(sample)
    await eventually(lambda: len(sample.logged("request_served")) == 2)
    assert {(line["route"], line["status"]) for line in sample.logged("request_served")} == {
        ("/greet", 499),
        ("/greet", 200),
    }


async def test_f37_what_came_before_is_answered_first(sample: service.Sample) -> None:
    bad = b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
    async with connected(sample, service.request_bytes("GET", "/slow") + bad + SMUGGLED) as client:
        await eventually(lambda: sample.logged("connection_refused"))
        (sample.folder / "go-on").touch()
        assert (await client.answer()).json == {"slept": True}
        assert await client.problem() == (400, "malformed")


@pytest.mark.parametrize(
    "switch", ["Connection: Upgrade\r\nUpgrade: h2c\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\n"]
)
async def test_f37_nothing_follows_a_request_to_switch_protocols(sample: service.Sample, switch: str) -> None:
    head = f"GET /healthz HTTP/1.1\r\nHost: sample\r\n{switch}\r\n"
    async with connected(sample, head.encode() + SMUGGLED) as client:
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.is_cut()
    assert not sample.logged("request_served")


# ---- F33: told to stop while requests wait --------------------------------------------------------------------------


@asynccontextmanager
async def serving(module: str, dsn: str, folder: Path) -> AsyncIterator[service.Sample]:
    """Run a service as a process, ready; ended afterwards, whatever happened."""
    port = free_port()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("KEELSON_")} | {
        "KEELSON_DATABASE_URL": dsn,
        "KEELSON_PORT": str(port),
        "KEELSON_OPERATOR_TOKEN": service.TOKEN,
        "KEELSON_IDEMPOTENCY_SECRET": "idempotency-secret-of-a-test",
        "KEELSON_SECRET_KEYS": SECRET_KEYS,
        "KEELSON_DIGEST_KEY": DIGEST_KEY,
        "KEELSON_SHUTDOWN_GRACE_S": "10",
    }
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, stdout=out, stderr=err, env=environ
        )
    running = service.Sample(process, port, folder)
    try:

        async def is_ready() -> bool:
            return (await running.ask("GET", "/readyz")).status == 200

        await eventually(is_ready, 20)
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def stop_while_waiting(running: service.Sample, waiting: "asyncio.Task[service.Answer]") -> service.Answer:
    """Send SIGTERM to a service in which a request waits; give its answer, which must come within the grace period."""

    async def waits() -> bool:
        metrics = (await running.ask("GET", "/metrics")).body.splitlines()
        return any(line.startswith(b"keelson_http_in_flight") and line.endswith(b" 2.0") for line in metrics)

    await eventually(waits)
    assert not waiting.done()
    began = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    answer = await waiting
    assert await running.exit_code() == 0
    assert time.monotonic() - began < 5, "half the grace period"
    assert running.errors == ""
    return answer


async def test_f33_a_command_that_waits_for_its_views_is_answered(database: Database, tmp_path: Path) -> None:
    async with serving("keelson.command", database.command_dsn, tmp_path) as running:
        ask = running.ask("POST", "/v1/commands/org.create", "Prefer: wait=30", body=b'{"name": "acme"}')
        answer = await stop_while_waiting(running, asyncio.create_task(ask))
        assert (answer.status, answer.json["changed"], answer.json["projected"]) == (200, True, False)


async def test_f33_a_read_that_waits_for_a_position_is_answered(database: Database, tmp_path: Path) -> None:
    async with open_world(database), serving("keelson.query", database.query_dsn, tmp_path) as running:
        ask = running.ask("GET", "/v1/orgs?min_position=1000000", "Prefer: wait=30")
        answer = await stop_while_waiting(running, asyncio.create_task(ask))
        assert (answer.status, answer.json["code"]) == (504, "not_yet")
