"""Whose the streams of a replica are: no tenant has them all, nor all tenants together (F32, F45).

Twenty streams: two for one organisation or one node, ten for all organisations.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from keelson.query.feed import metrics
from support.cast import enroll
from support.command_world import World, open_world
from support.database import Database
from support.query_world import TOKEN, Reader, served
from support.query_world import World as Views
from support.query_world import open_world as open_views
from support.sse import Stream, streamed
from support.waiting import eventually

STREAMS = 20
OF_ALL_ORGANISATIONS = 10
OF_ONE = 2


@dataclass
class Stage:
    """The commands, a replica to read from, and what is open there."""

    world: World
    views: Views
    reader: Reader
    stack: AsyncExitStack

    @property
    def streams(self) -> int:
        """How many are open."""
        streams: int = self.reader.app.state.feed.streams
        return streams

    async def token_of(self, org_id: str) -> str:
        """Make a principal of an organisation that may read what happens, and give its credential."""
        made = await self.world.replica.command(
            "principal.create", org_id=org_id, name=self.world.new_name(), scopes=["audit:read"]
        )
        principal_id = made.result["principal_id"]
        issued = await self.world.replica.command("principal.issue_credential", principal_id=principal_id)
        return str(issued.result["token"])

    async def ask(self, token: str, path: str = "/v1/events") -> Stream:
        """Ask for a stream; it stays open until the end of the test, if it is admitted."""
        return await self.stack.enter_async_context(streamed(self.reader.url, token, path))

    async def admit(self, token: str, path: str = "/v1/events") -> Stream:
        """Open a stream, and see that it is told something."""
        stream = await self.ask(token, path)
        assert stream.status == 200, await stream.read_problem()
        await stream.next("event", "bookmark")
        return stream


@pytest.fixture
async def stage(database: Database) -> AsyncIterator[Stage]:
    async with (
        open_world(database) as world,
        open_views(database) as views,
        served(database, feed_max_streams=STREAMS) as reader,
        AsyncExitStack() as stack,
    ):
        yield Stage(world, views, reader, stack)


async def refusal_of(asked: Awaitable[Stream]) -> tuple[int, str]:
    """Give the status and code of a refusal, which says when to come again."""
    stream = await asked
    problem = await stream.read_problem()
    assert 1 <= int(stream.headers["retry-after"]) <= 10
    return stream.status, problem["code"]


async def test_f45_one_organisation_does_not_take_the_streams_of_others(stage: Stage) -> None:
    """Neither by several principals, nor by reads that wait; and it is no outage, which would wake somebody."""
    noisy, quiet = await stage.world.create_org(), await stage.world.create_org()
    tokens = [await stage.token_of(noisy) for _ in range(3)]
    quiet_token = await stage.token_of(quiet)
    head = await stage.world.head()
    first = await stage.admit(tokens[0])
    waiting = asyncio.create_task(stage.reader.get("/v1/events", token=tokens[1], after=head, wait=30))
    await eventually(lambda: stage.streams == OF_ONE)
    before = metrics.REFUSED_ONE._value.get()
    for token in tokens:
        assert await refusal_of(stage.ask(token)) == (429, "rate_limited")
        answer = await stage.reader.get("/v1/events", token=token, after=head, wait=30)
        assert (answer.status, answer.code) == (429, "rate_limited")
    assert metrics.REFUSED_ONE._value.get() == before + 6
    await stage.admit(quiet_token)

    first.writer.close()
    await eventually(lambda: stage.streams == OF_ONE)  # the read that waits, and the other organisation's
    await stage.admit(tokens[2])
    assert (await stage.world.replica.command("org.rename", org_id=noisy, name="noisy")).status == 200
    assert (await waiting).status == 200


async def test_f45_all_organisations_together_leave_room_for_nodes_edges_and_operators(stage: Stage) -> None:
    tenants = [await stage.token_of(await stage.world.create_org()) for _ in range(OF_ALL_ORGANISATIONS // OF_ONE)]
    streams = [await stage.admit(token) for token in tenants for _ in range(OF_ONE)]
    late = await stage.token_of(await stage.world.create_org())
    before = metrics.REFUSED_ORGANISATIONS._value.get()
    assert await refusal_of(stage.ask(late)) == (503, "unavailable")
    assert metrics.REFUSED_ORGANISATIONS._value.get() == before + 1

    node_id, node_token = await enroll(stage.world, "node-1")
    await stage.views.project()
    for _ in range(OF_ONE):
        await stage.admit(node_token, f"/v1/nodes/{node_id}/desired")
    assert await refusal_of(stage.ask(node_token, f"/v1/nodes/{node_id}/desired")) == (429, "rate_limited")
    for path in ("/v1/events", "/v1/edge/desired") * 4:  # what the scheduler asks for, and edges
        await stage.admit(TOKEN, path)
    assert stage.streams == STREAMS
    before = metrics.REFUSED_ALL._value.get()
    assert await refusal_of(stage.ask(TOKEN)) == (503, "unavailable")
    assert metrics.REFUSED_ALL._value.get() == before + 1

    streams[0].writer.close()
    await eventually(lambda: stage.streams == STREAMS - 1)
    await stage.admit(late)
