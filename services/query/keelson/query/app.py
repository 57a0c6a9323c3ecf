"""The query service: what it is made of, and what it holds open."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from keelson.log.tail import LOG_CHANNEL
from keelson.query.credential_routes import credential_endpoints
from keelson.query.desired.snapshots import Snapshots
from keelson.query.desired_routes import desired_endpoints
from keelson.query.endpoints import Endpoint, not_built_routes, routes_of
from keelson.query.feed.feed import Feed
from keelson.query.freshness import Freshness
from keelson.query.lineages import Lineages
from keelson.query.log_routes import log_endpoints
from keelson.query.readiness import CHECKS
from keelson.query.reads import View
from keelson.query.rows import RowReader
from keelson.query.settings import QuerySettings
from keelson.query.status_routes import show_env_status
from keelson.query.view_routes import view_endpoints
from keelson.service.app import Application, create_app
from keelson.service.authentication import BearerTokens, known_credentials
from keelson.service.checkpoints import CHANNEL, Checkpoints
from keelson.service.lifecycle import background
from keelson.service.listening import service_listener
from keelson.service.pools import service_pool
from keelson.views import derived_named

NAME = "query"

# What the API knows beyond what is built.
NOT_BUILT_PATHS = ("/v1/diff",)


def endpoints() -> list[Endpoint]:
    """Give everything that can be read here."""
    return [*view_endpoints(), show_env_status(), *credential_endpoints(), *desired_endpoints(), *log_endpoints()]


def build_app(settings: QuerySettings) -> Application:
    """Make the service; nothing is opened before it is served."""
    served = endpoints()
    return create_app(
        name=NAME,
        settings=settings,
        routes=[*routes_of(served), *not_built_routes(NOT_BUILT_PATHS)],
        authenticator=BearerTokens(NAME, settings.operator_token),
        lifespan=open_resources,
        readiness=CHECKS,
        operations=[endpoint.operation for endpoint in served],
    )


@asynccontextmanager
async def open_resources(app: Application) -> AsyncIterator[None]:
    """Open the pool and what reads by it; put it all into the application's state."""
    settings: QuerySettings = app.state.settings
    # It reads alone, and so can work on a standby too.
    async with service_pool(NAME, settings, app.state.epoch, standby=True) as pool:
        listener = service_listener(NAME, settings, app.state.epoch, CHANNEL, LOG_CHANNEL)
        checkpoints = Checkpoints(pool, listener, app.state.epoch)
        app.state.pool = pool
        app.state.feed = Feed(pool, listener, app.state.authenticator, settings, app.state.epoch)
        app.state.freshness = Freshness(pool, checkpoints)
        app.state.checkpoints = checkpoints
        app.state.lineages = Lineages(pool)
        app.state.rows = rows = RowReader(pool)
        app.state.node_desired = Snapshots(rows, View(*derived_named("node_desired")))
        app.state.edge_desired = Snapshots(rows, View(*derived_named("edge_desired")))
        async with (
            known_credentials(app.state.authenticator, pool, app.state.epoch),
            background(checkpoints.run(), rows.run(), app.state.feed.run()),
        ):
            yield
