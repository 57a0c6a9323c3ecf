"""The client against a server that answers, refuses, hangs up and stays silent as each test says."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest
import stamina
from aiohttp import web

from keelson.client import Client, ProblemError, UnreachableError, UnsendableError
from keelson.client.transport import _backoff
from unit.client.server import Reply, Server, answering, refusing

ANSWER = {
    "position": 42,
    "changed": True,
    "projected": False,
    "result": {"app_id": "app_1"},
    "events": [{"position": 42, "type": "app.created", "version": 1, "aggregate_id": "app_1", "seq": 1}],
}
CREATE = {"project_id": "project_1", "name": "shop"}


async def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def break_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"position":')
    return await hang_up(request)


def saying(raw: bytes) -> Reply:
    """Give a reply that is these bytes and no more."""

    async def reply(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(raw)
        return await hang_up(request)

    return reply


def page(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def stay_silent(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets the event")


@pytest.fixture(autouse=True)
def _without_back_off() -> Iterator[None]:
    with stamina.set_testing(True, attempts=4):
        yield


async def test_a_command_is_posted_and_its_answer_read() -> None:
    server = Server(answering(ANSWER))
    async with server.client() as client:
        answer = await client.command("app.create", CREATE, reason="Grüße", idempotency_key="k1", if_match=7, wait_s=5)

    (request,) = server.requests
    assert (request.method, request.path, server.bodies) == ("POST", "/v1/commands/app.create", [CREATE])
    assert request.headers["Authorization"] == "Bearer token-of-a-test"
    assert request.headers["Idempotency-Key"] == "k1"
    assert request.headers["If-Match"] == '"7"'
    assert request.headers["Prefer"] == "wait=5"
    assert (b"Keelson-Reason", "Grüße".encode()) in request.raw_headers
    assert (answer.position, answer.changed, answer.projected, answer.epoch) == (42, True, False, "e1")
    assert answer.result == {"app_id": "app_1"}
    assert [(each.type, each.seq) for each in answer.events] == [("app.created", 1)]


@pytest.mark.parametrize("reason", ["one\ntwo", "one\r\nX-Other: two", "nul \0", "bell \a", "half \ud83d"])
async def test_a_reason_that_is_no_header_is_not_sent(reason: str) -> None:
    server = Server(answering(ANSWER))
    async with server.client() as client:
        with pytest.raises(UnsendableError, match="Keelson-Reason must be one line"):
            await client.command("app.create", CREATE, reason=reason)
        await client.command("app.create", CREATE, reason="one\ttwo ✓")

    assert len(server.requests) == 1


async def test_a_bundle_is_posted_and_its_answer_read() -> None:
    results = [{"changed": True, "result": {"app_id": "app_1"}, "events": []}]
    server = Server(answering({"position": 42, "changed": True, "projected": True, "results": results}))
    async with server.client() as client:
        answer = await client.bundle([{"name": "app.create", "data": CREATE}])

    assert server.requests[0].path == "/v1/commands"
    assert server.bodies == [{"commands": [{"name": "app.create", "data": CREATE}]}]
    assert (answer.projected, answer.results[0].result) == (True, {"app_id": "app_1"})


@pytest.mark.parametrize("failure", [refusing(503, "unavailable"), refusing(429, "rate_limited"), hang_up, break_off])
async def test_what_was_not_done_is_sent_again_under_the_same_key(failure: Reply) -> None:
    """F6: the reply may be lost after the commit; only the same key makes the repeat safe."""
    server = Server(failure, failure, answering(ANSWER))
    async with server.client() as client:
        answer = await client.command("app.create", CREATE)

    assert answer.position == 42
    assert server.bodies == [CREATE] * 3
    assert len(set(server.sent("Idempotency-Key"))) == 1
    assert server.sent("Idempotency-Key")[0]


async def test_two_commands_have_two_keys() -> None:
    server = Server(answering(ANSWER))
    async with server.client() as client:
        await client.command("app.create", CREATE)
        await client.command("app.create", CREATE)

    assert len(set(server.sent("Idempotency-Key"))) == 2


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "invalid"),
        (404, "not_found"),
        (409, "name_taken"),
        (422, "wrong_app"),
        (500, "internal"),
        (504, "not_yet"),
    ],
)
async def test_a_refusal_is_raised_at_once(status: int, code: str) -> None:
    server = Server(refusing(status, code))
    async with server.client() as client:
        with pytest.raises(ProblemError, match=f"{status} {code}: it is {code}") as caught:
            await client.command("app.create", CREATE)

    assert (caught.value.status, caught.value.code, caught.value.body["title"]) == (status, code, code)
    assert len(server.requests) == 1


async def test_a_service_that_stays_unavailable_is_given_up() -> None:
    server = Server(refusing(503, "unavailable"))
    async with server.client() as client:
        with pytest.raises(ProblemError, match="503 unavailable"):
            await client.command("app.create", CREATE)

    assert len(server.requests) == 4


async def test_attempts_end_when_their_time_is_over() -> None:
    server = Server(refusing(503, "unavailable"))
    with stamina.set_testing(False):
        async with server.client(retry_for_s=0.3) as client, asyncio.timeout(10):
            with pytest.raises(ProblemError, match="503 unavailable"):
                await client.command("app.create", CREATE)

    assert len(server.requests) > 1


async def test_a_service_that_is_not_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    async with Client(url, url, "token") as client:
        with pytest.raises(UnreachableError, match=f"POST {url}/v1/commands/app.create"):
            await client.command("app.create", CREATE)


async def test_a_service_that_stays_silent_is_unreachable() -> None:
    server = Server(stay_silent)
    async with server.client(timeout_s=0.3) as client:
        with pytest.raises(UnreachableError):
            await client.get("/v1/projections")

    assert len(server.requests) == 4


async def test_a_page_of_a_proxy_is_a_problem_without_code() -> None:
    async def reply(_: web.Request) -> web.StreamResponse:
        return web.Response(status=502, text="<h1>Bad Gateway</h1>", content_type="text/html")

    async with Server(reply).client() as client:
        with pytest.raises(ProblemError, match="502 : Bad Gateway") as caught:
            await client.get("/v1/orgs")

    assert (caught.value.code, caught.value.body) == ("", {})


@pytest.mark.parametrize(
    "raw",
    [
        b"-ERR unknown command 'POST'\r\n",
        b"\x15\x03\x03\x00\x02\x02\x0a",
        b"HTTP/1.1 200 O",
        b"HTTP/1.1 302 Found\r\nLocation: nowhere://else\r\nContent-Length: 0\r\n\r\n",
        page(b"<html>"),
        page(b"{"),
        page(b"\xff"),
    ],
    ids=repr,
)
async def test_what_is_no_http_or_no_json_is_no_answer(raw: bytes) -> None:
    server = Server(saying(raw))
    async with server.client() as client:
        with pytest.raises(UnreachableError):
            await client.command("app.create", CREATE)
    assert len(set(server.sent("Idempotency-Key"))) == 1
    assert len(server.requests) == 4


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"7", b'{"result": {"app_id": "the-canary"}}'], ids=repr)
async def test_json_that_is_not_what_was_asked_for_is_no_answer_and_is_not_quoted(body: bytes) -> None:
    async with Server(saying(page(body))).client() as client:
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: client.app.create(project_id="project_1", name="shop"),
            lambda: client.command("app.create", CREATE),
            lambda: client.bundle([{"name": "app.create", "data": CREATE}]),
            lambda: client.nodes.get("node_1"),
            lambda: client.nodes.heartbeat("node_1", observed_position=1),
            lambda: anext(aiter(client.nodes.list())),
            lambda: anext(aiter(client.list("nodes"))),
        ]
        for call in calls:
            with pytest.raises(UnreachableError) as caught:
                await call()
            assert "canary" not in str(caught.value)


async def test_a_get_says_its_parameters_and_leaves_out_those_that_are_none() -> None:
    server = Server(answering({"items": []}, Keelson_Position="41"))
    async with server.client() as client:
        response = await client.get("/v1/apps", org_id="org_1", deleted=True, limit=2, name=None, wait_s=3)

    assert server.requests[0].path_qs == "/v1/apps?org_id=org_1&deleted=true&limit=2"
    assert server.sent("Prefer") == ["wait=3"]
    assert (response.status, response.position, response.body) == (200, 41, {"items": []})


@pytest.mark.parametrize("wait", [20, "20"])
async def test_an_answer_that_is_held_back_as_was_asked_is_waited_for(wait: int | str) -> None:
    """Longer than what an attempt may take by itself: it is neither cut nor asked for again."""

    async def hold(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.3)
        return await answering({"version": 7})(request)

    server = Server(hold)
    async with server.client(timeout_s=0.05) as client:
        response = await client.get("/v1/nodes/node_1/desired", after="e1-5", wait=wait)

    assert [request.path_qs for request in server.requests] == ["/v1/nodes/node_1/desired?after=e1-5&wait=20"]
    assert response.body == {"version": 7}


async def test_a_wait_that_is_no_number_is_for_the_service_to_refuse() -> None:
    server = Server(refusing(400, "invalid"))
    async with server.client() as client:
        with pytest.raises(ProblemError, match="400 invalid"):
            await client.get("/v1/edge/desired", wait="soon")

    assert len(server.requests) == 1


async def test_not_modified_is_an_answer_without_a_body() -> None:
    async def reply(_: web.Request) -> web.StreamResponse:
        return web.Response(status=304, headers={"Keelson-Position": "41"})

    server = Server(reply)
    async with server.client() as client:
        response = await client.get("/v1/apps/app_1", headers={"If-None-Match": '"3"'})

    assert server.sent("If-None-Match") == ['"3"']
    assert (response.status, response.position, response.body) == (304, 41, None)


async def test_one_row_is_read_as_it_is_at_a_position_or_later() -> None:
    server = Server(answering({"id": "app_1", "name": "shop"}))
    async with server.client() as client:
        row = await client.read("apps", "app_1", min_position=42)

    assert server.requests[0].path_qs == "/v1/apps/app_1?min_position=42"
    assert row["name"] == "shop"


async def test_a_list_follows_its_pages_to_the_end() -> None:
    server = Server(
        answering({"items": [{"id": "app_1"}, {"id": "app_2"}], "next": "opaque=", "position": 9}),
        answering({"items": [{"id": "app_3"}], "next": None, "position": 9}),
    )
    async with server.client() as client:
        rows = [row["id"] async for row in client.list("apps", org_id="org_1")]

    assert rows == ["app_1", "app_2", "app_3"]
    assert [dict(each.query) for each in server.requests] == [
        {"org_id": "org_1"},
        {"org_id": "org_1", "cursor": "opaque="},
    ]


async def test_a_client_is_used_within_its_context() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await Client("http://127.0.0.1:1", "http://127.0.0.1:1", "token").get("/v1/orgs")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ProblemError(503, "unavailable", "", {}, retry_after_s=7.0), 7.0),
        (ProblemError(503, "unavailable", "", {}, retry_after_s=None), True),
        (ProblemError(409, "name_taken", "", {}, retry_after_s=7.0), False),
        (UnreachableError("gone"), True),
        (ValueError("a defect"), False),
    ],
    ids=repr,
)
def test_when_to_send_again(error: Exception, expected: bool | float) -> None:
    assert _backoff(error) == expected
