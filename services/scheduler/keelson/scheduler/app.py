"""The scheduler as a service: health and metrics; and what it does beside them."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from keelson.client import Client
from keelson.scheduler.acting import Actor
from keelson.scheduler.following import Follower
from keelson.scheduler.heartbeats import Heartbeats
from keelson.scheduler.scheduling import Scheduler
from keelson.scheduler.settings import SchedulerSettings
from keelson.scheduler.timekeeping import Patience
from keelson.scheduler.watching import LOOK_EVERY_S, Watcher
from keelson.service.app import Application, create_app
from keelson.service.authentication import BearerTokens
from keelson.service.health import Check
from keelson.service.lifecycle import NotReadyError, background

NAME = "scheduler"
# A command that is not answered is planned again, by what is so then.
RETRY_FOR_S = 5.0


async def check_services(state: Any) -> None:
    """Check that both services answer, and take commands."""
    for trouble in (state.watcher.trouble, state.actor.trouble):
        if trouble is not None:
            raise NotReadyError(trouble)


async def check_log(state: Any) -> None:
    """Check that the log was read to its end."""
    if (waits_for := state.scheduler.waits_for) is not None:
        raise NotReadyError(waits_for)


READINESS: Mapping[str, Check] = {"services": check_services, "log": check_log}


def build_app(settings: SchedulerSettings) -> Application:
    """Make the service; nothing is opened before it is served."""
    return create_app(
        name=NAME,
        settings=settings,
        routes=[],
        authenticator=BearerTokens(NAME),
        lifespan=open_resources,
        readiness=READINESS,
    )


@asynccontextmanager
async def open_resources(app: Application) -> AsyncIterator[None]:
    """Follow, watch, plan and act; put `watcher`, `actor` and `scheduler` into the application's state."""
    settings: SchedulerSettings = app.state.settings
    woken = asyncio.Event()
    heartbeats = Heartbeats(settings.node_lost_after_s, longest_s=2 * LOOK_EVERY_S)
    async with Client(settings.command_url, settings.query_url, settings.token, retry_for_s=RETRY_FOR_S) as client:
        follower = Follower(client.follow_events, woken.set)
        watcher = Watcher(
            client,
            settings.command_url,
            heartbeats=heartbeats,
            monotonic=time.monotonic,
            on_look=woken.set,
        )
        actor = Actor(client, follower, monotonic=time.monotonic, on_free=woken.set)
        scheduler = Scheduler(
            follower,
            watcher,
            actor,
            heartbeats=heartbeats,
            patience=Patience(settings.deploy_timeout_s, time.monotonic),
            monotonic=time.monotonic,
            bounds=settings.bounds,
            node_lost_after_s=settings.node_lost_after_s,
            woken=woken,
        )
        app.state.watcher, app.state.actor, app.state.scheduler = watcher, actor, scheduler
        async with background(follower.run(), watcher.run(), scheduler.run()):
            yield
