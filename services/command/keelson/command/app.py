"""The command service: what it is made of, and what it holds open."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from typeid import TypeID

from keelson.access.tokens import new_token
from keelson.command import metrics
from keelson.command.decide import Decider
from keelson.command.routes import OPERATIONS, ROUTES, TOKENLESS
from keelson.command.sealing import Sealer, read_keys
from keelson.command.settings import CommandSettings
from keelson.command.state import StateCache
from keelson.command.transaction import Supply
from keelson.log.append import Appender
from keelson.log.read import read_head
from keelson.service.app import Application, create_app
from keelson.service.authentication import BearerTokens, known_credentials
from keelson.service.checkpoints import CHANNEL, Checkpoints
from keelson.service.lifecycle import background
from keelson.service.listening import service_listener
from keelson.service.pools import service_pool

NAME = "command"


def build_app(settings: CommandSettings) -> Application:
    """Make the service; nothing is opened before it is served."""
    return create_app(
        name=NAME,
        settings=settings,
        routes=ROUTES,
        authenticator=BearerTokens(NAME, settings.operator_token),
        lifespan=open_resources,
        operations=OPERATIONS,
        tokenless=TOKENLESS,
    )


@asynccontextmanager
async def open_resources(app: Application) -> AsyncIterator[None]:
    """Open the pool and the writer; put `pool`, `checkpoints` and `decider` into the application's state."""
    settings: CommandSettings = app.state.settings
    epoch = app.state.epoch
    async with service_pool(NAME, settings, epoch) as pool:
        checkpoints = Checkpoints(pool, service_listener(NAME, settings, epoch, CHANNEL), epoch)
        cache = StateCache((await read_head(pool)).epoch, settings.cache_entries)
        appender = Appender(
            settings.database_url,
            application_name=f"keelson-{NAME}-append",
            epochs=epoch,
            call_timeout_s=settings.statement_timeout_s,
            on_group=metrics.group_appended,
            on_failure=metrics.append_failed,
        )
        sealer = Sealer(read_keys(settings.secret_keys), settings.digest_key)
        epoch.on_change(cache.enter_epoch)
        app.state.pool = pool
        app.state.checkpoints = checkpoints
        app.state.decider = Decider(
            pool,
            appender,
            cache,
            supply=Supply(_mint, new_token, sealer),
            secret=settings.idempotency_secret.encode(),
            timeout_s=settings.command_timeout_s,
        )
        tasks = (checkpoints.run(), appender.run(), metrics.keep_sampling(appender, pool))
        async with background(*tasks), known_credentials(app.state.authenticator, pool, epoch):
            yield


def _mint(prefix: str) -> str:
    return str(TypeID(prefix=prefix))
