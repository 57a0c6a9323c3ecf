"""The application that every service is: its routes, within the boundary, beside health, metrics and OpenAPI."""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from keelson.service.authentication import Authenticator
from keelson.service.boundary import Boundary
from keelson.service.epoch import Epoch
from keelson.service.health import DATABASE_CHECKS, Check, run_checks
from keelson.service.json import JsonResponse
from keelson.service.lifecycle import Lifecycle, background
from keelson.service.limits import RateLimits
from keelson.service.loop_delay import keep_measuring
from keelson.service.metrics import HttpMetrics, show_metrics, watch_service
from keelson.service.openapi import Operation, build_openapi
from keelson.service.routing import Route
from keelson.service.settings import ServerSettings


class Liveness(msgspec.Struct, frozen=True):
    """The process is up."""

    status: str


class Readiness(msgspec.Struct, frozen=True):
    """Whether the service can do its work now; each check is `ok`, or says what cannot be done."""

    ready: bool
    checks: dict[str, str]


_STANDARD = (
    Operation(method="GET", path="/healthz", summary="The process is up", response=Liveness, public=True),
    Operation(
        method="GET",
        path="/readyz",
        summary="It can work; else 503",
        response=Readiness,
        unready=Readiness,
        public=True,
    ),
    Operation(
        method="GET",
        path="/metrics",
        summary="Metrics for Prometheus",
        response=str,
        media_type="text/plain",
        public=True,
    ),
    Operation(method="GET", path="/openapi.json", summary="This document", response=dict[str, Any], public=True),
)

PUBLIC_PATHS = frozenset(operation.path for operation in _STANDARD)


class Application(Starlette):
    """A Starlette application whose only middleware is the boundary.

    `state.settings`, `state.epoch` and `state.authenticator` are there from the beginning; what the lifespan opens, it
    puts beside them: `state.pool` at least, if the standard checks are used.
    """

    def __init__(
        self,
        *,
        name: str,
        settings: ServerSettings,
        routes: Sequence[BaseRoute],
        authenticator: Authenticator,
        lifespan: Callable[["Application"], AbstractAsyncContextManager[None]],
        readiness: Mapping[str, Check],
        operations: Iterable[Operation],
        tokenless: Collection[str],
    ) -> None:
        super().__init__(routes=[*routes, *self._standard_routes()], lifespan=_run_within)
        self.router.redirect_slashes = False
        self.name = name
        self.state.settings = settings
        self.state.epoch = Epoch()
        self.lifecycle = Lifecycle(lambda: lifespan(self))
        watch_service(name, lambda: self.lifecycle.phase == "serving")
        self.state.authenticator = authenticator
        self._tokenless = tokenless
        self._readiness = readiness
        document = build_openapi(f"Keelson {name} service", version("keelson-service"), [*operations, *_STANDARD])
        self._openapi = msgspec.json.encode(document)

    def build_middleware_stack(self) -> ASGIApp:
        """Put the boundary in the place of Starlette's own layers, all of whose work it does."""
        settings: ServerSettings = self.state.settings
        return Boundary(
            self.router,
            authenticator=self.state.authenticator,
            limits=RateLimits(self.name, per_s=settings.rate_limit_per_s, burst=settings.rate_burst),
            lifecycle=self.lifecycle,
            epoch=self.state.epoch,
            metrics=HttpMetrics(self.name),
            public=PUBLIC_PATHS,
            tokenless=self._tokenless,
            body_deadline_s=settings.body_deadline_s,
        )

    def _standard_routes(self) -> list[Route]:
        return [
            Route("/healthz", self._show_health),
            Route("/readyz", self._show_readiness),
            Route("/metrics", show_metrics),
            Route("/openapi.json", self._show_openapi),
        ]

    async def _show_health(self, _request: Request) -> Response:
        return JsonResponse(Liveness("up"))

    async def _show_readiness(self, _request: Request) -> Response:
        checks = await self._check()
        ready = all(verdict == "ok" for verdict in checks.values())
        return JsonResponse(Readiness(ready, checks), status_code=200 if ready else 503)

    async def _check(self) -> dict[str, str]:
        match self.lifecycle.phase:
            case "serving":
                return {"service": "ok", **await run_checks(self._readiness, self.state)}
            case "draining":
                return {"service": "the service is stopping"}
            case _:
                return {"service": self.lifecycle.waits_for}

    async def _show_openapi(self, _request: Request) -> Response:
        return Response(self._openapi, media_type="application/json")


@asynccontextmanager
async def _run_within(app: Any) -> AsyncIterator[None]:
    async with background(keep_measuring()), app.lifecycle.run_within():
        yield


def create_app(
    *,
    name: str,
    settings: ServerSettings,
    routes: Sequence[BaseRoute],
    authenticator: Authenticator,
    lifespan: Callable[[Application], AbstractAsyncContextManager[None]],
    readiness: Mapping[str, Check] = DATABASE_CHECKS,
    operations: Iterable[Operation] = (),
    tokenless: Collection[str] = (),
) -> Application:
    """Make a service.

    `lifespan(app)` opens what the service needs and closes it at the end. It is entered in the background, again and
    again while the database is away or a NotReadyError is raised; meanwhile requests get 503 and readiness says why.
    Any other failure, and any of a task that it runs in `background`, ends the process. Paths in `tokenless` are not
    authenticated.
    """
    return Application(
        name=name,
        settings=settings,
        routes=routes,
        authenticator=authenticator,
        lifespan=lifespan,
        readiness=readiness,
        operations=operations,
        tokenless=tokenless,
    )
