"""The command service: what it is made of, and what it holds open."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import Histogram
from typeid import TypeID

from keelson.command.decide import Decider
from keelson.command.routes import OPERATIONS, ROUTES
from keelson.command.settings import CommandSettings
from keelson.command.state import StateCache
from keelson.log.append import Appender
from keelson.log.listen import Listener
from keelson.log.read import read_head
from keelson.service.app import Application, create_app
from keelson.service.authentication import OperatorToken
from keelson.service.checkpoints import CHANNEL, Checkpoints
from keelson.service.lifecycle import background
from keelson.service.pools import service_pool

NAME = "command"

GROUP_DECISIONS = Histogram(
    "keelson_append_group_decisions", "Decisions in an append group", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
GROUP_SECONDS = Histogram(
    "keelson_append_group_seconds",
    "From sending an append group to its outcome",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)


def build_app(settings: CommandSettings) -> Application:
    """Make the service; nothing is opened before it is served."""
    return create_app(
        name=NAME,
        settings=settings,
        routes=ROUTES,
        authenticator=OperatorToken(settings.operator_token),
        lifespan=open_resources,
        operations=OPERATIONS,
    )


@asynccontextmanager
async def open_resources(app: Application) -> AsyncIterator[None]:
    """Open the pool and the writer; put `pool`, `checkpoints` and `decider` into the application's state."""
    settings: CommandSettings = app.state.settings
    async with service_pool(NAME, settings) as pool:
        listener = Listener(settings.listen_database_url, CHANNEL, application_name=f"keelson-{NAME}-listener")
        checkpoints = Checkpoints(pool, listener, app.state.epoch)
        cache = StateCache((await read_head(pool)).epoch, settings.cache_entries)
        appender = Appender(
            settings.database_url,
            application_name=f"keelson-{NAME}-append",
            call_timeout_s=settings.statement_timeout_s,
            on_group=_observe,
        )
        appender.on_epoch(cache.enter_epoch)
        appender.on_epoch(app.state.epoch.learn)
        app.state.pool = pool
        app.state.checkpoints = checkpoints
        app.state.decider = Decider(
            pool,
            appender,
            cache,
            mint=_mint,
            secret=settings.idempotency_secret.encode(),
            timeout_s=settings.command_timeout_s,
        )
        async with background(checkpoints.run(), appender.run()):
            yield


def _mint(prefix: str) -> str:
    return str(TypeID(prefix=prefix))


def _observe(decisions: int, seconds: float) -> None:
    GROUP_DECISIONS.observe(decisions)
    GROUP_SECONDS.observe(seconds)
