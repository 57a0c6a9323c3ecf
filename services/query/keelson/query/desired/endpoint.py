"""Desired state that is waited for: as a stream, or as an answer that is held back until there is another version."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from keelson.query.desired.snapshots import Reading
from keelson.query.desired.source import DesiredSource
from keelson.query.desired.watching import Subject, Watching
from keelson.query.feed.endpoint import read_last_event_id
from keelson.query.feed.feed import Feed
from keelson.query.feed.stream import StreamResponse
from keelson.query.places import Place
from keelson.service.problems import Problem
from keelson.service.streaming import hold

# What only answers without a stream have.
_OF_ANSWERS = ("wait", "min_position")


def stream_versions(request: Request, subject: Subject, after: Place | None) -> Response:
    """Answer with the stream of what should be; what the client knows already is not told again. Raises Problem."""
    for name in _OF_ANSWERS:
        if name in request.query_params:
            raise Problem("not_supported", f"A stream takes no {name}")
    feed: Feed = request.app.state.feed
    watching = Watching(feed, request.app.state.checkpoints, subject)
    source = DesiredSource(watching, subject, read_last_event_id(request) or after)
    return StreamResponse(feed, request.state.caller, source)


async def await_version(
    request: Request, subject: Subject, after: Place | None, wait_s: float, at_least: int = 0
) -> Reading:
    """Give what should be, once its version is greater than `after`, or the wait is over.

    It reflects the position `at_least`, if the view is there by then. Nothing is asked of the database meanwhile but
    when an event may have changed it. Raises Problem, and UnauthenticatedError for a credential that was revoked
    meanwhile.
    """
    hold(request.scope)
    feed: Feed = request.app.state.feed
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_s
    watching = Watching(feed, request.app.state.checkpoints, subject)
    with (
        feed.admitted(request.state.caller),
        feed.hub.subscribe(subject.sought) as subscription,
        feed.guard.watching(request.state.caller, subscription.interrupt) as watch,
    ):
        await feed.guard.confirm(watch)
        await watching.begin(subscription, after, at_least)
        while not _is_beyond(watching.reading, after) and not subscription.is_interrupted and loop.time() < until:
            if not await watching.look():
                await watching.wait(until - loop.time())
            await watch.settled()
            watch.require()
    return watching.reading


def _is_beyond(reading: Reading, after: Place | None) -> bool:
    """Whether there is another version, or nothing any more."""
    return reading.snapshot is None or reading.snapshot.version > (0 if after is None else after.position)
