"""The projector as a service: health, metrics, status; and the runner beside them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from keelson.log.tail import LOG_CHANNEL
from keelson.projector.database import NAME, announcing_pool
from keelson.projector.leases import Leases, mint_holder
from keelson.projector.runner import Runner
from keelson.projector.settings import ProjectorSettings
from keelson.projector.status import complaints
from keelson.service.app import Application, create_app
from keelson.service.authentication import BearerTokens
from keelson.service.health import DATABASE_CHECKS, Check
from keelson.service.json import JsonResponse
from keelson.service.lifecycle import NotReadyError, background
from keelson.service.listening import service_listener
from keelson.service.openapi import Operation
from keelson.service.pools import service_pool
from keelson.service.routing import Route
from keelson.service.standing import ProjectionItem, read_standing
from keelson.views import PROJECTIONS


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How the projections stand; `replica` is how this process appears as a `holder`."""

    replica: str
    head: int
    items: tuple[ProjectionItem, ...]
    complaints: tuple[str, ...]


async def check_projections(state: Any) -> None:
    """Check that every projection of this code goes on, on whatever replica."""
    found = tuple(complaints(await read_standing(state.pool), PROJECTIONS))
    if found:
        raise NotReadyError("; ".join(found))


READINESS: Mapping[str, Check] = {**DATABASE_CHECKS, "projections": check_projections}
STATUS = Operation(method="GET", path="/status", summary="How the projections stand", response=Status)


def build_app(settings: ProjectorSettings) -> Application:
    """Make the service; nothing is opened before it is served."""
    return create_app(
        name=NAME,
        settings=settings,
        routes=[Route("/status", show_status, methods=["GET"])],
        authenticator=BearerTokens(NAME, settings.operator_token),
        lifespan=open_resources,
        readiness=READINESS,
        operations=[STATUS],
    )


async def show_status(request: Request) -> Response:
    """Answer GET /status."""
    state = request.app.state
    standing = await read_standing(state.pool)
    found = tuple(complaints(standing, PROJECTIONS))
    return JsonResponse(Status(replica=state.replica, head=standing.head, items=standing.items, complaints=found))


@asynccontextmanager
async def open_resources(app: Application) -> AsyncIterator[None]:
    """Open the pools and run the projections; put `pool` and `replica` into the application's state."""
    settings: ProjectorSettings = app.state.settings
    lock_timeout = str(int(settings.lock_timeout_s * 1000))
    epoch = app.state.epoch
    async with (
        service_pool(NAME, settings, epoch, lock_timeout=lock_timeout) as pool,
        announcing_pool(settings, epoch) as announcers,
    ):
        leases = Leases(pool, mint_holder())
        runner = Runner(
            pool=pool,
            announce_db=announcers,
            listener=service_listener(NAME, settings, epoch, LOG_CHANNEL),
            leases=leases,
            epochs=epoch,
            page_size=settings.page_size,
            lagging_page_size=settings.lagging_page_size,
            poll_interval_s=settings.poll_interval_s,
        )
        app.state.pool, app.state.replica = pool, leases.holder
        async with background(runner.run()):
            yield
