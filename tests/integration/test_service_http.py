"""A service as a real process on loopback: signals, failures, limits on the wire, and its database.

Run as a program, this file is the service: `python test_service_http.py`.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from keelson.log.database import NotDurableError, connect, open_pool
from keelson.service.app import Application, create_app
from keelson.service.authentication import BearerTokens
from keelson.service.health import DATABASE_CHECKS, require_database
from keelson.service.json import JsonResponse, read_json
from keelson.service.lifecycle import background
from keelson.service.metrics import watch_pool
from keelson.service.server import run
from keelson.service.settings import Settings
from support.database import Database
from support.waiting import eventually, free_port

TOKEN = "operator-token-of-a-test"
NO_DATABASE = "none"

# ---- the service ----------------------------------------------------------------------------------------------------


class SampleSettings(Settings, frozen=True, kw_only=True):
    """`folder` is where the test and the service tell each other things; `flaw` is what breaks."""

    folder: str
    flaw: str = ""


class Named(msgspec.Struct, forbid_unknown_fields=True):
    """A body."""

    name: str


async def slow(request: Request) -> Response:
    """Say that it has begun; end when the test says so; leave a note that it ended."""
    folder = Path(request.app.state.settings.folder)
    (folder / "begun").touch()
    while not (folder / "go-on").exists():  # noqa: ASYNC110 - the test is another process
        await asyncio.sleep(0.01)
    (folder / "ended").touch()
    return JsonResponse({"slept": True})


async def greet(request: Request) -> Response:
    named = await read_json(request, Named)
    return JsonResponse({"hello": named.name})


async def crash(request: Request) -> Response:
    request.app.state.crash.set()
    return JsonResponse({})


async def read_head(request: Request) -> Response:
    await request.app.state.pool.fetchval("SHOW server_version")
    return JsonResponse({})


@asynccontextmanager
async def lifespan(app: Application) -> AsyncIterator[None]:
    app.state.crash = asyncio.Event()

    async def part() -> None:
        await app.state.crash.wait()
        raise RuntimeError("a part has died")

    if app.state.settings.flaw == "not durable":
        raise NotDurableError("PostgreSQL runs with fsync off; Keelson needs it on")
    async with background(part()):
        if app.state.settings.flaw == NO_DATABASE:
            yield
            return
        pool = await open_pool(app.state.settings.database_url, application_name="sample")
        try:
            await require_database(pool)
            watch_pool(app.name, pool)
            app.state.pool = pool
            yield
        finally:
            await pool.close()


def build(settings: SampleSettings) -> Application:
    return create_app(
        name="sample",
        settings=settings,
        routes=[
            Route("/slow", slow),
            Route("/greet", greet, methods=["POST"]),
            Route("/crash", crash, methods=["POST"]),
            Route("/head", read_head),
        ],
        authenticator=BearerTokens("test", settings.operator_token),
        lifespan=lifespan,
        readiness={} if settings.flaw == NO_DATABASE else DATABASE_CHECKS,
    )


# ---- the client -----------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return msgspec.json.decode(self.body)


async def read_answer(reader: asyncio.StreamReader, *, bodyless: bool = False) -> Answer:
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        length = 0 if bodyless else int(headers["content-length"])
        return Answer(int(head[0].split()[1]), headers, await reader.readexactly(length))


def request_bytes(method: str, path: str, *headers: str, body: bytes = b"", token: str = TOKEN) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: sample", f"Authorization: Bearer {token}", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@dataclass
class Sample:
    """The running service."""

    process: asyncio.subprocess.Process
    port: int
    folder: Path

    @property
    def log(self) -> list[dict[str, Any]]:
        """What it logged."""
        return [msgspec.json.decode(line) for line in (self.folder / "out").read_bytes().splitlines()]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Give the lines of one event."""
        return [line for line in self.log if line["event"] == event]

    @property
    def files(self) -> int:
        """How many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    @property
    def errors(self) -> str:
        """What it wrote to standard error."""
        return (self.folder / "err").read_text()

    def exists(self, name: str) -> bool:
        """Say whether the service has left a note."""
        return (self.folder / name).exists()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, method: str, path: str, *headers: str, body: bytes = b"", token: str = TOKEN) -> Answer:
        """Ask on a connection of its own."""
        reader, writer = await self.connect()
        try:
            writer.write(request_bytes(method, path, *headers, body=body, token=token))
            return await read_answer(reader, bodyless=method == "HEAD")
        finally:
            writer.close()

    async def exit_code(self) -> int:
        """Wait until it has ended."""
        return await asyncio.wait_for(self.process.wait(), 20)


Start = Callable[..., Awaitable[Sample]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start the service; `settings` are its own. It is ended afterwards, whatever happened."""
    started: list[Sample] = []

    async def start(*, until: str | None = "/healthz", **settings: str) -> Sample:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        port = int(settings.pop("port", "") or free_port())
        environ = {
            "database_url": "postgresql://nobody@127.0.0.1:1/none",
            "operator_token": TOKEN,
            "port": str(port),
            "folder": str(folder),
        }
        named = {f"KEELSON_{name.upper()}": value for name, value in (environ | settings).items()}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KEELSON_")}
        tests = str(Path(__file__).parents[1])
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            process = await asyncio.create_subprocess_exec(
                sys.executable, __file__, stdout=out, stderr=err, env={**inherited, "PYTHONPATH": tests, **named}
            )
        sample = Sample(process, port, folder)
        started.append(sample)
        if until:
            await eventually(lambda: _answers(sample, until), 20)
        return sample

    yield start
    for sample in started:
        if sample.process.returncode is None:
            sample.process.kill()
            await sample.process.wait()


async def _answers(sample: Sample, path: str) -> bool:
    assert sample.process.returncode is None, sample.errors
    return (await sample.ask("GET", path)).status == 200


@pytest.fixture
async def sample(start: Start) -> Sample:
    """Lend a service that needs no database, ready."""
    return await start(flaw=NO_DATABASE, until="/readyz", body_deadline_s="0.3")


# ---- stopping -------------------------------------------------------------------------------------------------------


async def test_a_request_in_flight_is_answered_before_the_process_ends(sample: Sample) -> None:
    request = asyncio.create_task(sample.ask("GET", "/slow"))
    await eventually(lambda: sample.exists("begun"))
    sample.process.send_signal(signal.SIGTERM)
    await eventually(lambda: sample.logged("stop_asked"))
    await eventually(lambda: _refuses(sample))
    assert not request.done()
    (sample.folder / "go-on").touch()
    assert (await request).json == {"slept": True}
    assert await sample.exit_code() == 0
    assert sample.errors == ""


async def _refuses(sample: Sample) -> bool:
    try:
        _, writer = await sample.connect()
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_idle_connections_do_not_delay_the_end(sample: Sample, number: signal.Signals) -> None:
    reader, writer = await sample.connect()
    writer.write(request_bytes("GET", "/healthz"))
    await read_answer(reader)
    silent, silent_writer = await sample.connect()
    sample.process.send_signal(number)
    assert await sample.exit_code() == 0
    assert (await reader.read(), await silent.read()) == (b"", b"")
    writer.close()
    silent_writer.close()


async def test_grace_has_an_end(start: Start) -> None:
    sample = await start(flaw=NO_DATABASE, until="/readyz", shutdown_grace_s="1")
    request = asyncio.create_task(sample.ask("GET", "/slow"))
    await eventually(lambda: sample.exists("begun"))
    sample.process.send_signal(signal.SIGTERM)
    answer = await request
    assert (answer.status, answer.json["code"]) == (503, "unavailable")
    assert await sample.exit_code() == 0
    assert not sample.exists("ended")


async def test_a_second_signal_ends_the_process_at_once(sample: Sample) -> None:
    request = asyncio.create_task(sample.ask("GET", "/slow"))
    await eventually(lambda: sample.exists("begun"))
    sample.process.send_signal(signal.SIGTERM)
    await eventually(lambda: sample.logged("stop_asked"))
    sample.process.send_signal(signal.SIGTERM)
    assert await sample.exit_code() == 1
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await request
    assert sample.logged("stop_forced")


async def test_a_replica_that_stops_answers_until_the_balancer_can_know(start: Start) -> None:
    sample = await start(flaw=NO_DATABASE, until="/readyz", drain_delay_s="3")
    (sample.folder / "go-on").touch()
    sample.process.send_signal(signal.SIGTERM)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sample.process.wait(), 1)  # idle as it is, it would have ended
    assert (await sample.ask("GET", "/readyz")).status == 503
    assert (await sample.ask("GET", "/slow")).status == 200
    assert await sample.exit_code() == 0


async def test_a_second_signal_ends_the_process_also_while_it_drains(start: Start) -> None:
    sample = await start(flaw=NO_DATABASE, until="/readyz", drain_delay_s="60")
    sample.process.send_signal(signal.SIGTERM)
    await eventually(lambda: sample.logged("stop_asked"))
    sample.process.send_signal(signal.SIGTERM)
    assert await sample.exit_code() == 1
    assert sample.logged("stop_forced")


# ---- failing --------------------------------------------------------------------------------------------------------


async def test_wrong_settings_are_one_line(start: Start) -> None:
    sample = await start(until=None, operator_token="canary", pool_size="many", database_url="mysql://canary")
    assert await sample.exit_code() == 2
    [line] = sample.errors.splitlines()
    assert line.startswith("keelson: wrong settings: ")
    for variable in ("KEELSON_OPERATOR_TOKEN", "KEELSON_POOL_SIZE", "KEELSON_DATABASE_URL"):
        assert variable in line
    assert "canary" not in line


async def test_a_database_that_is_not_durable_is_one_line(start: Start) -> None:
    sample = await start(until=None, flaw="not durable")
    assert await sample.exit_code() == 2
    assert sample.errors == "keelson: PostgreSQL runs with fsync off; Keelson needs it on\n"


async def test_a_port_that_is_taken_is_an_error(sample: Sample, start: Start) -> None:
    second = await start(until=None, flaw=NO_DATABASE, port=str(sample.port))
    assert await second.exit_code() == 3
    assert any("address already in use" in str(line.get("message")) for line in second.log)


async def test_a_part_that_dies_ends_the_process(sample: Sample) -> None:
    assert (await sample.ask("POST", "/crash")).status == 200
    assert await sample.exit_code() == 1
    [line] = sample.logged("service_failed")
    assert "RuntimeError: a part has died" in line["exception"]


async def test_everything_logged_is_json_with_the_service_named(sample: Sample) -> None:
    await sample.ask("POST", "/greet", "X-Request-Id: mine", body=b'{"name": "x"}')
    sample.process.send_signal(signal.SIGTERM)
    await sample.exit_code()
    assert {line["service"] for line in sample.log} == {"sample"}
    assert [line["request_id"] for line in sample.logged("request_served")] == ["mine"]
    assert TOKEN not in str(sample.log)


# ---- on the wire ----------------------------------------------------------------------------------------------------


async def test_requests_are_answered(sample: Sample) -> None:
    answer = await sample.ask("POST", "/greet", body=b'{"name": "x"}')
    assert (answer.status, answer.json) == (200, {"hello": "x"})
    assert "server" not in answer.headers
    assert (await sample.ask("HEAD", "/healthz")).status == 200
    assert (await sample.ask("GET", "/nothing")).json["code"] == "not_found"
    assert (await sample.ask("DELETE", "/greet")).headers["allow"] == "POST"
    assert (await sample.ask("POST", "/greet", body=b"{")).json["code"] == "malformed"
    assert (await sample.ask("POST", "/greet", body=b"{}")).json["errors"][0]["pointer"] == "/name"
    assert (await sample.ask("POST", "/greet")).json["code"] == "unsupported_media_type"
    assert (await sample.ask("GET", "/slow", token="wrong")).json["code"] == "unauthenticated"
    assert (await sample.ask("GET", "/healthz", f"X-Large: {'x' * 20_000}")).status == 431


async def test_a_large_body_is_refused_and_the_connection_lives_on(sample: Sample) -> None:
    reader, writer = await sample.connect()
    writer.write(request_bytes("POST", "/greet", body=b"x" * (2 * 1024 * 1024)))
    await writer.drain()
    assert (await read_answer(reader)).json["code"] == "too_large"
    writer.write(request_bytes("POST", "/greet", body=b'{"name": "again"}'))
    assert (await read_answer(reader)).json == {"hello": "again"}
    writer.close()


async def test_an_endless_body_is_cut_off(sample: Sample) -> None:
    reader, writer = await sample.connect()
    writer.write(request_bytes("POST", "/greet", "Transfer-Encoding: chunked", "Content-Type: application/json"))
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    for _ in range(17):
        writer.write(chunk)
    answer = await read_answer(reader)
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    writer.close()


async def test_a_body_that_does_not_come_is_timed_out(sample: Sample) -> None:
    reader, writer = await sample.connect()
    writer.write(request_bytes("POST", "/greet", body=b'{"name": "x"}')[:-3])
    answer = await read_answer(reader)
    assert (answer.status, answer.json["code"], answer.headers["connection"]) == (408, "timeout", "close")
    assert await reader.read() == b""
    writer.close()


async def test_a_client_that_leaves_within_its_body_is_no_error(sample: Sample) -> None:
    _, writer = await sample.connect()
    writer.write(request_bytes("POST", "/greet", body=b'{"name": "x"}')[:-3])
    await writer.drain()
    writer.close()
    [line] = await eventually(lambda: sample.logged("request_served"))
    assert (line["status"], line["level"]) == (499, "info")
    assert {line["level"] for line in sample.log} == {"info"}


async def test_a_client_that_leaves_does_not_cancel_what_it_began(sample: Sample) -> None:
    _, writer = await sample.connect()
    writer.write(request_bytes("GET", "/slow"))
    await eventually(lambda: sample.exists("begun"))
    files = sample.files
    writer.transport.abort()
    await eventually(lambda: sample.files < files)  # it has noticed
    (sample.folder / "go-on").touch()
    await eventually(lambda: sample.exists("ended"))


# ---- the database ---------------------------------------------------------------------------------------------------


async def test_a_service_without_its_database_is_up_and_waits(start: Start) -> None:
    sample = await start()
    readiness = await eventually(lambda: _waits_for(sample, "the database cannot be reached"))
    assert readiness
    assert readiness.status == 503
    refused = await sample.ask("GET", "/head")
    assert (refused.json["code"], refused.headers["retry-after"]) == ("unavailable", "1")
    sample.process.send_signal(signal.SIGTERM)
    assert await sample.exit_code() == 0


async def _waits_for(sample: Sample, what: str) -> Answer | None:
    answer = await sample.ask("GET", "/readyz")
    return answer if what in str(answer.json["checks"]) else None


async def test_a_service_on_an_older_schema_is_not_ready_until_it_is_migrated(start: Start, database: Database) -> None:
    owner = await connect(database.owner_dsn, application_name="test")
    newest = await owner.fetchval("SELECT max(migration_id) FROM public._pogo_migration")
    await owner.execute("UPDATE public._pogo_migration SET migration_id = 'away' WHERE migration_id = $1", newest)
    sample = await start(database_url=database.query_dsn)
    missing = f"migrations are missing: {newest}"
    await eventually(lambda: _waits_for(sample, missing))
    await owner.execute("UPDATE public._pogo_migration SET migration_id = $1 WHERE migration_id = 'away'", newest)
    await eventually(lambda: _answers(sample, "/readyz"))
    assert (await sample.ask("GET", "/head")).status == 200
    assert b'keelson_pool_connections{service="sample",state="open"}' in (await sample.ask("GET", "/metrics")).body

    await owner.execute("UPDATE public._pogo_migration SET migration_id = 'away' WHERE migration_id = $1", newest)
    assert (await sample.ask("GET", "/readyz")).json["checks"] == {"service": "ok", "database": "ok", "schema": missing}
    await owner.close()


if __name__ == "__main__":
    sys.exit(run(SampleSettings, build))
