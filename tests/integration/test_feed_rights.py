"""Streams end with the rights of who opened them: within a second, and without another event (F34); and whose they are.

Two replicas, each with its own ring: the credential is changed by commands, as users change it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import pytest

from keelson.log.read import read_page
from keelson.query.feed import follower, watches
from keelson.query.feed.feed import CATCH_UP_READS, Feed
from keelson.query.feed.guard import Guard
from keelson.service import credentials
from support.cast import enroll
from support.command_world import World, open_world
from support.database import Database
from support.query_world import Reader, served
from support.query_world import open_world as open_views
from support.sse import Frame, Stream, connect, streamed
from support.stalling import sleeping
from support.waiting import eventually

BOUND_S = 1.0


@dataclass
class Stage:
    """The commands, two replicas to read from, and an organisation."""

    world: World
    readers: tuple[Reader, Reader]
    org_id: str
    app_id: str

    async def principal(self, *scopes: str) -> str:
        """Make a principal of the organisation."""
        made = await self.world.replica.command(
            "principal.create", org_id=self.org_id, name=self.world.new_name(), scopes=list(scopes or ("audit:read",))
        )
        return str(made.result["principal_id"])

    async def credential(self, principal_id: str, **fields: Any) -> dict[str, str]:
        """Issue a credential of it."""
        issued = await self.world.replica.command("principal.issue_credential", principal_id=principal_id, **fields)
        assert issued.status == 200, issued.body
        result: dict[str, str] = issued.result
        return result

    async def rename(self) -> None:
        """Have something happen in the organisation."""
        renamed = await self.world.replica.command("app.rename", app_id=self.app_id, name=self.world.new_name())
        assert renamed.status == 200, renamed.body

    async def send(self, name: str, /, **data: Any) -> int:
        """Send a command that changes somebody's rights; give the position of its last event."""
        answer = await self.world.replica.command(name, **data)
        assert answer.status == 200, answer.body
        return int(answer.body["position"])


@pytest.fixture
async def stage(database: Database) -> AsyncIterator[Stage]:
    async with (
        open_world(database) as world,
        open_views(database),
        served(database) as first,
        served(database) as second,
    ):
        app_id = await world.create_app()
        [created] = [each for each in await world.events() if each.aggregate_id == app_id]
        assert created.org_id is not None
        yield Stage(world, (first, second), created.org_id, app_id)


Change = Callable[[Stage, str, dict[str, str]], Awaitable[int]]


async def revoke(stage: Stage, principal_id: str, credential: dict[str, str]) -> int:
    return await stage.send(
        "principal.revoke_credential", principal_id=principal_id, credential_id=credential["credential_id"]
    )


async def take_scopes(stage: Stage, principal_id: str, _credential: dict[str, str]) -> int:
    return await stage.send("principal.set_scopes", principal_id=principal_id, scopes=["apps:read"])


async def give_scopes(stage: Stage, principal_id: str, _credential: dict[str, str]) -> int:
    return await stage.send("principal.set_scopes", principal_id=principal_id, scopes=["audit:read", "apps:read"])


async def delete(stage: Stage, principal_id: str, _credential: dict[str, str]) -> int:
    return await stage.send("principal.delete", principal_id=principal_id)


async def is_told(stage: Stage, stream: Stream, reader: Reader) -> None:
    """See that a stream works: it is told what happens."""
    await eventually(lambda: reader.app.state.feed.hub.end >= 1)
    await stage.rename()
    await stream.events_to(await stage.world.head())


async def ends(stream: Stream, changed: int, began: float) -> float:
    """See that a stream is told nothing from a change on, and ends whole; give how long that took."""
    rest = await stream.rest(timeout_s=5)
    took = monotonic() - began
    assert [each for each in rest if each.kind == "event" and each.position >= changed] == []
    return took


async def change_with_open_streams(stage: Stage, change: Change) -> list[float]:
    """Open a stream on each replica, change the credential, and go on changing other things; give when they ended."""
    principal_id = await stage.principal()
    credential = await stage.credential(principal_id)
    streams = [await connect(reader.url, "/v1/events", credential["token"]) for reader in stage.readers]
    try:
        for stream, reader in zip(streams, stage.readers, strict=True):
            await is_told(stage, stream, reader)
        changed = await change(stage, principal_id, credential)
        began = monotonic()
        ending = [asyncio.create_task(ends(stream, changed, began)) for stream in streams]
        for _ in range(5):
            await stage.rename()
        return await asyncio.gather(*ending)
    finally:
        for stream in streams:
            stream.writer.transport.abort()


@pytest.mark.parametrize("change", [revoke, take_scopes, give_scopes, delete])
async def test_f34_streams_end_within_a_second_on_every_replica_and_are_told_nothing_more(
    stage: Stage, change: Change
) -> None:
    took = await change_with_open_streams(stage, change)
    print(f"streams ended {[round(each, 3) for each in took]} s after the change")  # noqa: T201
    assert max(took) < BOUND_S


async def test_planted_without_the_guard_a_stream_outlives_its_credential(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Guard, "_doubt", lambda *_: None)
    with pytest.raises((AssertionError, TimeoutError)):
        await change_with_open_streams(stage, revoke)


@pytest.fixture
def asked_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have questions about credentials take a while, in which much may happen."""
    ask = Guard._ask

    async def ask_slowly(self: Guard, credential: Any) -> Any:
        caller = await ask(self, credential)
        await asyncio.sleep(0.3)
        return caller

    monkeypatch.setattr(Guard, "_ask", ask_slowly)


@pytest.mark.usefixtures("asked_slowly")
async def test_f34_nothing_is_told_while_a_credential_is_doubted(stage: Stage) -> None:
    assert max(await change_with_open_streams(stage, revoke)) < BOUND_S


@pytest.mark.usefixtures("asked_slowly")
async def test_planted_a_doubt_that_holds_nobody_back_lets_events_through(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked all the same, but the stream goes on meanwhile: it is told what came after the change."""
    monkeypatch.setattr(watches.Watch, "is_doubted", property(lambda _: False))
    with pytest.raises(AssertionError):
        await change_with_open_streams(stage, revoke)


@pytest.mark.usefixtures("asked_slowly")
async def test_f34_a_doubt_that_was_none_costs_a_moment_and_no_event(stage: Stage) -> None:
    """The principal has been given another credential: that is an event of the holder, and changes nothing."""
    principal_id = await stage.principal()
    credential = await stage.credential(principal_id)
    [reader, _] = stage.readers
    async with streamed(reader.url, credential["token"]) as stream:
        await is_told(stage, stream, reader)
        begun = await stage.world.head()
        await stage.credential(principal_id)
        for _ in range(3):
            await stage.rename()
        head = await stage.world.head()
        told = await stream.events_to(head)
    assert [each.position for each in told] == list(range(begun + 1, head + 1))


async def test_f34_streams_of_other_credentials_go_on(stage: Stage) -> None:
    principal_id = await stage.principal()
    revoked, other = await stage.credential(principal_id), await stage.credential(principal_id)
    [reader, _] = stage.readers
    async with (
        streamed(reader.url, revoked["token"]) as ended,
        streamed(reader.url, other["token"]) as stream,
    ):
        await is_told(stage, stream, reader)
        await revoke(stage, principal_id, revoked)
        await ended.rest()
        await is_told(stage, stream, reader)


async def test_f34_a_members_stream_ends_with_the_membership_and_others_are_not_asked_about(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    ask = Guard._ask

    async def counting(self: Guard, credential: Any) -> Any:
        asked.append(credential)
        return await ask(self, credential)

    tokens = []
    members = []
    for name in ("leaves", "stays"):
        added = await stage.world.replica.command(
            "org.add_member", org_id=stage.org_id, email=f"{name}@example.org", role="admin"
        )
        members.append(added.result["member_id"])
        issued = await stage.world.replica.command("org.issue_credential", org_id=stage.org_id, member_id=members[-1])
        tokens.append(issued.result["token"])
    [reader, _] = stage.readers
    async with streamed(reader.url, tokens[0]) as leaving, streamed(reader.url, tokens[1]) as staying:
        await is_told(stage, staying, reader)
        monkeypatch.setattr(Guard, "_ask", counting)
        began = monotonic()
        changed = await stage.send("org.remove_member", org_id=stage.org_id, member_id=members[0])
        assert await ends(leaving, changed, began) < BOUND_S
        assert len(asked) == 1
        await stage.send("org.rename", org_id=stage.org_id, name=stage.world.new_name())
        await is_told(stage, staying, reader)
        assert len(asked) == 2, "what names no member is about all of them"


async def test_f34_a_stream_ends_when_its_credential_expires(stage: Stage) -> None:
    principal_id = await stage.principal()
    expires_at = datetime.now(UTC) + timedelta(seconds=2)
    credential = await stage.credential(principal_id, expires_at=expires_at)
    async with streamed(stage.readers[0].url, credential["token"]) as stream:
        assert stream.status == 200
        await stream.rest()
        late_s = (datetime.now(UTC) - expires_at).total_seconds()
        assert 0 <= late_s < BOUND_S


async def test_f34_a_stream_does_not_begin_by_what_was_known_before(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replica has just been told that the credential is good, and believes it for as long as it takes."""
    monkeypatch.setattr(credentials, "MAX_AGE_S", 600)
    principal_id = await stage.principal()
    credential = await stage.credential(principal_id)
    [reader, _] = stage.readers
    assert (await reader.get("/v1/events", token=credential["token"], limit=1)).status == 200
    changed = await revoke(stage, principal_id, credential)
    await eventually(lambda: reader.app.state.feed.hub.end >= changed, interval_s=0.002)
    assert (await reader.get("/v1/events", token=credential["token"], limit=1)).status == 200
    refused = await connect(reader.url, "/v1/events", credential["token"])
    assert (refused.status, (await refused.read_problem())["code"]) == (401, "unauthenticated")
    refused.writer.close()


async def test_f34_a_read_that_waits_ends_with_its_credential(stage: Stage) -> None:
    principal_id = await stage.principal()
    credential = await stage.credential(principal_id)
    [reader, _] = stage.readers
    head = await stage.world.head()
    waiting = asyncio.create_task(
        reader.get("/v1/events", token=credential["token"], after=head, wait=30, aggregate_id=f"app_{'0' * 26}")
    )
    await eventually(lambda: reader.app.state.feed.streams == 1)
    began = monotonic()
    await revoke(stage, principal_id, credential)
    answer = await waiting
    assert (answer.status, monotonic() - began < BOUND_S) == (401, True)


async def test_f34_a_read_that_waits_tells_nothing_of_what_came_after_its_rights_ended(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads beyond what has arrived in its replica, which has not heard of the end of the credential yet."""
    principal_id = await stage.principal()
    credential = await stage.credential(principal_id)
    [reader, _] = stage.readers
    feed: Feed = reader.app.state.feed
    head = await stage.world.head()
    await eventually(lambda: feed.hub.end == head)
    held, looked = arriving_once(monkeypatch, feed)
    await looked.wait()
    waiting = asyncio.create_task(reader.get("/v1/events", token=credential["token"], after=head, wait=30))
    await eventually(lambda: sleeping(reader) == 1)
    async with AsyncExitStack() as stack:
        for _ in range(CATCH_UP_READS):
            await stack.enter_async_context(feed.catching_up)
        await stage.rename()
        await held.wait()
        changed = await revoke(stage, principal_id, credential)
        await stage.rename()
        assert feed.hub.end < changed
    answer = await waiting
    assert (answer.status, answer.code) == (401, "unauthenticated")


def arriving_once(monkeypatch: pytest.MonkeyPatch, feed: Feed) -> tuple[asyncio.Event, asyncio.Event]:
    """Have only the next events arrive in a replica, and nothing after them.

    Gives what says that they have, and what says that all looks at the log are of this kind.
    """
    held, looked = asyncio.Event(), asyncio.Event()

    async def read(db: Any, *args: Any, **options: Any) -> Any:
        if db is not feed.db:
            return await read_page(db, *args, **options)
        if held.is_set():
            await asyncio.Event().wait()
        page = await read_page(db, *args, **options)
        looked.set()
        if page.envelopes:
            held.set()
        return page

    monkeypatch.setattr(follower, "read_page", read)
    return held, looked


@pytest.mark.parametrize("error", [ConnectionError, RuntimeError])
async def test_f34_who_cannot_be_asked_about_is_told_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """The database goes away between the event and the question, or an answer is a riddle: nobody knows, so it ends."""

    async def fail(*_: object) -> None:
        raise error

    principal_id = await stage.principal()
    credential = await stage.credential(principal_id)
    [reader, _] = stage.readers
    async with streamed(reader.url, credential["token"]) as stream:
        await is_told(stage, stream, reader)
        with monkeypatch.context() as patched:
            patched.setattr(Guard, "_ask", fail)
            began = monotonic()
            changed = await revoke(stage, principal_id, credential)
            assert await ends(stream, changed, began) < BOUND_S + 0.5
            await reader.app.state.feed.guard.go_round()
    other = await stage.credential(principal_id)
    async with streamed(reader.url, other["token"]) as stream:
        await is_told(stage, stream, reader)


async def test_f34_what_no_event_tells_of_is_found_by_going_round(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A credential that somebody deleted from the vault."""
    principal_id = await stage.principal()
    credential = await stage.credential(principal_id)
    [reader, _] = stage.readers
    async with streamed(reader.url, credential["token"]) as stream:
        await is_told(stage, stream, reader)

        async def gone(*_: object) -> None:
            return None

        monkeypatch.setattr(Guard, "_ask", gone)
        await reader.app.state.feed.guard.go_round()
        assert [each.kind for each in await stream.rest()] == []


async def test_f34_the_credential_is_not_kept_while_a_stream_lasts(stage: Stage) -> None:
    """The hash is; of the token itself there is nothing in the objects of the request."""
    principal_id = await stage.principal()
    credential = await stage.credential(principal_id)
    [reader, _] = stage.readers
    async with streamed(reader.url, credential["token"]) as stream:
        await is_told(stage, stream, reader)
        connections: set[Any] = set(reader.server.server_state.connections)
        scopes = [each.scope for each in connections if each.scope is not None]
        assert scopes
        for scope in scopes:
            assert credential["token"] not in str(scope["headers"])
            assert b"authorization" not in dict(scope["headers"])


async def test_f41_a_stream_is_of_the_organisation_of_who_opened_it(stage: Stage) -> None:
    """Whatever it asks for, and from whenever: other organisations' events are not told, and neither are nodes'."""
    principal_id = await stage.principal()
    credential = await stage.credential(principal_id)
    foreign = await stage.world.create_app()
    await enroll(stage.world, "node-1")
    [reader, _] = stage.readers
    [other_org] = {each.org_id for each in await stage.world.events() if each.aggregate_id == foreign}
    await eventually(lambda: reader.app.state.feed.hub.end >= 1)
    head = await stage.world.head()
    await eventually(lambda: reader.app.state.feed.hub.end == head)
    async with (
        streamed(reader.url, credential["token"]) as everything,
        streamed(reader.url, credential["token"], org_id=other_org) as foreigners,
        streamed(reader.url, credential["token"], app_id=foreign) as foreign_app,
    ):
        told = await everything.events_to(head)
        assert {each.data.get("org_id") for each in told} == {stage.org_id}
        for stream in (foreigners, foreign_app):
            first: Frame = await stream.next("event", "bookmark")
            assert (first.kind, first.position) == ("bookmark", head)
        renamed = await stage.world.replica.command("app.rename", app_id=foreign, name=stage.world.new_name())
        assert renamed.status == 200
        await stage.rename()
        [own] = await everything.events_to(await stage.world.head())
        assert own.data["aggregate_id"] == stage.app_id
        for stream in (foreigners, foreign_app):
            with pytest.raises(TimeoutError):
                await stream.frame(timeout_s=0.2)
