"""What every endpoint is: an operation as OpenAPI shows it, and the function that answers it."""

from collections.abc import Collection, Iterable
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from keelson.query.confinement import confine, right_at
from keelson.query.parameters import NOT_BUILT
from keelson.service.headers import require_known
from keelson.service.openapi import Operation
from keelson.service.parameters import read_parameters
from keelson.service.problems import Problem
from keelson.service.routing import Handle, Route

T = TypeVar("T", bound=msgspec.Struct)


class Endpoint(msgspec.Struct, frozen=True):
    """An operation and its handler."""

    operation: Operation
    handle: Handle


def routes_of(endpoints: Iterable[Endpoint]) -> list[Route]:
    """Give the routes of endpoints, each confined. Raises KeyError for one that has no right in the table."""
    return [Route(endpoint.operation.path, _confined(endpoint), methods=["GET"]) for endpoint in endpoints]


def _confined(endpoint: Endpoint) -> Handle:
    """Give the handler of an endpoint behind its right; `request.state.reach` says how far it may read."""
    path, handle = endpoint.operation.path, endpoint.handle
    right = right_at(path)

    async def handle_confined(request: Request) -> Response:
        request.state.reach = confine(request, path, right)
        return await handle(request)

    return handle_confined


def not_built_routes(paths: Iterable[str]) -> list[Route]:
    """Give routes for what the API knows and this version has not built: 400, and not as if it would never exist."""
    return [Route(path, _refuse_not_built, methods=["GET"]) for path in paths]


async def _refuse_not_built(_request: Request) -> Response:
    raise Problem("not_supported", "This path is not built yet")


def read_query(request: Request, type_: type[T], *, not_built: Collection[str] = NOT_BUILT) -> T:
    """Read what is asked, by parameters alone: a Keelson-… header that means nothing here is refused, not ignored."""
    require_known(request.scope["headers"])
    return read_parameters(request, type_, not_built=not_built)


def reflecting(position: int) -> dict[str, str]:
    """Give the header that says which position an answer reflects."""
    return {"Keelson-Position": str(position)}
