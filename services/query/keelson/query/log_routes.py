"""The endpoints that read the log itself: the audit log, an aggregate's history, the projections' progress."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from keelson.events.ids import read_aggregate_type
from keelson.log.read import Filter
from keelson.query.audit import EventItem, EventsQuery, read_events
from keelson.query.endpoints import Endpoint, read_query, reflecting
from keelson.query.feed.endpoint import await_events, stream_events, wants_stream
from keelson.query.feed.events import require_within
from keelson.query.freshness import Floor
from keelson.query.history import HistoryItem, read_history
from keelson.query.parameters import (
    EventsHeaders,
    EventsParameters,
    HistoryParameters,
    NoParameters,
    ReadParameters,
)
from keelson.query.places import Place, read_place, write_cursor
from keelson.service.json import JsonResponse
from keelson.service.openapi import Operation
from keelson.service.problems import Problem
from keelson.service.standing import ProjectionItem, read_standing


class EventsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Events, and the cursors of what was examined (the next `after`) and of the head."""

    items: list[EventItem]
    next: str | None
    position: str


class HistoryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an aggregate; `next` is the next `after`, a seq, null at the end."""

    items: list[HistoryItem]
    next: int | None
    position: int


class ProjectionsPage(msgspec.Struct, frozen=True, kw_only=True):
    """All projections and the head, of one snapshot."""

    items: tuple[ProjectionItem, ...]
    head: int


_EVENTS = (
    "Pages end where a command ends, may be empty, and then have a `next` all the same. With `wait`, an empty page is "
    "held back until something matches, or the seconds are over. With `Accept: text/event-stream` it is the stream of "
    "all that matches after `after` or `Last-Event-ID`, and has no `limit`, `order`, `since`, `until`, `wait` and "
    "`min_position`."
)
_STREAM = (
    "Server-sent events. `event`: an event, as in `items`, in order; its `id` stands on a command's last one that "
    "matches, and is the cursor to resume from, as `Last-Event-ID` or `after`. `bookmark`: all that matches up to its "
    "`id` was told. `resync`: cursors mean nothing any more, in the log's new epoch; begin anew."
)


def log_endpoints() -> list[Endpoint]:
    """Give all endpoints that read the log."""
    return [
        Endpoint(
            Operation(
                method="GET",
                path="/v1/events",
                summary="The audit log; as a stream, or waited for, the change feed",
                description=_EVENTS,
                parameters=EventsParameters,
                headers=EventsHeaders,
                response=EventsAnswer,
                streams=_STREAM,
                gives=("Keelson-Position",),
                problems=("invalid", "not_supported", "bad_cursor", "cursor_expired", "not_yet"),
                tags=("audit",),
            ),
            list_events,
        ),
        Endpoint(
            Operation(
                method="GET",
                path="/v1/history/{aggregate_id}",
                summary="What became of one aggregate, event by event",
                parameters=HistoryParameters,
                response=HistoryAnswer,
                gives=("Keelson-Position",),
                problems=("invalid", "not_supported", "not_found", "cursor_expired", "not_yet"),
                tags=("audit",),
            ),
            show_history,
        ),
        Endpoint(
            Operation(
                method="GET",
                path="/v1/projections",
                summary="How far every projection is",
                parameters=NoParameters,
                response=ProjectionsPage,
                gives=("Keelson-Position",),
                problems=("invalid", "not_supported"),
                tags=("operations",),
            ),
            list_projections,
        ),
    ]


async def list_events(request: Request) -> Response:
    """Answer a page of the audit log, at once or once there is something in it, or the stream of it.

    The places asked for are checked against the head of the same snapshot.
    """
    parameters = read_query(request, EventsParameters)
    after = _read_after(parameters.after)
    query = _events_query(parameters, after)
    if wants_stream(request):
        return stream_events(request, query.sought, after)
    if parameters.wait is not None and parameters.order == "desc":
        raise Problem("not_supported", "`wait` is for what comes, in ascending order")
    page = await read_events(request.app.state.pool, query, reach=request.state.reach)
    request.app.state.epoch.learn(page.epoch)
    _require_reached(parameters, page.head, page.epoch)
    if after is not None:
        require_within(after, page.epoch, page.head)
    if parameters.wait is not None and not page.envelopes:
        page = await await_events(request, query, page, parameters.wait)
    answer = EventsAnswer(
        items=[EventItem.of(envelope) for envelope in page.envelopes],
        next=page.next_cursor,
        position=write_cursor(page.epoch, page.head),
    )
    return JsonResponse(answer, headers=reflecting(page.head))


async def show_history(request: Request) -> Response:
    """Answer an aggregate's events, and what each changed in its row."""
    aggregate_id: str = request.path_params["aggregate_id"]
    parameters = read_query(request, HistoryParameters)
    known_id = aggregate_id if read_aggregate_type(aggregate_id) is not None else ""
    history = await read_history(
        request.app.state.pool,
        known_id,
        reach=request.state.reach,
        after_seq=parameters.after,
        limit=parameters.limit,
    )
    request.app.state.epoch.learn(history.head.epoch)
    _require_reached(parameters, history.head.position, history.head.epoch)
    headers = reflecting(history.head.position)
    if not history.exists:
        raise Problem("not_found", "Nothing ever happened to this id", headers=headers)
    answer = HistoryAnswer(
        items=history.items,
        next=history.items[-1].seq if history.more else None,
        position=history.head.position,
    )
    return JsonResponse(answer, headers=headers)


async def list_projections(request: Request) -> Response:
    """Answer every projection's progress and the head, in one snapshot."""
    read_query(request, NoParameters)
    standing = await read_standing(request.app.state.pool)
    request.app.state.epoch.learn(standing.epoch)
    page = ProjectionsPage(items=standing.items, head=standing.head)
    return JsonResponse(page, headers=reflecting(standing.head))


def _events_query(parameters: EventsParameters, after: Place | None) -> EventsQuery:
    return EventsQuery(
        after=None if after is None else after.position,
        limit=parameters.limit,
        order=parameters.order,
        sought=Filter(**{name: getattr(parameters, name) for name in Filter.__struct_fields__}),
        since=parameters.since,
        until=parameters.until,
    )


def _read_after(text: str | None) -> Place | None:
    place = None if text is None else read_place(text)
    if text is not None and place is None:
        raise Problem("bad_cursor", "`after` must be a position, or a cursor <epoch>-<position>")
    return place


def _require_reached(parameters: ReadParameters, head: int, epoch: str) -> None:
    """Raise Problem `not_yet` if the log does not hold `min_position` yet: it is always current, nothing is awaited."""
    place = read_place(parameters.min_position) if parameters.min_position is not None else None
    if place is not None:
        Floor(place.position, place.epoch).check(head, epoch)
