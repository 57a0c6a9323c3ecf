"""The client's typed methods: what they send, and what their answers become."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from keelson.client import Answer, Command
from keelson.client.commands.app import AppResult, CreateApp
from keelson.client.commands.env import ScaleEnv
from keelson.client.commands.org import CreateOrg
from keelson.client.commands.release import Port, Process
from support.repository import ROOT
from unit.client.server import Server, answering

EVENT = {"position": 42, "type": "app.created", "version": 1, "aggregate_id": "app_1", "seq": 1}
STAMPS = {
    "resource_version": 1,
    "position": 42,
    "created_at": "2026-11-22T21:32:29.432217Z",
    "updated_at": "2026-11-22T21:32:29.432217Z",
}
APP = {"id": "app_1", "org_id": "org_1", "project_id": "project_1", "name": "shop", **STAMPS}


def answer(**result: Any) -> dict[str, Any]:
    return {"position": 42, "changed": True, "projected": True, "result": result, "events": [EVENT]}


async def test_a_command_is_a_method_with_its_fields_and_a_typed_result() -> None:
    server = Server(answering(answer(app_id="app_1")))
    async with server.client() as client:
        created = await client.app.create(
            project_id="project_1",
            name="shop",
            reason="opening",
            idempotency_key="k1",
            wait_s=5,
            correlation_id="c1",
            causation=7,
        )

    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v1/commands/app.create")
    assert server.bodies == [{"project_id": "project_1", "name": "shop"}], "what was not said is not sent"
    assert request.headers["Keelson-Reason"] == "opening"
    assert request.headers["Idempotency-Key"] == "k1"
    assert request.headers["Prefer"] == "wait=5"
    assert request.headers["Keelson-Correlation-Id"] == "c1"
    assert request.headers["Keelson-Causation"] == "7"
    assert "If-Match" not in request.headers
    assert isinstance(created.result, AppResult)
    assert (created.result.app_id, created.position, created.projected, created.epoch) == ("app_1", 42, True, "e1")


async def test_a_command_on_what_exists_can_name_its_seq() -> None:
    server = Server(answering(answer(app_id="app_1")))
    async with server.client() as client:
        await client.app.rename(app_id="app_1", name="shop-2", if_match=0)

    assert server.sent("If-Match") == ['"0"']


async def test_parts_of_a_command_are_structs_that_send_what_they_were_given() -> None:
    server = Server(answering(answer(release_id="release_1", number=3)))
    async with server.client() as client:
        web = Process(command=["serve"], ports=(Port(name="http", port=80),), needs_secrets=False)
        created = await client.release.create(app_id="app_1", image="shop@sha256:0", processes={"web": web})

    process = {"command": ["serve"], "ports": [{"name": "http", "port": 80}], "needs_secrets": False}
    assert server.bodies == [{"app_id": "app_1", "image": "shop@sha256:0", "processes": {"web": process}}]
    assert created.result.number == 3


class SetThing(Command[AppResult], frozen=True, kw_only=True):
    """A command in which null says something."""

    command_name: ClassVar[str] = "thing.set"
    result_type: ClassVar[type[AppResult]] = AppResult

    values: dict[str, str | None]
    owner: str | msgspec.UnsetType | None = msgspec.UNSET
    note: str | None = None


@pytest.mark.parametrize(
    ("command", "sent"),
    [
        (SetThing(values={"OLD": None}), {"values": {"OLD": None}}),
        (SetThing(values={}, owner=None), {"values": {}, "owner": None}),
        (SetThing(values={}, owner="x", note="y"), {"values": {}, "owner": "x", "note": "y"}),
    ],
)
async def test_null_is_sent_where_it_means_something(command: SetThing, sent: dict[str, Any]) -> None:
    server = Server(answering(answer(app_id="app_1")))
    async with server.client() as client:
        await client.send(command)

    assert server.bodies == [sent]


async def test_a_bundle_answers_each_command_in_its_type() -> None:
    results = [
        {"changed": True, "result": {"org_id": "org_1"}, "events": [EVENT]},
        {"changed": False, "result": {"env_id": "env_1"}, "events": []},
        {"changed": True, "result": {"any": 1}, "events": [EVENT]},
    ]
    server = Server(answering({"position": 42, "changed": True, "projected": False, "results": results}))
    found, scale = CreateOrg(name="acme"), ScaleEnv(env_id="env_1", replicas={"web": 2})
    async with server.client() as client:
        bundle = await client.bundle(
            [found, scale.at(7), {"name": "new.thing", "data": {}}], reason="why", idempotency_key="k"
        )

    assert server.bodies == [
        {
            "commands": [
                {"name": "org.create", "data": {"name": "acme"}},
                {"name": "env.scale", "data": {"env_id": "env_1", "replicas": {"web": 2}}, "if_match": 7},
                {"name": "new.thing", "data": {}},
            ]
        }
    ]
    assert bundle.of(found).result.org_id == "org_1"
    assert (bundle.of(scale).changed, bundle.of(scale).result.env_id) == (False, "env_1")
    assert bundle.results[2].result == {"any": 1}
    with pytest.raises(KeyError, match=r"org\.create"):
        bundle.of(CreateOrg(name="acme"))


async def test_one_row_is_typed() -> None:
    server = Server(answering(APP))
    async with server.client() as client:
        row = await client.apps.get("app_1/..", min_position="e1-42", wait_s=3)

    assert server.requests[0].raw_path == "/v1/apps/app_1%2F..?min_position=e1-42"
    assert server.sent("Prefer") == ["wait=3"]
    assert (row.name, row.deleted_at) == ("shop", None)
    assert row.created_at == datetime(2026, 11, 22, 21, 32, 29, 432217, UTC)


async def test_desired_state_is_read_once_it_is_another_version() -> None:
    told = {"version": 7, "digest": "d", "items": [], "position": 9}
    server = Server(answering(told))
    async with server.client() as client:
        node = await client.nodes.desired("node_1", min_position=6, after="e1-5", wait=20, wait_s=3)
        edges = await client.edge.desired(after=5, wait=20)

    assert [each.path_qs for each in server.requests] == [
        "/v1/nodes/node_1/desired?min_position=6&after=e1-5&wait=20",
        "/v1/edge/desired?after=5&wait=20",
    ]
    assert server.sent("Prefer") == ["wait=3", None]
    assert (node.version, node.position, edges.version) == (7, 9, 7)


async def test_what_is_posted_and_is_no_command_is_a_method_beside_the_reads() -> None:
    server = Server(answering({"node_id": "node_1"}))
    async with server.client() as client:
        heard = await client.nodes.heartbeat("node_1", observed_position=42, load={"cpu": 0.5})

    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v1/nodes/node_1/heartbeat")
    assert server.bodies == [{"observed_position": 42, "load": {"cpu": 0.5}}]
    assert "Idempotency-Key" not in request.headers
    assert heard.node_id == "node_1"


async def test_what_a_newer_service_adds_is_no_error() -> None:
    server = Server(answering({**APP, "colour": "blue"}))
    async with server.client() as client:
        assert (await client.apps.get("app_1")).name == "shop"


async def test_a_list_is_iterated_over_row_by_row_through_all_pages() -> None:
    pages = (
        answering({"items": [APP, {**APP, "id": "app_2"}], "next": "opaque=", "position": 9}, Keelson_Position="9"),
        answering({"items": [{**APP, "id": "app_3"}], "next": None, "position": 9}, Keelson_Position="9"),
    )
    server = Server(*pages)
    async with server.client() as client:
        rows = [row.id async for row in client.apps.list(org_id="org_1", deleted=True)]

    assert rows == ["app_1", "app_2", "app_3"]
    assert [dict(each.query) for each in server.requests] == [
        {"org_id": "org_1", "deleted": "true"},
        {"org_id": "org_1", "deleted": "true", "cursor": "opaque="},
    ]


async def test_a_list_is_iterated_over_page_by_page_from_where_it_is_told() -> None:
    server = Server(
        answering({"items": [APP], "next": "c2", "position": 9}, Keelson_Position="9"),
        answering({"items": [], "next": None, "position": 10}, Keelson_Position="10"),
    )
    async with server.client() as client:
        pages = [page async for page in client.apps.list(limit=1, cursor="c1").pages()]

    assert [(len(page.items), page.next, page.position) for page in pages] == [(1, "c2", 9), (0, None, 10)]
    assert [each.query["cursor"] for each in server.requests] == ["c1", "c2"]


def event(position: int) -> dict[str, Any]:
    return {
        **EVENT,
        "position": position,
        "stored_version": 1,
        "aggregate_type": "app",
        "actor_type": "system",
        "actor_id": "operator",
        "request_id": "r",
        "command_id": "c",
        "command_end": True,
        "recorded_at": "2026-11-22T21:32:29Z",
        "payload": {"name": "shop"},
    }


async def test_events_are_read_on_through_empty_pages_up_to_the_head() -> None:
    """F4: a page without a match says how far was examined, and is not the end."""
    server = Server(
        answering({"items": [event(3)], "next": "e1-4", "position": "e1-9"}, Keelson_Position="9"),
        answering({"items": [], "next": "e1-8", "position": "e1-9"}, Keelson_Position="9"),
        answering({"items": [event(9)], "next": "e1-9", "position": "e1-9"}, Keelson_Position="9"),
    )
    since = datetime(2026, 11, 22, tzinfo=UTC)
    async with server.client() as client:
        events = [each async for each in client.events.list(type="app.created", since=since)]

    assert [(each.position, each.payload) for each in events] == [(3, {"name": "shop"}), (9, {"name": "shop"})]
    assert [each.query.get("after") for each in server.requests] == [None, "e1-4", "e1-8"]
    assert {each.query["since"] for each in server.requests} == {"2026-11-22T00:00:00+00:00"}


async def test_events_are_read_backwards_down_to_the_first() -> None:
    server = Server(
        answering({"items": [event(9)], "next": "e1-4", "position": "e1-9"}, Keelson_Position="9"),
        answering({"items": [event(1)], "next": None, "position": "e1-9"}, Keelson_Position="9"),
    )
    async with server.client() as client:
        events = [each.position async for each in client.events.list(order="desc")]

    assert events == [9, 1]
    assert [each.query.get("after") for each in server.requests] == [None, "e1-4"]


async def test_a_history_goes_on_by_seq_even_where_a_seq_looks_like_the_head() -> None:
    item = {
        **{name: event(3)[name] for name in ("position", "seq", "type", "actor_type", "actor_id", "recorded_at")},
        "reason": None,
        "causation_id": None,
        "changes": {"name": [None, "shop"]},
    }
    server = Server(
        answering({"items": [item], "next": 3, "position": 3}, Keelson_Position="3"),
        answering({"items": [item], "next": None, "position": 3}, Keelson_Position="3"),
    )
    async with server.client() as client:
        changes = [each.changes async for each in client.history.get("app_1", limit=1)]

    assert changes == [{"name": (None, "shop")}] * 2
    assert [each.query.get("after") for each in server.requests] == [None, "3"]


HEAD = """
from keelson.client import Client


async def call(client: Client) -> None:
    await client.app.create(project_id="project_1", name="shop")
"""

# Calls, and what mypy says of them; of the one above it has nothing to say.
CALLS = {
    "reveal_type((await client.app.create(project_id='p', name='n')).result.app_id)": 'Revealed type is "str"',
    "await client.app.create(project_id='p')": 'Missing named argument "name"',
    "await client.app.delete(app_id='a')": 'Missing named argument "reason"',
    "await client.app.create(project_id='p', name=7)": 'incompatible type "int"',
    "await client.app.create(project_id='p', name='n', if_match=1)": '"if_match"',
    "await client.deploy.create(env_id='e', release_id='r', kind='rolback')": "\"Literal['rolback']\"",
    "print([row.nmae async for row in client.apps.list()])": 'has no attribute "nmae"',
}


def test_calls_are_checked_by_types(tmp_path: Path) -> None:
    path = tmp_path / "calls.py"
    path.write_text(HEAD + "".join(f"    {call}\n" for call in CALLS), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--no-pretty", str(path)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - our own

    said: dict[int, str] = {}
    for line, text in re.findall(r"calls\.py:(\d+): (.*)", checked.stdout):
        said[int(line)] = said.get(int(line), "") + text
    first = HEAD.count("\n") + 1
    assert said.keys() == set(range(first, first + len(CALLS))), checked.stdout
    for line, complaint in enumerate(CALLS.values(), start=first):
        assert complaint in said[line]


def test_a_typed_answer_is_what_the_method_promises() -> None:
    assert CreateApp.result_type is AppResult
    body = {**answer(app_id="app_1"), "epoch": None}
    assert msgspec.convert(body, Answer[AppResult]).result == AppResult(app_id="app_1")
