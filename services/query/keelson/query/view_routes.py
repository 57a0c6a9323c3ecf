"""The endpoints that read views: collections, single rows, an environment's processes, the activity."""

from typing import Any, Generic, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from keelson.events.ids import read_aggregate_type
from keelson.query.completions import complete, etag_of, row_type
from keelson.query.endpoints import Endpoint, read_query, reflecting
from keelson.query.etags import is_known
from keelson.query.parameters import (
    ACTIVITY_FILTERS,
    COLLECTION_FILTERS,
    NOT_BUILT_OF_ACTIVITY,
    CollectionParameters,
    PageParameters,
    ReadParameters,
    RowHeaders,
    ViewHeaders,
    filtered_by,
    read_filters,
    read_key_cursor,
    read_position_cursor,
    write_key_cursor,
)
from keelson.query.reads import View
from keelson.service.json import JsonResponse
from keelson.service.openapi import Operation
from keelson.service.problems import Problem
from keelson.views import PROJECTIONS, table_named

T = TypeVar("T")

# More processes than any release may have.
_ALL = 10_000

PROBLEMS = ("invalid", "not_supported", "cursor_expired", "not_yet")


class ViewPage(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Rows in order; `next` is the next page's `cursor`, null at the end; `position` is what the page reflects."""

    items: list[T]
    next: str | None
    position: int


class ViewRows(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """All rows there are, and the position that they reflect."""

    items: list[T]
    position: int


def collections() -> list[View]:
    """Give every view that its projection declares a collection."""
    tables = [(each, table) for each in PROJECTIONS.values() for table in each.tables if table.collection]
    return [View(projection, table) for projection, table in tables]


def view_endpoints() -> list[Endpoint]:
    """Give all endpoints that read views. A new collection needs nothing here: its table declares it."""
    endpoints = [endpoint for view in collections() for endpoint in (show_row(view), list_rows(view))]
    return [*endpoints, list_processes(), list_activity()]


def show_row(view: View) -> Endpoint:
    """Give the endpoint of one row, also a deleted one, with a strong ETag."""

    async def handle(request: Request) -> Response:
        state = request.app.state
        parameters = read_query(request, ReadParameters)
        floor = await state.freshness.await_view(request, parameters, view.projection)
        reading = await state.rows.read(view, key_of(request), reach=request.state.reach)
        state.freshness.check(floor, view.projection, reading.checkpoint, reading.epoch)
        headers = reflecting(reading.checkpoint) | floor.headers
        found = reading.rows.get(key_of(request))
        if found is None:
            raise no_such_row(headers)
        [row] = await complete(view, state.pool, [found], request.state.caller.grants)
        headers["ETag"] = etag_of(view, row, await state.lineages.epoch_at(row["position"], reading.epoch))
        if is_known(headers["ETag"], request.headers.get("if-none-match")):
            return Response(status_code=304, headers=headers)
        return JsonResponse(row, headers=headers)

    operation = Operation(
        method="GET",
        path=f"/v1/{view.name}/{{id}}",
        summary=f"One of the {view.name}, also a deleted one; If-None-Match gives 304",
        parameters=ReadParameters,
        headers=RowHeaders,
        response=row_type(view),
        gives=("Keelson-Position", "ETag"),
        may_give=("Preference-Applied",),
        conditional=True,
        problems=(*PROBLEMS, "not_found"),
        tags=(view.name,),
    )
    return Endpoint(operation, handle)


def list_rows(view: View) -> Endpoint:
    """Give the endpoint of a collection, ordered by id, so that its pages are stable under writes."""
    parameters_type = filtered_by(CollectionParameters, view.table, COLLECTION_FILTERS)

    async def handle(request: Request) -> Response:
        state = request.app.state
        parameters = read_query(request, parameters_type)
        after = after_key(parameters.cursor)
        floor = await state.freshness.await_view(request, parameters, view.projection)
        page = await view.read_page(
            state.pool,
            read_filters(parameters, COLLECTION_FILTERS),
            reach=request.state.reach,
            after=after,
            limit=parameters.limit,
            deleted=parameters.deleted,
        )
        state.freshness.check(floor, view.projection, page.checkpoint, page.epoch)
        following = write_key_cursor(page.rows[-1]["id"]) if page.more else None
        rows = list(await complete(view, state.pool, page.rows, request.state.caller.grants))
        answer: ViewPage[Any] = ViewPage(items=rows, next=following, position=page.checkpoint)
        return JsonResponse(answer, headers=reflecting(page.checkpoint) | floor.headers)

    operation = Operation(
        method="GET",
        path=f"/v1/{view.name}",
        summary=f"The {view.name}, ordered by id",
        parameters=parameters_type,
        headers=ViewHeaders,
        response=ViewPage[row_type(view)],  # type: ignore[misc]  # a type made at run time
        gives=("Keelson-Position",),
        may_give=("Preference-Applied",),
        problems=(*PROBLEMS, "bad_cursor"),
        tags=(view.name,),
    )
    return Endpoint(operation, handle)


def list_processes() -> Endpoint:
    """Give the endpoint of the processes that an environment wants; none before its first deploy and after its end."""
    processes, envs = View(*table_named("env_processes")), View(*table_named("envs"))

    async def handle(request: Request) -> Response:
        state = request.app.state
        parameters = read_query(request, ReadParameters)
        floor = await state.freshness.await_view(request, parameters, processes.projection)
        key, reach = key_of(request), request.state.reach
        page = await processes.read_page(state.pool, {"env_id": key}, reach=reach, after="", limit=_ALL)
        state.freshness.check(floor, processes.projection, page.checkpoint, page.epoch)
        headers = reflecting(page.checkpoint) | floor.headers
        # An environment never stops having existed, so a second snapshot can only confirm it.
        if not page.rows and key not in (await state.rows.read(envs, key, reach=reach)).rows:
            raise no_such_row(headers)
        answer: ViewRows[Any] = ViewRows(items=page.rows, position=page.checkpoint)
        return JsonResponse(answer, headers=headers)

    operation = Operation(
        method="GET",
        path="/v1/envs/{id}/processes",
        summary="The processes that an environment wants",
        parameters=ReadParameters,
        headers=ViewHeaders,
        response=ViewRows[processes.table.row],  # type: ignore[name-defined]  # a type made at run time
        gives=("Keelson-Position",),
        may_give=("Preference-Applied",),
        problems=(*PROBLEMS, "not_found"),
        tags=("envs",),
    )
    return Endpoint(operation, handle)


def list_activity() -> Endpoint:
    """Give the endpoint of the activity, newest first."""
    view = View(*table_named("activity"))
    parameters_type = filtered_by(PageParameters, view.table, ACTIVITY_FILTERS)

    async def handle(request: Request) -> Response:
        state = request.app.state
        parameters = read_query(request, parameters_type, not_built=NOT_BUILT_OF_ACTIVITY)
        below = _below_position(parameters.cursor)
        floor = await state.freshness.await_view(request, parameters, view.projection)
        filters = read_filters(parameters, ACTIVITY_FILTERS)
        page = await view.read_page(
            state.pool, filters, reach=request.state.reach, after=below, limit=parameters.limit, newest_first=True
        )
        state.freshness.check(floor, view.projection, page.checkpoint, page.epoch)
        following = write_key_cursor(str(page.rows[-1]["position"])) if page.more else None
        answer: ViewPage[Any] = ViewPage(items=page.rows, next=following, position=page.checkpoint)
        return JsonResponse(answer, headers=reflecting(page.checkpoint) | floor.headers)

    operation = Operation(
        method="GET",
        path="/v1/activity",
        summary="Who did what, to what and why: a line per event, newest first",
        parameters=parameters_type,
        headers=ViewHeaders,
        response=ViewPage[view.table.row],  # type: ignore[name-defined]  # a type made at run time
        gives=("Keelson-Position",),
        may_give=("Preference-Applied",),
        problems=(*PROBLEMS, "bad_cursor"),
        tags=("audit",),
    )
    return Endpoint(operation, handle)


def key_of(request: Request) -> str:
    """Give the id in the path; what is none finds nothing, and learns the checkpoint all the same."""
    key: str = request.path_params["id"]
    return key if read_aggregate_type(key) is not None else ""


def no_such_row(headers: dict[str, str]) -> Problem:
    """Give the problem of an id that nothing within reach has, as of a position."""
    return Problem("not_found", "There is none with this id", headers=headers)


def after_key(cursor: str | None) -> str:
    """Give the id that a page goes on after; raises Problem `bad_cursor`."""
    key = "" if cursor is None else read_key_cursor(cursor)
    if key is None:
        raise Problem("bad_cursor", "The cursor must be the `next` of a page of this collection")
    return key


def _below_position(cursor: str | None) -> int:
    position = 0 if cursor is None else read_position_cursor(cursor)
    if position is None:
        raise Problem("bad_cursor", "The cursor must be the `next` of a page of the activity")
    return position
