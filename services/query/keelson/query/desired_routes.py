"""The endpoints of desired state: what a node should be running, and where edges should lead hostnames."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from keelson.events.ids import read_aggregate_type
from keelson.query.desired.endpoint import await_version, stream_versions
from keelson.query.desired.snapshots import Desired, Reading
from keelson.query.desired.watching import Subject
from keelson.query.endpoints import Endpoint, read_query, reflecting
from keelson.query.feed.endpoint import wants_stream
from keelson.query.freshness import Floor
from keelson.query.parameters import DesiredHeaders, DesiredParameters
from keelson.query.places import Place, read_place
from keelson.service.json import JsonResponse
from keelson.service.openapi import Operation
from keelson.service.problems import Problem
from keelson.service.routing import Handle
from keelson.views.placement import DesiredInstance, DesiredRoute

_PROBLEMS = ("invalid", "not_supported", "bad_cursor", "cursor_expired", "not_yet", "unavailable")
# The one row that is told to all edges.
_ALL_EDGES = "all"
# What events must be of to change what a node should do, or where hostnames lead.
_OF_NODES = frozenset({"instance", "node"})
_OF_EDGES = frozenset({"instance", "route"})

_DESCRIPTION = (
    "With `wait`, the answer is held back until the version is greater than `after`, or the seconds are over. With "
    "`Accept: text/event-stream` it is the stream of what should be, first and whenever that changes."
)
_STREAM = (
    "Server-sent events. `event`: all that should be, as the answer without a stream; its `id` is `<epoch>-<version>`, "
    "to be given as `Last-Event-ID` or `after`. `bookmark`: the `version` and `digest` that still are what should be, "
    "as of `position`. `resync`: versions mean nothing any more, in the log's new epoch; begin anew."
)


def desired_endpoints() -> list[Endpoint]:
    """Give all endpoints of desired state."""
    return [show_node_desired(), show_edge_desired()]


def show_node_desired() -> Endpoint:
    """Give the endpoint of what a node should be doing."""

    def subject(request: Request) -> Subject:
        node_id: str = request.path_params["id"]
        key = node_id if read_aggregate_type(node_id) is not None else ""  # it learns the checkpoint all the same
        return Subject(request.app.state.node_desired, key, request.state.reach, _OF_NODES, key)

    operation = Operation(
        method="GET",
        path="/v1/nodes/{id}/desired",
        summary="What a node should be running: its instances that have not stopped",
        description=_DESCRIPTION,
        parameters=DesiredParameters,
        headers=DesiredHeaders,
        response=Desired[DesiredInstance],
        streams=_STREAM,
        gives=("Keelson-Position",),
        may_give=("Preference-Applied",),
        problems=(*_PROBLEMS, "not_found"),
        tags=("nodes",),
    )
    return Endpoint(operation, _answering(subject))


def show_edge_desired() -> Endpoint:
    """Give the endpoint of where all hostnames lead."""

    def subject(request: Request) -> Subject:
        return Subject(request.app.state.edge_desired, _ALL_EDGES, request.state.reach, _OF_EDGES)

    operation = Operation(
        method="GET",
        path="/v1/edge/desired",
        summary="Where every hostname leads: its ready backends",
        description=_DESCRIPTION,
        parameters=DesiredParameters,
        headers=DesiredHeaders,
        response=Desired[DesiredRoute],
        streams=_STREAM,
        gives=("Keelson-Position",),
        may_give=("Preference-Applied",),
        problems=_PROBLEMS,
        tags=("routes",),
    )
    return Endpoint(operation, _answering(subject))


def _answering(subject_of: Callable[[Request], Subject]) -> Handle:
    """Give what answers what should be: at once, once it is another version, or as a stream."""

    async def handle(request: Request) -> Response:
        subject, freshness = subject_of(request), request.app.state.freshness
        parameters = read_query(request, DesiredParameters)
        after = _read_after(parameters.after)
        if wants_stream(request):
            return stream_versions(request, subject, after)
        floor = await freshness.await_view(request, parameters, subject.snapshots.projection)
        reading = await _read(request, subject, after, parameters.wait, floor)
        freshness.check(floor, subject.snapshots.projection, reading.position, reading.epoch)
        headers = reflecting(reading.position) | floor.headers
        if reading.snapshot is None:
            raise Problem("not_found", "There is none with this id", headers=headers)
        return JsonResponse(reading.snapshot.body, headers=headers)

    return handle


async def _read(request: Request, subject: Subject, after: Place | None, wait_s: int | None, floor: Floor) -> Reading:
    if after is None and wait_s is None:
        return await subject.snapshots.read(subject.key, subject.reach)
    return await await_version(request, subject, after, wait_s or 0, floor.position)


def _read_after(text: str | None) -> Place | None:
    place = None if text is None else read_place(text)
    if text is not None and place is None:
        raise Problem("bad_cursor", "`after` must be a version, or a cursor <epoch>-<version>")
    return place
