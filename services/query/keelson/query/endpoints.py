"""What every endpoint is: an operation as OpenAPI shows it, and the function that answers it."""

from collections.abc import Awaitable, Callable, Iterable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from keelson.service.openapi import Operation
from keelson.service.problems import Problem

Handler = Callable[[Request], Awaitable[Response]]


class Endpoint(msgspec.Struct, frozen=True):
    """An operation and its handler."""

    operation: Operation
    handle: Handler


def routes_of(endpoints: Iterable[Endpoint]) -> list[Route]:
    """Give the routes of endpoints."""
    return [Route(endpoint.operation.path, endpoint.handle, methods=["GET"]) for endpoint in endpoints]


def not_built_routes(paths: Iterable[str]) -> list[Route]:
    """Give routes for what the API knows and this version has not built: 400, and not as if it would never exist."""
    return [Route(path, _refuse_not_built, methods=["GET"]) for path in paths]


async def _refuse_not_built(_request: Request) -> Response:
    raise Problem("not_supported", "This path is not built yet")


def reflecting(position: int) -> dict[str, str]:
    """Give the header that says which position an answer reflects."""
    return {"Keelson-Position": str(position)}
