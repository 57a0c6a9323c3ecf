"""`GET /v1/events` as a feed: as a stream, or as a page that is waited for."""

import asyncio
from contextlib import suppress

from msgspec.structs import replace
from starlette.requests import Request

from keelson.events.ids import Position
from keelson.log.read import Filter
from keelson.query.audit import EventsPage, EventsQuery, read_events
from keelson.query.confinement import Reach
from keelson.query.feed.events import EventSource, require_within
from keelson.query.feed.feed import Feed
from keelson.query.feed.frames import MEDIA_TYPE
from keelson.query.feed.hub import MustEndError
from keelson.query.feed.stream import StreamResponse
from keelson.query.places import Place, read_place
from keelson.service.headers import read_header
from keelson.service.problems import Problem
from keelson.service.streaming import hold

# What pages have and streams have not.
OF_PAGES = ("limit", "order", "since", "until", "min_position", "wait")

# No event is of this organisation.
_NOBODYS = ""


def wants_stream(request: Request) -> bool:
    """Whether a stream is asked for. Raises Problem `not_supported` for what only a stream can heed."""
    if MEDIA_TYPE in request.headers.get("accept", "").lower():
        return True
    if "last-event-id" in request.headers:
        raise Problem("not_supported", f"Last-Event-ID is for a stream: it needs Accept: {MEDIA_TYPE}")
    return False


def confined(sought: Filter, reach: Reach) -> Filter:
    """Give a filter that matches what both the filter and the reach let through."""
    if reach.org_id is None:
        return sought
    return replace(sought, org_id=reach.org_id if sought.org_id in (None, reach.org_id) else _NOBODYS)


def stream_events(request: Request, sought: Filter, after: Place | None) -> StreamResponse:
    """Answer with the stream of what matches after a place. Raises Problem."""
    for name in OF_PAGES:
        if name in request.query_params:
            raise Problem("not_supported", f"A stream takes no {name}")
    begin = read_last_event_id(request) or after or Place(Position(0))
    feed: Feed = request.app.state.feed
    source = EventSource(feed, confined(sought, request.state.reach), begin)
    return StreamResponse(feed, request.state.caller, source)


def read_last_event_id(request: Request) -> Place | None:
    """Give the place after which a stream is resumed; raises Problem `bad_cursor` for what no stream has given."""
    given = read_header(request.scope["headers"], b"last-event-id")
    if given is None:
        return None
    place = read_place(given.decode("latin-1"))
    if place is None or place.epoch is None:
        raise Problem("bad_cursor", "`Last-Event-ID` must be an id of a stream, <epoch>-<position>")
    return place


async def await_events(request: Request, query: EventsQuery, first: EventsPage, wait_s: float) -> EventsPage:
    """Give the first page after the one that was read that is not empty, or the last when the wait is over.

    No connection to the database is held meanwhile, and nothing is asked of it but when something matches. Raises
    Problem, and UnauthenticatedError for a credential that was revoked meanwhile.
    """
    hold(request.scope)
    feed: Feed = request.app.state.feed
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_s
    page = first
    with (
        feed.admitted(request.state.caller),
        feed.hub.subscribe(confined(query.sought, request.state.reach)) as subscription,
        feed.guard.watching(request.state.caller, subscription.interrupt) as watch,
    ):
        await feed.guard.confirm(watch)
        while not page.envelopes and not subscription.is_interrupted and loop.time() < until:
            if page.next == page.head:
                await subscription.wait(page.head, until - loop.time())
            with suppress(MustEndError):
                page = await subscription.unless_interrupted(
                    _read_in_turn(feed, replace(query, after=page.next), request.state.reach)
                )
            require_within(Place(page.next or Position(0), first.epoch), page.epoch, page.head)
            if page.envelopes and page.envelopes[-1].position > feed.hub.end:
                # What ended a right may be before them, and have not arrived here: nobody has doubted anything yet.
                await feed.guard.confirm(watch)
            await watch.settled()
            watch.require()
    return page


async def _read_in_turn(feed: Feed, query: EventsQuery, reach: Reach) -> EventsPage:
    async with feed.catching_up:
        return await read_events(feed.db, query, reach=reach)
