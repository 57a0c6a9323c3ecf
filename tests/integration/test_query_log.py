"""Reading the log over HTTP: the audit log, histories, the projections' progress."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from keelson.events import Envelope, Ids
from keelson.events.app import AppCreated, AppDeleted, AppRenamed
from keelson.events.deploy import DeployCreated
from keelson.events.env import EnvReleaseSet, EnvRenamed
from keelson.events.ids import PLATFORM_ID, Position, Seq
from keelson.log import read
from keelson.views import PROJECTIONS
from keelson.views.platform import PLATFORM
from support.database import Database
from support.query_world import APP, ENV, ORG, PROJECT, Reader, World, make_id, open_world, served

RELEASE, DEPLOY = make_id("release", 1), make_id("deploy", 1)
# The epoch's beginning and the four entities of the base.
BASE_HEAD = 5


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database) as world:
        await world.append_base()
        yield world


@pytest.fixture
async def reader(database: Database, world: World) -> AsyncIterator[Reader]:  # noqa: ARG001 - the log comes first
    async with served(database) as reader:
        yield reader


def positions(page: Any) -> list[int]:
    return [item["position"] for item in page["items"]]


async def page_through(reader: Reader, **parameters: Any) -> list[int]:
    """Follow `next` to the end, as API.md says it is known; give the positions in the order in which they came."""
    found: list[int] = []
    while True:
        page = (await reader.get("/v1/events", **parameters)).body
        found += positions(page)
        at_end = page["next"] == page["position"] if parameters.get("order") != "desc" else page["next"] is None
        if at_end:
            return found
        assert page["next"] != parameters.get("after"), "every page gets on"
        parameters["after"] = page["next"]


async def test_an_event_is_shown_with_all_that_is_known_of_it(world: World, reader: Reader) -> None:
    await world.append(
        (APP, AppRenamed(name="store")),
        actor_type="user",
        actor_id="member_1",
        reason="a better name",
        request_id="r-7",
        correlation_id="c-7",
        causation_id=Position(4),
    )
    answer = await reader.get("/v1/events", after=BASE_HEAD)
    [event] = answer.body["items"]
    assert event == {
        "position": 6,
        "type": "app.renamed",
        "version": 1,
        "stored_version": 1,
        "aggregate_id": APP,
        "aggregate_type": "app",
        "seq": 2,
        "org_id": ORG,
        "project_id": PROJECT,
        "app_id": APP,
        "actor_type": "user",
        "actor_id": "member_1",
        "reason": "a better name",
        "request_id": "r-7",
        "correlation_id": "c-7",
        "causation_id": 4,
        "command_id": "command_6",
        "command_end": True,
        "recorded_at": event["recorded_at"],
        "payload": {"name": "store"},
    }
    assert answer.body["position"] == answer.body["next"] == f"{world.epoch}-6"
    assert answer.headers["Keelson-Position"] == "6"
    assert answer.headers["Keelson-Epoch"] == world.epoch


async def test_an_event_of_a_newer_writer_is_shown_raw(world: World, reader: Reader) -> None:
    await world.insert(
        Envelope(
            position=Position(6),
            aggregate_id=APP,
            seq=Seq(2),
            type="app.sung",
            version=4,
            org_id=ORG,
            actor_type="system",
            actor_id="operator",
            request_id="r",
            command_id="command_6",
            command_end=True,
            recorded_at=world.time_of(6),
            payload='{"aria": [1, 2]}',
        )
    )
    [event] = (await reader.get("/v1/events", after=BASE_HEAD)).body["items"]
    assert (event["version"], event["stored_version"], event["payload"]) == (4, 4, {"aria": [1, 2]})
    history = (await reader.get(f"/v1/history/{APP}")).body["items"]
    assert [(item["type"], item["changes"] is None) for item in history] == [("app.created", False), ("app.sung", True)]


async def test_pages_follow_each_other_both_ways(world: World, reader: Reader) -> None:
    for _ in range(10):
        await world.append((APP, AppRenamed(name="x")))
    everything = list(range(1, world.head + 1))
    for limit in (1, 4, 500):
        assert await page_through(reader, limit=limit) == everything
        assert await page_through(reader, limit=limit, order="desc") == everything[::-1]


async def test_a_page_ends_where_a_command_ends(world: World, reader: Reader) -> None:
    await world.append(*((make_id("app", number), AppCreated(name="x")) for number in range(2, 6)))
    page = (await reader.get("/v1/events", after=BASE_HEAD, limit=1)).body
    assert positions(page) == [6, 7, 8, 9]
    page = (await reader.get("/v1/events", after=world.head, limit=1, order="desc")).body
    assert positions(page) == [8, 7, 6], "below its last event, to where the command begins"


async def test_f4_filters_and_the_cursor_examined(
    world: World, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page without a match has a cursor of what was examined, never the head."""
    monkeypatch.setattr(read, "WINDOW", 5)
    for _ in range(18):
        await world.append((APP, AppRenamed(name="x")))
    await world.append((ENV, EnvRenamed(name="y")))
    page = (await reader.get("/v1/events", type="env.renamed")).body
    assert page["items"] == []
    assert page["next"] == f"{world.epoch}-5"
    assert page["position"] == f"{world.epoch}-{world.head}"
    assert await page_through(reader, type="env.renamed") == [world.head]
    assert await page_through(reader, type="env.created", order="desc") == [5]


async def test_every_filter(world: World, reader: Reader) -> None:
    await world.append((APP, AppRenamed(name="a")), actor_id="ada", request_id="r-2", correlation_id="c-2")
    await world.append((make_id("org", 2), AppDeleted()), ids=Ids(org_id=make_id("org", 2), node_id="node_1"))
    for filters, expected in (
        ({"org_id": ORG}, [2, 3, 4, 5, 6]),
        ({"org_id": make_id("org", 2)}, [7]),
        ({"project_id": PROJECT}, [3, 4, 5, 6]),
        ({"app_id": APP}, [4, 5, 6]),
        ({"env_id": ENV}, [5]),
        ({"node_id": "node_1"}, [7]),
        ({"aggregate_type": "app"}, [4, 6]),
        ({"aggregate_id": APP}, [4, 6]),
        ({"type": "app.renamed"}, [6]),
        ({"actor_id": "ada"}, [6]),
        ({"request_id": "r-2"}, [6]),
        ({"correlation_id": "c-2", "app_id": APP}, [6]),
        ({"correlation_id": "null"}, []),
    ):
        assert await page_through(reader, **filters) == expected, filters
        assert await page_through(reader, **filters, order="desc") == expected[::-1], filters


async def test_events_between_times(world: World, reader: Reader) -> None:
    """Both ends belong to it; and beyond the last in time, the cursor is at the end at once."""
    for _ in range(5):
        await world.append((APP, AppRenamed(name="x")))
    since, until = world.time_of(6), world.time_of(8)
    between = {"since": since.isoformat(), "until": until.isoformat()}
    assert await page_through(reader, **between) == [6, 7, 8]
    assert await page_through(reader, **between, limit=1) == [6, 7, 8]
    assert await page_through(reader, **between, order="desc") == [8, 7, 6]
    assert await page_through(reader, **between, order="desc", limit=1) == [8, 7, 6]
    assert await page_through(reader, **between, env_id=ENV) == []
    page = (await reader.get("/v1/events", limit=500, **between)).body
    assert page["next"] == page["position"], "nothing beyond can match"
    page = (await reader.get("/v1/events", since=since.isoformat(), order="desc", limit=500)).body
    assert (positions(page), page["next"]) == ([10, 9, 8, 7, 6], None)
    before = (world.began_at - timedelta(days=1)).isoformat()
    after = (world.time_of(world.head) + timedelta(days=1)).isoformat()
    assert await page_through(reader, until=before) == []
    assert await page_through(reader, until=before, order="desc") == []
    assert await page_through(reader, since=after) == []
    assert await page_through(reader, since=after, order="desc") == []
    assert await page_through(reader, since=before, until=after) == list(range(1, 11))
    assert await page_through(reader, after=7, since=since.isoformat()) == [8, 9, 10]
    assert await page_through(reader, after=7, until=until.isoformat(), order="desc") == [6, 5, 4, 3, 2, 1]


async def test_f30_cursors_of_another_epoch_beyond_the_head_and_garbage(world: World, reader: Reader) -> None:
    for order in ("asc", "desc"):
        for after, status, code in (
            (f"{world.epoch}-{world.head}", 200, None),
            (str(world.head), 200, None),
            (f"{world.epoch}-{world.head + 1}", 410, "cursor_expired"),
            (str(world.head + 1), 410, "cursor_expired"),
            ("9" * 18, 410, "cursor_expired"),
            ("other-1", 410, "cursor_expired"),
            ("9" * 19, 400, "bad_cursor"),
            ("x", 400, "bad_cursor"),
            ("-1", 400, "bad_cursor"),
            ("", 400, "bad_cursor"),
        ):
            answer = await reader.get("/v1/events", after=after, order=order)
            assert answer.status == status, (order, after)
            assert code is None or answer.code == code
    below_the_first = await reader.get("/v1/events", after=0, order="desc")
    assert (below_the_first.body["items"], below_the_first.body["next"]) == ([], None)


async def test_f26_a_new_epoch_is_seen_at_once(world: World, reader: Reader) -> None:
    cursor = (await reader.get("/v1/events")).body["next"]
    await world.owner.execute("UPDATE log.head SET epoch = 'another'")
    answer = await reader.get("/v1/events", after=cursor)
    assert (answer.status, answer.code) == (410, "cursor_expired")
    assert answer.headers["Keelson-Epoch"] == "another"


async def test_min_position_on_the_log_is_answered_at_once(world: World, reader: Reader) -> None:
    for path in ("/v1/events", f"/v1/history/{APP}"):
        assert (await reader.get(path, min_position=world.head)).status == 200
        answer = await reader.get(path, min_position=world.head + 1)
        assert (answer.status, answer.code, answer.body["position"]) == (504, "not_yet", world.head)
        assert (await reader.get(path, min_position="other-1")).code == "cursor_expired"


async def test_what_cannot_be_asked_of_the_log(reader: Reader) -> None:
    assert (await reader.get("/v1/events", headers={"Last-Event-ID": "1"})).code == "not_supported"
    for parameters, code in (
        ({"wait": "0"}, "invalid"),
        ({"wait": "31"}, "invalid"),
        ({"wait": "5", "order": "desc"}, "not_supported"),
        ({"as_of": "5"}, "not_supported"),
        ({"order": "up"}, "invalid"),
        ({"limit": "0"}, "invalid"),
        ({"since": "yesterday"}, "invalid"),
        ({"since": "2026-01-01T00:00:00"}, "invalid"),
        ({"color": "red"}, "invalid"),
        ({"type": "a\0"}, "invalid"),
    ):
        assert (await reader.get("/v1/events", **parameters)).code == code, parameters
    for parameters, code in (
        ({"after": "-1"}, "invalid"),
        ({"limit": "501"}, "invalid"),
        ({"as_of": "1"}, "not_supported"),
    ):
        assert (await reader.get(f"/v1/history/{APP}", **parameters)).code == code, parameters
    assert (await reader.get("/v1/projections", x=1)).code == "invalid"


async def test_a_history_says_what_each_event_changed(world: World, reader: Reader) -> None:
    await world.append((APP, AppRenamed(name="store")), reason="a better name", causation_id=Position(4))
    await world.append((APP, AppDeleted()))
    answer = await reader.get(f"/v1/history/{APP}")
    created, renamed, deleted = answer.body["items"]
    assert created["changes"] == {
        "id": [None, APP],
        "org_id": [None, ORG],
        "project_id": [None, PROJECT],
        "name": [None, "shop"],
    }
    assert {name: renamed[name] for name in renamed if name != "recorded_at"} == {
        "position": 6,
        "seq": 2,
        "type": "app.renamed",
        "actor_type": "system",
        "actor_id": "operator",
        "reason": "a better name",
        "causation_id": 4,
        "changes": {"name": ["shop", "store"]},
    }
    assert deleted["changes"] == {"deleted_at": [None, deleted["recorded_at"]]}
    assert (answer.body["next"], answer.body["position"]) == (None, world.head)
    assert answer.headers["Keelson-Position"] == str(world.head)


async def test_a_history_is_paged_by_seq_and_folded_from_the_first(world: World, reader: Reader) -> None:
    for number in range(6):
        await world.append((APP, AppRenamed(name=f"n{number}")))
    items: list[Any] = []
    after = 0
    while True:
        page = (await reader.get(f"/v1/history/{APP}", limit=3, after=after)).body
        items += page["items"]
        if page["next"] is None:
            break
        after = page["next"]
    assert [item["seq"] for item in items] == [1, 2, 3, 4, 5, 6, 7]
    assert [item["changes"]["name"] for item in items[1:]] == [["shop", "n0"]] + [
        [f"n{number}", f"n{number + 1}"] for number in range(5)
    ]
    assert (await reader.get(f"/v1/history/{APP}", after=7)).body["items"] == []


async def test_histories_of_what_has_other_rows_or_none(world: World, reader: Reader) -> None:
    await world.append(
        (DEPLOY, DeployCreated(release_id=RELEASE, release_number=1, kind="deploy")),
        (ENV, EnvReleaseSet(deploy_id=DEPLOY, release_id=RELEASE, release_number=1, processes={})),
    )
    env = (await reader.get(f"/v1/history/{ENV}")).body["items"]
    assert env[1]["changes"] == {
        "release_id": [None, RELEASE],
        "release_number": [None, 1],
        "deploy_id": [None, DEPLOY],
    }
    platform = (await reader.get(f"/v1/history/{PLATFORM_ID}")).body["items"]
    assert [(item["type"], item["changes"]) for item in platform] == [("platform.epoch_began", {})]
    for unknown in (make_id("app", 9), "app_", "x", "%00"):
        answer = await reader.get(f"/v1/history/{unknown}")
        assert (answer.status, answer.code) == (404, "not_found")
        assert answer.headers["Keelson-Position"] == str(world.head)


@pytest.mark.parametrize("jump", [timedelta(days=-400), timedelta(days=400)], ids=["back", "forth"])
async def test_f11_projections_tell_how_far_they_are_whatever_the_clock_does(
    world: World, reader: Reader, jump: timedelta
) -> None:
    now = await world.owner.fetchval("SELECT clock_timestamp()")
    await world.project("tenancy")
    await world.append((APP, AppRenamed(name="a")), recorded_at=now - jump)
    await world.projector.execute("UPDATE ops.checkpoints SET rate = 12.5, updated_at = $1", now - jump)
    items = {item["name"]: item for item in (await reader.get("/v1/projections")).body["items"]}
    assert items["tenancy"]["lag_events"] == 1
    assert all(item["lag_s"] >= 0 and 0 <= item["rate"] <= 12.5 for item in items.values())


async def test_projections_tell_how_far_they_are(world: World, reader: Reader) -> None:
    await world.project("tenancy", "platform")
    now = await world.owner.fetchval("SELECT clock_timestamp()")
    await world.append((APP, AppRenamed(name="a")), recorded_at=now - timedelta(seconds=30))
    await world.append((APP, AppRenamed(name="b")), recorded_at=now)
    await world.project("tenancy")
    await world.projector.execute(
        "UPDATE ops.checkpoints SET state = 'stopped', error_position = 6, error_type = 'app.renamed', "
        "error_message = 'no such row', rate = 12.5 WHERE projection = 'platform'"
    )
    await world.projector.execute(
        "INSERT INTO ops.leases (name, holder, expires_at) VALUES "
        "('tenancy', 'replica-1', clock_timestamp() + '1 minute'), "
        "('platform', 'replica-2', clock_timestamp() - interval '1 second')"
    )
    answer = await reader.get("/v1/projections")
    activity, platform, tenancy = answer.body["items"]
    assert (answer.body["head"], answer.headers["Keelson-Position"]) == (7, "7")
    assert tenancy == {
        "name": "tenancy",
        "version": PROJECTIONS["tenancy"].version,
        "state": "running",
        "checkpoint": 7,
        "lag_events": 0,
        "lag_s": 0.0,
        "rate": 0.0,
        "holder": "replica-1",
        "error": None,
    }
    assert 30 <= platform.pop("lag_s") < 60
    assert 0 < platform.pop("rate") <= 12.5  # forgotten little by little
    assert platform == {
        "name": "platform",
        "version": PLATFORM.version,
        "state": "stopped",
        "checkpoint": 5,
        "lag_events": 2,
        "holder": None,
        "error": {"position": 6, "event_type": "app.renamed", "message": "no such row"},
    }
    assert (activity["checkpoint"], activity["lag_events"]) == (0, 7)


async def test_f3_a_page_and_its_head_are_of_one_snapshot(world: World, reader: Reader) -> None:
    """The end is the end: a page whose next is the head holds the head, however fast the log grows."""

    async def write() -> None:
        for _ in range(150):
            await world.append((APP, AppRenamed(name="x")))

    writing = asyncio.create_task(write())
    while not writing.done():
        page = (await reader.get("/v1/events", limit=500)).body
        assert page["next"] == page["position"] == f"{world.epoch}-{positions(page)[-1]}"
        history = (await reader.get(f"/v1/history/{APP}", limit=500)).body
        assert history["position"] - BASE_HEAD == len(history["items"]) - 1
    await writing
