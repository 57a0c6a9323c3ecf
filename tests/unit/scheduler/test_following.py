"""The world kept up to date by the feed."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from keelson.client import ProblemError
from keelson.client.reads.events import EventItem
from keelson.client.stream import Bookmark, Change, FeedItem, Resync
from keelson.events import Event
from keelson.events.env import EnvConfigSet, EnvCreated
from keelson.scheduler import following
from keelson.scheduler.following import Follower
from support.waiting import eventually

ENV = "env_00000000000000000000000001"


def item(position: int, event: Event | None = None, *, end: bool = True, **said: Any) -> EventItem:
    event = event or EnvCreated(name="e")
    values = {
        "position": position,
        "type": event.event_type,
        "version": event.event_version,
        "stored_version": event.event_version,
        "aggregate_id": ENV,
        "aggregate_type": "env",
        "seq": position,
        "env_id": ENV,
        "actor_type": "system",
        "actor_id": "operator",
        "request_id": "r",
        "command_id": "c",
        "command_end": end,
        "recorded_at": datetime(2026, 1, 1, tzinfo=UTC),
        "payload": msgspec.to_builtins(event),
    }
    return EventItem(**(values | said))


def change(position: int, event: Event | None = None, **said: Any) -> Change:
    made = item(position, event, **said)
    return Change(f"e1-{position}" if made.command_end else None, made)


class Feed:
    """Gives these items, one list at each time that it is opened; then nothing more comes."""

    def __init__(self, *openings: list[FeedItem | Exception]) -> None:
        self._openings = list(openings)
        self.after: list[str | None] = []

    async def __call__(self, after: str | None) -> AsyncGenerator[FeedItem, None]:
        """Open it."""
        self.after.append(after)
        for each in self._openings.pop(0):
            if isinstance(each, Exception):
                raise each
            yield each
        await asyncio.Event().wait()


async def follow(feed: Feed, position: int = 1) -> tuple[Follower, int]:
    """Follow until the world has come to a position, or something is wrong; give how often it moved."""
    moves: list[int] = []
    follower = Follower(feed, lambda: moves.append(follower.world.position))
    task = asyncio.create_task(follower.run())
    try:
        await eventually(lambda: follower.world.position >= position or follower.trouble)
    finally:
        task.cancel()
        await asyncio.wait([task])
    return follower, len(moves)


async def test_a_command_is_taken_in_whole() -> None:
    seen: list[int] = []
    feed = Feed([change(1), change(2, EnvConfigSet(variables={}), end=False), change(3, EnvConfigSet(variables={}))])
    follower = Follower(feed, lambda: seen.append(follower.world.position))

    task = asyncio.create_task(follower.run())
    await follower.reached(3, 5.0)
    task.cancel()

    assert seen == [1, 3]
    assert follower.epoch == "e1"


async def test_a_log_that_is_another_begins_anew() -> None:
    feed = Feed([change(1), change(2, EnvConfigSet(variables={})), Resync("e2"), change(1)])
    follower, moves = await follow(feed, 1)

    assert follower.world.position == 1
    assert ENV in follower.world.envs
    assert moves >= 1


async def test_a_bookmark_says_which_lineage_is_followed() -> None:
    follower, _ = await follow(Feed([Bookmark("e7-0", 0), change(1)]))

    assert follower.epoch == "e1"


@pytest.mark.parametrize("newer", [{"type": "volume.created"}, {"version": 99}])
async def test_what_something_newer_wrote_is_neither_skipped_nor_died_of(newer: dict[str, Any]) -> None:
    follower, _ = await follow(Feed([change(1), change(2, **newer), change(3)]), 3)

    assert follower.world.position == 1
    assert "a newer scheduler is needed" in str(follower.trouble)


async def test_a_refused_credential_is_tried_again_from_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "REFUSED_PAUSE_S", 0.0)
    refused = ProblemError(401, "unauthenticated", "", {}, None)
    feed = Feed([change(1), refused], [change(2, EnvConfigSet(variables={}))])
    follower = Follower(feed, lambda: None)

    task = asyncio.create_task(follower.run())
    await follower.reached(2, 5.0)
    task.cancel()

    assert feed.after == [None, "e1-1"]
    assert follower.trouble is None


async def test_waiting_for_a_position_that_does_not_come_ends() -> None:
    follower = Follower(Feed([]), lambda: None)

    await follower.reached(5, 0.0)

    assert follower.world.position == 0
