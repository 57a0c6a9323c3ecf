"""The endpoints that read derived views: how an environment is, and what a node and the edges should be doing."""

import hashlib
from typing import Any, Generic, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from keelson.events.ids import read_aggregate_type
from keelson.events.instance import DesiredState, InstanceSpec
from keelson.query.endpoints import Endpoint, read_query, reflecting
from keelson.query.parameters import NOT_BUILT_OF_DESIRED, ReadParameters, ViewHeaders
from keelson.query.reads import PageReading, Row, View
from keelson.service.json import JsonResponse
from keelson.service.openapi import Operation
from keelson.service.problems import Problem
from keelson.views import derived_named, table_named
from keelson.views.placement import Backend, EnvHealth

# More than any environment, any node, or all edges have: such answers have no pages.
_ALL = 1_000_000
# The worst first: an environment is as its worst process is.
_WORST_FIRST: tuple[EnvHealth, ...] = ("failed", "degraded", "progressing", "healthy")
_PROBLEMS = ("invalid", "not_supported", "cursor_expired", "not_yet")

_canonical = msgspec.json.Encoder(order="sorted").encode

T = TypeVar("T")


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A process: how many replicas should be ready, how many are, and what that means.

    `healthy`: as many as should be, all of the environment's release. `progressing`: on the way there. `degraded`: some
    are missing because instances failed or their node is offline. `failed`: none is left for that reason.
    """

    process: str
    desired: int
    ready: int
    status: EnvHealth


class EnvStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An environment is as its worst process is; one that should run nothing is healthy."""

    status: EnvHealth
    processes: list[ProcessStatus]
    position: int


class DesiredInstance(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that a node should run, drain or stop; it is named here until its node says that it has stopped."""

    instance_id: str
    org_id: str
    project_id: str
    app_id: str
    env_id: str
    process: str
    release_id: str
    release_number: int
    secret_version: int | None
    spec: InstanceSpec
    spec_hash: str
    desired_state: DesiredState


class DesiredRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A hostname, and the ready instances behind it; there may be none."""

    hostname: str
    route_id: str
    org_id: str
    project_id: str
    app_id: str
    env_id: str
    process: str
    port: str
    backends: list[Backend]


class Desired(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What should be: all of it, as of `position`.

    `version` is the position of the last event that may have changed any of the items (of `position` itself where there
    is none); it never goes back. `digest` is the SHA-256, in hex, of the items' canonical JSON: keys sorted, no spaces.
    """

    version: int
    digest: str
    items: list[T]
    position: int


def desired_endpoints() -> list[Endpoint]:
    """Give all endpoints that read derived views."""
    return [show_env_status(), show_node_desired(), show_edge_desired()]


def show_env_status() -> Endpoint:
    """Give the endpoint of an environment's status; there is none of what never was or was deleted."""
    view, envs = View(*derived_named("env_status")), View(*table_named("envs"))

    async def handle(request: Request) -> Response:
        page, headers = await _read(request, view, {"env_id": _key(request)})
        if not page.rows:
            await _require(request, envs, headers)
        processes = [{name: row[name] for name in ProcessStatus.__struct_fields__} for row in page.rows]
        found = {row["status"] for row in page.rows}
        status = next((each for each in _WORST_FIRST if each in found), "healthy")
        return JsonResponse({"status": status, "processes": processes, "position": page.checkpoint}, headers=headers)

    operation = Operation(
        method="GET",
        path="/v1/envs/{id}/status",
        summary="How an environment is: its processes, with how many replicas should be ready and how many are",
        parameters=ReadParameters,
        headers=ViewHeaders,
        response=EnvStatus,
        gives=("Keelson-Position",),
        may_give=("Preference-Applied",),
        problems=(*_PROBLEMS, "not_found"),
        tags=("envs",),
    )
    return Endpoint(operation, handle)


def show_node_desired() -> Endpoint:
    """Give the endpoint of what a node should be doing."""
    view, nodes = View(*derived_named("node_desired")), View(*table_named("nodes"))

    async def handle(request: Request) -> Response:
        _refuse_stream(request)
        page, headers = await _read(request, view, {"node_id": _key(request)})
        if not page.rows:
            await _require(request, nodes, headers)
        return _answer(page, DesiredInstance.__struct_fields__, headers)

    operation = Operation(
        method="GET",
        path="/v1/nodes/{id}/desired",
        summary="What a node should be running: its instances that have not stopped",
        parameters=ReadParameters,
        headers=ViewHeaders,
        response=Desired[DesiredInstance],
        gives=("Keelson-Position",),
        may_give=("Preference-Applied",),
        problems=(*_PROBLEMS, "not_found"),
        tags=("nodes",),
    )
    return Endpoint(operation, handle)


def show_edge_desired() -> Endpoint:
    """Give the endpoint of where all hostnames lead."""
    view = View(*derived_named("edge_routes"))

    async def handle(request: Request) -> Response:
        _refuse_stream(request)
        page, headers = await _read(request, view, {})
        return _answer(page, DesiredRoute.__struct_fields__, headers)

    operation = Operation(
        method="GET",
        path="/v1/edge/desired",
        summary="Where every hostname leads: its ready backends",
        parameters=ReadParameters,
        headers=ViewHeaders,
        response=Desired[DesiredRoute],
        gives=("Keelson-Position",),
        may_give=("Preference-Applied",),
        problems=_PROBLEMS,
        tags=("routes",),
    )
    return Endpoint(operation, handle)


async def _read(request: Request, view: View, filters: dict[str, str]) -> tuple[PageReading, dict[str, str]]:
    """Give all rows, and the headers of an answer that reflects them."""
    state = request.app.state
    parameters = read_query(request, ReadParameters, not_built=NOT_BUILT_OF_DESIRED)
    floor = await state.freshness.await_view(request, parameters, view.projection)
    page = await view.read_page(state.pool, filters, reach=request.state.reach, after="", limit=_ALL)
    state.freshness.check(floor, view.projection, page.checkpoint, page.epoch)
    return page, reflecting(page.checkpoint) | floor.headers


async def _require(request: Request, view: View, headers: dict[str, str]) -> None:
    """Refuse for what is not there, or not any more, under the id in the path.

    In a second snapshot: what has no rows in the first has never had any, or has ended, or has none as yet.
    """
    key = _key(request)
    row = (await request.app.state.rows.read(view, key, reach=request.state.reach)).rows.get(key)
    if row is None or row["deleted_at"] is not None:
        raise Problem("not_found", "There is none with this id", headers=headers)


def _answer(page: PageReading, fields: tuple[str, ...], headers: dict[str, str]) -> Response:
    items: list[Row] = [{name: row[name] for name in fields} for row in page.rows]
    plain: Any = msgspec.json.decode(msgspec.json.encode(items))
    answer = {
        "version": page.rows[0]["version"] if page.rows else page.checkpoint,
        "digest": hashlib.sha256(_canonical(plain)).hexdigest(),
        "items": items,
        "position": page.checkpoint,
    }
    return JsonResponse(answer, headers=headers)


def _key(request: Request) -> str:
    """Give the id in the path; what is none finds nothing, and learns the checkpoint all the same."""
    key: str = request.path_params["id"]
    return key if read_aggregate_type(key) is not None else ""


def _refuse_stream(request: Request) -> None:
    """Refuse the stream, which is not built: a client that waits for one must not get a page."""
    if "text/event-stream" in request.headers.get("accept", "").lower() or "last-event-id" in request.headers:
        raise Problem("not_supported", "The stream of desired state is not built yet")
