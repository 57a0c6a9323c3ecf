"""Heartbeats: a node says that it is there. No event, for nothing is decided by it; who looks sees when it was last."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from keelson.access import Grants
from keelson.command.requests import require_no_parameters
from keelson.log.queries import load
from keelson.service.headers import require_known
from keelson.service.json import JsonResponse, read_json
from keelson.service.openapi import Operation
from keelson.service.problems import Problem
from keelson.service.routing import Route

PATH = "/v1/nodes/{id}/heartbeat"

_NOTE_HEARTBEAT = load(__file__, "note_heartbeat")

LoadName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,62}$(?!\n)")]


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a node says of itself: how far it has seen the log, and how busy it is, by whatever measures."""

    observed_position: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    load: Annotated[dict[LoadName, int | float], Meta(max_length=32)] | None = None


class Heard(msgspec.Struct, frozen=True):
    """The node was heard."""

    node_id: str


async def post_heartbeat(request: Request) -> Response:
    """Note that a node was heard now; only that node may say so."""
    require_no_parameters(request)
    require_known(request.scope["headers"])
    node_id = _require_node(request)
    heartbeat = await read_json(request, Heartbeat)
    load_text: Any = None if heartbeat.load is None else msgspec.json.encode(heartbeat.load).decode()
    await request.app.state.pool.fetchval(_NOTE_HEARTBEAT, node_id, heartbeat.observed_position, load_text)
    return JsonResponse(Heard(node_id))


def _require_node(request: Request) -> str:
    """Give the node of the path if it is who asks. Nobody but operators hears of other nodes."""
    grants: Grants = request.state.caller.grants
    node_id: str = request.path_params["id"]
    if grants.node_id == node_id:
        return node_id
    if grants.operator:
        raise Problem("forbidden", "A node says itself that it is there")
    raise Problem("not_found", "There is none with this id")


ROUTE = Route(PATH, post_heartbeat, methods=["POST"])

OPERATION = Operation(
    method="POST",
    path=PATH,
    summary="A node says that it is there",
    request=Heartbeat,
    response=Heard,
    problems=("forbidden", "malformed", "invalid", "not_supported", "unsupported_media_type"),
    tags=("node",),
)
