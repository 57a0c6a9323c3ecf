"""The endpoint that says how an environment is."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from keelson.events.ids import read_aggregate_type
from keelson.query.endpoints import Endpoint, read_query, reflecting
from keelson.query.parameters import ReadParameters, ViewHeaders
from keelson.query.reads import PageReading, View
from keelson.service.json import JsonResponse
from keelson.service.openapi import Operation
from keelson.service.problems import Problem
from keelson.views import derived_named, table_named
from keelson.views.placement import EnvHealth

# More processes than any environment has: such an answer has no pages.
_ALL = 1_000_000
# The worst first: an environment is as its worst process is.
_WORST_FIRST: tuple[EnvHealth, ...] = ("failed", "degraded", "progressing", "healthy")


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


def show_env_status() -> Endpoint:
    """Give the endpoint of an environment's status; there is none of what never was or was deleted."""
    view, envs = View(*derived_named("env_status")), View(*table_named("envs"))

    async def handle(request: Request) -> Response:
        page, headers = await _read(request, view)
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
        problems=("invalid", "not_supported", "cursor_expired", "not_yet", "not_found"),
        tags=("envs",),
    )
    return Endpoint(operation, handle)


async def _read(request: Request, view: View) -> tuple[PageReading, dict[str, str]]:
    """Give all processes of the environment, and the headers of an answer that reflects them."""
    state = request.app.state
    parameters = read_query(request, ReadParameters)
    floor = await state.freshness.await_view(request, parameters, view.projection)
    page = await view.read_page(state.pool, {"env_id": _key(request)}, reach=request.state.reach, after="", limit=_ALL)
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


def _key(request: Request) -> str:
    """Give the id in the path; what is none finds nothing, and learns the checkpoint all the same."""
    key: str = request.path_params["id"]
    return key if read_aggregate_type(key) is not None else ""
