"""What is looked at again and again: who answers, where the log ends, and which nodes are heard."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from keelson.client import Client
from keelson.scheduler import watching
from keelson.scheduler.heartbeats import Heartbeats
from keelson.scheduler.watching import Head, Watcher
from unit.client.server import EPOCH, Server

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
Fails = Callable[[], web.Response]
AWAY = "the services do not answer"


class Services:
    """Both services: they answer, or do not in some way, and know of two nodes, of which `n` may be quiet."""

    def __init__(self) -> None:
        self.fails: Fails | None = None
        self.position = 1
        self.beats = {"n": 0, "m": 0}

    async def reply(self, request: web.Request) -> web.StreamResponse:
        """Answer what a watcher asks."""
        if self.fails is not None:
            return self.fails()
        match request.path:
            case "/readyz":
                return web.json_response({})
            case "/v1/events":
                assert dict(request.query) == {"order": "desc", "limit": "1"}
                return _page([], self.position)
            case "/v1/nodes":
                return _page([_row(name, beat) for name, beat in self.beats.items()], self.position)
        return web.Response(status=404)


class Stage:
    """A watcher, its services, and its clock."""

    def __init__(self, services: Services, client: Client, session: aiohttp.ClientSession) -> None:
        self.now = 1000.0
        self.services = services
        self.heartbeats = Heartbeats(12.0, longest_s=2.0)
        self.watcher = Watcher(
            client,
            client._command_url,
            heartbeats=self.heartbeats,
            monotonic=lambda: self.now,
            on_look=lambda: None,
        )
        self._session = session

    async def look(self, *, after_s: float = 1.0, quiet: str = "") -> None:
        """Look once more, when all but one have beaten again."""
        self.now += after_s
        for name in self.services.beats.keys() - {quiet}:
            self.services.beats[name] += 1
        await self.watcher._look(self._session)

    async def fail(self, *, after_s: float = 3.0, quiet: str = "") -> None:
        """Look, and be answered by nobody."""
        self.services.fails = lambda: web.Response(status=404)
        await self.look(after_s=after_s, quiet=quiet)
        self.services.fails = None


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    services = Services()
    async with Server(services.reply).client() as client, aiohttp.ClientSession() as session:
        yield Stage(services, client, session)


def standing(watcher: Watcher) -> tuple[Head | None, float | None, str | None]:
    return watcher.head, watcher.good_since, watcher.trouble


def _page(items: list[Any], position: int) -> web.Response:
    body = {"items": items, "next": None, "position": f"e1-{position}"}
    return web.json_response(body, headers=EPOCH | {"Keelson-Position": str(position)})


def _row(name: str, beat: int) -> dict[str, Any]:
    times = dict.fromkeys(("created_at", "updated_at"), BEGAN.isoformat())
    said = {"resource_version": 1, "position": 1, "id": name, "credential_id": "c", "expires_at": None}
    return {**times, **said, "heartbeat_at": (BEGAN + timedelta(seconds=beat)).isoformat()}


async def test_a_look_sees_who_answers_the_head_and_who_beats(stage: Stage) -> None:
    unanswered = "neither service has answered yet"
    assert standing(stage.watcher) == (None, None, unanswered)

    await stage.look()
    await stage.look(quiet="n")

    assert standing(stage.watcher) == (Head("e1", 1), 1001.0, None)
    assert stage.heartbeats.heard == {"m"}


@pytest.mark.parametrize(
    "fails",
    [
        lambda: web.Response(status=503),
        lambda: web.Response(text="<html>a proxy's page</html>", content_type="text/html"),
        lambda: web.json_response({}),
        lambda: web.json_response({"position": "?", "items": [{}], "next": None}),
    ],
    ids=["refused", "a page", "nothing", "something else"],
)
async def test_whatever_is_no_answer_is_none_and_ends_nothing(stage: Stage, fails: Fails) -> None:
    await stage.look()
    stage.services.fails = fails

    await stage.look()
    assert (stage.watcher.trouble, stage.watcher.head) == (AWAY, Head("e1", 1))
    stage.services.fails = None
    await stage.look()
    assert stage.watcher.trouble is None


async def test_one_look_that_fails_now_and_then_is_no_outage(stage: Stage) -> None:
    await stage.look()

    for _ in range(10):
        await stage.fail()
        assert stage.watcher.trouble == AWAY
        await stage.look()

    assert stage.watcher.good_since == 1001.0


async def test_an_outage_ends_what_was_good_and_it_begins_anew(stage: Stage) -> None:
    await stage.look()

    await stage.fail()
    await stage.fail()
    assert stage.watcher.good_since is None
    await stage.look()

    assert stage.watcher.good_since == stage.now


async def test_a_dead_node_is_silent_in_the_end_though_each_second_look_fails(stage: Stage) -> None:
    await stage.look()
    await stage.look()

    for _ in range(6):
        assert stage.heartbeats.silent == set()
        await stage.fail(quiet="n")
        await stage.look(quiet="n")

    assert stage.heartbeats.silent == {"n"}
    assert stage.heartbeats.heard == {"m"}


async def test_it_looks_for_ever(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_EVERY_S", 0.0)
    looks = 0

    def count() -> None:
        nonlocal looks
        looks += 1
        stage.services.position += 1
        if looks == 3:
            raise InterruptedError

    stage.watcher._on_look = count
    with pytest.raises(InterruptedError):
        await stage.watcher.run()

    assert stage.watcher.head == Head("e1", 3)
