"""The change feed over real sockets: what is told, in which frames, and how a client goes on."""

from collections.abc import AsyncIterator

import pytest

from keelson.events.app import AppRenamed
from support.database import Database
from support.query_world import APP, TOKEN, Reader, World, open_world, served
from support.sse import streamed


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database) as world:
        await world.append_base()
        yield world


@pytest.fixture
async def reader(database: Database, world: World) -> AsyncIterator[Reader]:
    assert world.head
    async with served(database) as reader:
        yield reader


async def test_a_stream_begins_at_the_beginning_and_goes_on(world: World, reader: Reader) -> None:
    async with streamed(reader.url, TOKEN) as stream:
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")
        assert (stream.headers["cache-control"], stream.headers["x-accel-buffering"]) == ("no-store", "no")
        assert stream.headers["keelson-epoch"] == world.epoch
        retry = await stream.frame()
        assert (retry.kind, 500 <= retry.data <= 3000) == ("retry", True)
        events = await stream.events_to(world.head)
        page = await reader.get("/v1/events")
        assert [each.data for each in events] == page.body["items"]
        await world.append((APP, AppRenamed(name="store")))
        [live] = await stream.events_to(world.head)
        assert (live.data["type"], live.id) == ("app.renamed", f"{world.epoch}-{world.head}")
