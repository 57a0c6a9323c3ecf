"""The change feed under random faults, by seed: what every consumer was told is held against the log.

Streams, pages and our own client listen through proxies to replicas that restart, while a log is written that begins
epochs and is put back, and credentials are revoked. Then it is calm, and all must come to the end of the log. Each
guarantee has a planted bug, in the server or in the client, that is seen as a breach of that guarantee.

KEELSON_TEST_TIMES says how many times as many seeds as usual; KEELSON_TEST_SEEDS names some (a run that failed says its
own).
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from keelson.client.reads.events import EventItem
from keelson.client.sse import Frame
from keelson.client.stream import Change, Cursor, FeedItem, FeedReader
from keelson.events.ids import Position
from keelson.log.read import Filter, FilteredPage, read_filtered
from keelson.query.feed import chunks, endpoint, events, follower, frames
from keelson.query.feed.chunks import Chunk
from keelson.query.feed.events import EventSource
from keelson.query.feed.guard import Guard
from keelson.query.feed.hub import Hub
from keelson.query.feed.ring import Entry
from keelson.query.places import Place
from support.database import Cluster
from support.feed_run import Plan, run_feed
from support.feed_world import ORGS

TIMES = int(os.environ.get("KEELSON_TEST_TIMES", "1"))
SEEDS = [int(seed) for seed in os.environ.get("KEELSON_TEST_SEEDS", "").split(",") if seed] or range(2 * TIMES)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients come back at once, and everything be told in many pieces."""
    monkeypatch.setattr(frames, "RETRY_MS", (10, 50))
    monkeypatch.setattr(chunks, "MAX_CHUNK_BYTES", 4000)
    monkeypatch.setattr(chunks, "MAX_SCANNED", 20)
    monkeypatch.setattr(events, "PAGE_EVENTS", 5)
    monkeypatch.setattr(follower, "PAGE_EVENTS", 7)
    monkeypatch.setattr(follower, "LOOK_BACK_EVENTS", 30)


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_consumer_is_told_what_the_log_says(cluster: Cluster, seed: int) -> None:
    faults = await run_feed(cluster, seed, Plan())
    assert not faults, f"seed {seed}: {len(faults)} faults, the first {faults[:5]}"


Plant = Callable[[pytest.MonkeyPatch], None]


def _tell_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell what comes at once in the order of its aggregates, as a careless GROUP BY would."""
    tell = chunks.tell

    def sorted_by_aggregate(matching: list[Entry], examined: Position, epoch: str) -> Chunk:
        return tell(sorted(matching, key=lambda each: each.envelope.aggregate_id), examined, epoch)

    monkeypatch.setattr(chunks, "tell", sorted_by_aggregate)
    monkeypatch.setattr(events, "tell", sorted_by_aggregate)


def _overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read each page of what was missed from its predecessor's last event on: >= instead of >."""

    async def read_from(db: Any, after: Position, limit: int, sought: Filter) -> FilteredPage:
        return await read_filtered(db, Position(max(after - 1, 0)), limit, sought)

    monkeypatch.setattr(events, "read_filtered", read_from)


def _skip_to_the_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on with what is in memory, whoever was too slow for it."""
    monkeypatch.setattr(EventSource, "_next_chunk", _next_of_ring)


async def _next_of_ring(self: EventSource) -> Chunk:
    ring = self._hub.ring
    after = max(self._examined, ring.start)
    return chunks.read_ring(ring, self._subscription.interest, after, self._epoch)


def _give_every_event_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stream be resumed after any event."""

    def tell(matching: list[Entry], examined: Position, epoch: str) -> Chunk:
        parts = [frames.write_id(epoch, entry.envelope.position) + entry.frame for entry in matching]
        return Chunk(b"".join(parts), examined, matching[-1].envelope.position if matching else Position(0))

    monkeypatch.setattr(chunks, "tell", tell)
    monkeypatch.setattr(events, "tell", tell)


def _resume_one_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a cursor for the next event to be told."""
    init = EventSource.__init__

    def init_after(self: EventSource, feed: Any, sought: Filter, after: Place) -> None:
        init(self, feed, sought, after)
        if after.epoch is not None:
            self._examined = Position(after.position + 1)

    monkeypatch.setattr(EventSource, "__init__", init_after)


def _say_no_bookmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say nothing where nothing matches."""
    monkeypatch.setattr(EventSource, "bookmark", lambda _self: b"")


def _bookmark_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say at once how far the log is, whatever of it is still to be told."""
    read = EventSource.read

    async def read_after_bookmark(self: EventSource) -> bytes:
        is_behind = self._told is not None and self._hub.end > self._examined + 1
        early = frames.write_bookmark(self._epoch, self._hub.end) if is_behind else b""
        return early + await read(self)

    monkeypatch.setattr(EventSource, "read", read_after_bookmark)


def _never_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Believe in a credential for as long as its stream lasts."""
    monkeypatch.setattr(Guard, "look_closely", lambda _self, _envelope: None)


def _confine_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell everybody everything."""
    monkeypatch.setattr(endpoint, "confined", lambda sought, _reach: sought)


def _miss_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go over to another epoch without telling those who listen."""
    restart = Hub.restart

    def restart_alone(self: Hub, epoch: str, at: Position, reason: str) -> None:
        subscriptions, self._subscriptions = self._subscriptions, set()
        restart(self, epoch, at, reason)
        self._subscriptions = subscriptions

    monkeypatch.setattr(Hub, "restart", restart_alone)


def _give_half_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client give each event as it comes, and go on from the last cursor all the same."""

    def read_event(self: FeedReader, frame: Frame) -> Sequence[FeedItem]:
        given = Change(frame.id, msgspec.json.decode(frame.data, type=EventItem))
        if frame.id is not None:
            self._advance(Cursor.read(frame.id))
        return (given,)

    monkeypatch.setattr(FeedReader, "_read_event", read_event)


# With these alone a bug is seen sooner, and more surely, than with all that may befall.
_FEW: tuple[dict[str, str], ...] = ({}, {"org_id": ORGS[0]}, {"request_id": "request-3"}, {"type": "env.scaled"})
_CUTS = Plan(steps=6, faults={"cut": 2, "stall": 1, "restart": 1}, wanted=_FEW, principals=0, patience_s=2.0)
_EPOCHS = Plan(steps=4, faults={"begin_epoch": 1, "put_back": 1}, wanted=_FEW, principals=0, doomed=0.0, patience_s=2.0)
_REVOCATIONS = Plan(steps=4, faults={"revoke": 1}, wanted=(), principals=4, doomed=0.0, patience_s=2.0)

BUGS: dict[str, tuple[str, Plant, Plan]] = {
    "told in another order": ("ordered", _tell_backwards, _CUTS),
    "pages that overlap": ("unique", _overlap, _CUTS),
    "half commands given by the client": ("unique", _give_half_commands, _CUTS),
    "what was missed is skipped": ("reliable", _skip_to_the_ring, _CUTS),
    "an id on every event": ("atomic", _give_every_event_an_id, _CUTS),
    "resumed one too far": ("resumable", _resume_one_too_far, _CUTS),
    "no bookmarks": ("bookmarkable", _say_no_bookmarks, _CUTS),
    "a bookmark of the head": ("bookmarkable", _bookmark_the_head, _CUTS),
    "a credential believed for ever": ("revoked", _never_doubt, _REVOCATIONS),
    "everything told to everybody": ("confined", _confine_nothing, _REVOCATIONS),
    "another epoch unnoticed": ("epochs", _miss_the_epoch, _EPOCHS),
}


@pytest.mark.parametrize("bug", BUGS)
async def test_planted_bugs_are_seen(cluster: Cluster, bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one of some seeds, mostly the first, and as a breach of the guarantee that they break."""
    guarantee, plant, plan = BUGS[bug]
    plant(monkeypatch)
    seen: set[str] = set()
    for seed in range(12):
        seen |= {fault.guarantee for fault in await run_feed(cluster, seed, plan)}
        if guarantee in seen:
            return
    pytest.fail(f"{bug} was not seen, but {sorted(seen)}")
