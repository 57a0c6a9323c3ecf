"""The boundary: limits, credentials, request ids, and which failure becomes which answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
from prometheus_client import REGISTRY
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from keelson.events.registry import UnknownEventError
from keelson.service import boundary
from keelson.service.app import Application
from keelson.service.exchange import MAX_BODY_BYTES, MAX_DISCARDED_BYTES
from keelson.service.headers import read_header
from keelson.service.json import JsonResponse
from keelson.service.problems import Problem
from unit.service.asgi import TOKEN, Answer, Silence, ask, make_app, running

Lines = Callable[[], list[dict[str, Any]]]

CANARY = "canary-that-nobody-may-see"


async def fail(request: Request) -> Response:
    """Raise what the path names."""
    raise FAILURES[request.path_params["how"]]


FAILURES: dict[str, Exception] = {
    "problem": Problem("name_taken", "It is taken.", headers={"X-Extra": "1"}),
    "defect": ValueError(CANARY),
    "refused": ConnectionRefusedError(CANARY),
    "slow": TimeoutError(),
    "cancelled-query": asyncpg.QueryCanceledError("statement timeout"),
    "group": ExceptionGroup("several", [ExceptionGroup("inner", [OSError("a")]), TimeoutError()]),
    "group-of-one": ExceptionGroup("one", [Problem("in_use", "It is used.")]),
    "newer-event": UnknownEventError("app.painted", 3),
}


@pytest.fixture
async def app() -> AsyncIterator[Application]:
    async with running(make_app(Route("/fail/{how}", fail))) as app:
        yield app


async def test_an_answer_has_its_request_id_and_the_epoch(app: Application) -> None:
    answer = await ask(app, "POST", "/echo", ("X-Request-Id", "mine_1.2-3"), body=[b"{}"])
    assert answer.status == 200
    assert answer.json == {"size": 2, "actor": {"type": "system", "id": "operator"}, "request_id": "mine_1.2-3"}
    assert answer.header("x-request-id") == "mine_1.2-3"
    assert answer.header("keelson-epoch") == "first"


@pytest.mark.parametrize("given", ["", "a b", "é", "x" * 129, "a\n"])
async def test_a_request_id_that_does_not_fit_is_minted(app: Application, given: str) -> None:
    answer = await ask(app, "GET", "/echo", ("X-Request-Id", given))
    minted = answer.header("x-request-id")
    assert minted is not None
    assert minted != given
    assert len(minted) == 32
    assert answer.json["request_id"] == minted


async def test_request_ids_are_minted_anew(app: Application) -> None:
    ids = {(await ask(app, "GET", "/echo")).header("x-request-id") for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize("path", ["/nothing", "/echo/", "/", "/fail", "/openapi.json/"])
async def test_an_unknown_path_is_not_found(app: Application, path: str) -> None:
    answer = await ask(app, "GET", path)
    assert answer.problem == (404, "not_found")
    assert answer.header("x-request-id")


@pytest.mark.parametrize("method", ["DELETE", "PUT", "BREW"])
async def test_another_method_is_not_allowed_and_all_that_are_are_named(app: Application, method: str) -> None:
    answer = await ask(app, method, "/echo")
    assert answer.problem == (405, "method_not_allowed")
    assert answer.header("allow") == "GET, HEAD, POST"


@pytest.mark.parametrize("path", ["/echo", "/nothing", "/healthz/"])
@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x"])
async def test_without_a_good_credential_there_is_nothing_to_see(
    app: Application, path: str, token: str | None
) -> None:
    answer = await ask(app, "GET", path, token=token)
    assert answer.problem == (401, "unauthenticated")
    assert answer.header("www-authenticate") == "Bearer"


async def test_headers_are_looked_through_again_only_if_something_is_repeated(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []

    def counting(headers: Any, name: bytes) -> bytes | None:
        looked.append(name)
        return read_header(headers, name)

    monkeypatch.setattr(boundary, "read_header", counting)
    assert (await ask(app, "GET", "/echo", ("X-One", "1"))).status == 200
    assert looked == []
    assert (await ask(app, "GET", "/echo", ("X-One", "1"), ("X-One", "2"))).status == 200
    assert looked == [b"authorization"]


async def test_two_credentials_are_none(app: Application) -> None:
    answer = await ask(app, "GET", "/echo", ("Authorization", f"Bearer {TOKEN}"))
    assert answer.problem == (400, "invalid")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json"])
async def test_what_is_public_needs_no_credential(app: Application, path: str) -> None:
    assert (await ask(app, "GET", path, token=None)).status == 200


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("problem", (409, "name_taken")),
        ("defect", (500, "internal")),
        ("refused", (503, "unavailable")),
        ("slow", (503, "unavailable")),
        ("cancelled-query", (503, "unavailable")),
        ("group", (503, "unavailable")),
        ("group-of-one", (409, "in_use")),
        ("newer-event", (503, "unavailable")),
    ],
)
async def test_what_a_handler_raises_becomes_a_problem(app: Application, how: str, expected: tuple[int, str]) -> None:
    answer = await ask(app, "GET", f"/fail/{how}")
    assert answer.problem == expected
    assert answer.header("retry-after") == ("1" if expected[0] == 503 else None)
    assert CANARY not in answer.body.decode()
    assert answer.header("x-request-id")


async def test_a_problem_brings_its_headers(app: Application) -> None:
    assert (await ask(app, "GET", "/fail/problem")).header("x-extra") == "1"


async def test_a_body_that_is_announced_too_large_is_refused_unread(app: Application) -> None:
    answer = await ask(app, "POST", "/echo", ("Content-Length", str(MAX_BODY_BYTES + 1)), stalls=True)
    assert answer.problem == (413, "too_large")
    assert answer.header("connection") is None, "the server throws so much away, and the client gets its answer"


async def test_a_body_that_nobody_would_read_to_its_end_closes_the_connection(app: Application) -> None:
    huge = ("Content-Length", str(MAX_DISCARDED_BYTES + 1))
    answer = await ask(app, "POST", "/echo", huge, stalls=True)
    assert (answer.problem, answer.header("connection")) == ((413, "too_large"), "close")


async def test_a_body_that_grows_too_large_is_refused(app: Application) -> None:
    half = b"x" * (MAX_BODY_BYTES // 2)
    answer = await ask(app, "POST", "/echo", ("Transfer-Encoding", "chunked"), body=[half, half, b"x"], stalls=True)
    assert (answer.problem, answer.header("connection")) == ((413, "too_large"), "close")
    assert (await ask(app, "POST", "/echo", body=[half, half])).json["size"] == MAX_BODY_BYTES


async def test_a_body_that_does_not_come_is_timed_out() -> None:
    async with running(make_app(body_deadline_s=0.01)) as app:
        answer = await ask(app, "POST", "/echo", body=[b"some"], stalls=True)
    assert (answer.problem, answer.header("connection")) == ((408, "timeout"), "close")


async def test_a_body_that_trickles_is_timed_out_as_a_whole() -> None:
    sent: list[int] = []

    async def receive() -> dict[str, object]:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            status = message["status"]
            assert isinstance(status, int)
            sent.append(status)

    headers = [(b"authorization", f"Bearer {TOKEN}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/echo", "query_string": b"", "headers": headers}
    async with running(make_app(body_deadline_s=0.2)) as app, asyncio.timeout(5):
        await app(scope, receive, send)  # type: ignore[arg-type]
    assert sent == [408]


async def test_a_client_that_leaves_within_its_body_gets_nothing_and_is_no_error(
    app: Application, lines: Lines
) -> None:
    with pytest.raises(Silence):
        await ask(app, "POST", "/echo", body=[b"some"], leaves=True)
    assert [(line["event"], line["status"]) for line in lines()] == [("request_served", 499)]


async def test_a_cancelled_request_is_answered_and_stays_cancelled() -> None:
    entered = asyncio.Event()

    async def hang(_request: Request) -> Response:
        entered.set()
        await asyncio.Event().wait()
        return JsonResponse({})

    answers: list[Answer] = []
    async with running(make_app(Route("/hang", hang))) as app:

        async def put() -> None:
            sent: list[dict[str, object]] = []

            async def send(message: dict[str, object]) -> None:
                sent.append(message)

            headers = [(b"authorization", f"Bearer {TOKEN}".encode())]
            scope = {"type": "http", "method": "GET", "path": "/hang", "query_string": b"", "headers": headers}
            try:
                await app(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]
            finally:
                body = sent[1]["body"]
                assert isinstance(body, bytes)
                answers.append(Answer(503, [("content-type", "application/problem+json")], body))

        task = asyncio.create_task(put())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert answers[0].problem == (503, "unavailable")


async def test_an_answer_that_has_begun_is_broken_off_not_mended() -> None:
    async def break_off(_request: Request) -> Response:
        class Broken(Response):
            async def __call__(self, _scope: object, _receive: object, send: object) -> None:
                await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
                raise ValueError(CANARY)

        return Broken()

    async with running(make_app(Route("/break", break_off))) as app:
        with pytest.raises(ValueError, match=CANARY):
            await ask(app, "GET", "/break")


def counted(route: str, method: str, status: int) -> float:
    labels = {"service": "test", "route": route, "method": method, "status": str(status)}
    return REGISTRY.get_sample_value("keelson_http_requests_total", labels) or 0.0


async def test_requests_are_counted_by_template_and_clients_make_no_labels(app: Application) -> None:
    before = [counted("/fail/{how}", "GET", 409), counted("unmatched", "OTHER", 404)]
    await ask(app, "GET", "/fail/problem")
    for method in ("BREW", "SPILL"):
        await ask(app, method, f"/nothing-{method}")
    after = [counted("/fail/{how}", "GET", 409), counted("unmatched", "OTHER", 404)]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 2]
    shown = (await ask(app, "GET", "/metrics", token=None)).body.decode()
    assert "keelson_http_request_seconds_bucket" in shown
    assert 'keelson_http_in_flight{service="test"} 1.0' in shown, "the request for the metrics itself"
    for word in ("BREW", "nothing-", "/fail/problem"):
        assert word not in shown


async def test_what_is_logged_of_a_request_holds_neither_body_nor_credential(lines: Lines) -> None:
    async with running(make_app(Route("/fail/{how}", fail))) as app:
        await ask(app, "POST", "/echo?q=" + CANARY, ("X-Request-Id", "r1"), body=[CANARY.encode()])
        await ask(app, "GET", "/healthz", token=None)
        await ask(app, "GET", "/fail/problem", ("X-Request-Id", "r2"))
    served = [line for line in lines() if line["event"] == "request_served"]
    assert [(line["route"], line["status"], line["request_id"]) for line in served] == [
        ("/echo", 200, "r1"),
        ("/fail/{how}", 409, "r2"),
    ], "those of health are left out above level debug"
    assert all(isinstance(line["duration_ms"], float) for line in served)
    assert not [line for line in lines() if TOKEN in str(line) or CANARY in str(line)]


async def test_a_defect_is_logged_with_its_traceback_and_the_requests_id(app: Application, lines: Lines) -> None:
    await ask(app, "GET", "/fail/defect", ("X-Request-Id", "r3"))
    [line] = [line for line in lines() if line["event"] == "request_failed"]
    assert line["request_id"] == "r3"
    assert "ValueError: " in line["exception"]
    assert CANARY not in str(line)
