"""The replica: takes leases, listens to the log, and runs the projections that it holds."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

import structlog

from keelson.events import REGISTRY, Registry
from keelson.log.database import UNAVAILABLE, Database, Pool
from keelson.log.epochs import Epochs
from keelson.log.listen import Listener
from keelson.projector import metrics
from keelson.projector.announcer import Announcer
from keelson.projector.follower import Follower
from keelson.projector.leases import RENEW_INTERVAL_S, Leases
from keelson.projector.pages import Pages
from keelson.projector.status import checkpoint_of, complaints
from keelson.service.standing import Standing, read_standing
from keelson.views import PROJECTIONS, Projection

# What a stopping replica waits for its leases' return; they lapse by themselves.
RELEASE_TIMEOUT_S = 1.0

log = structlog.get_logger()


class Runner:
    """Runs projections side by side: none waits for another, and all that are at one place share its reading.

    `pool` writes; `announce_db` sends notifications; `listener` hears the log's; `epochs` tells when another begins.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        announce_db: Database,
        listener: Listener,
        leases: Leases,
        epochs: Epochs,
        page_size: int = 1000,
        lagging_page_size: int = 5000,
        poll_interval_s: float = 1.0,
        projections: Mapping[str, Projection] = PROJECTIONS,
        registry: Registry = REGISTRY,
    ) -> None:
        self.projections = projections
        self.pages = Pages(pool, page_size=page_size, lagging_page_size=lagging_page_size, registry=registry)
        self._pool = pool
        self._listener = listener
        self._leases = leases
        self._announcer = Announcer(announce_db)
        self._followers = [
            Follower(
                projection,
                pool=pool,
                pages=self.pages,
                leases=leases,
                announcer=self._announcer,
                poll_interval_s=poll_interval_s,
            )
            for projection in projections.values()
        ]
        for name in projections:
            metrics.watch_lease(name, partial(leases.holds, name))
        self._complaints: tuple[str, ...] = ()
        listener.subscribe(self._hear)
        epochs.on_change(self._enter_epoch)

    async def run(self) -> None:
        """Run until cancelled; then give the leases back, so that another replica goes on at once."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listener.run(), name="log listener")
                tasks.create_task(self._announcer.run(), name="announcer")
                tasks.create_task(self._keep_leases(), name="leases")
                for follower in self._followers:
                    tasks.create_task(follower.run(), name=f"projection {follower.name}")
        finally:
            with suppress(TimeoutError, *UNAVAILABLE):
                async with asyncio.timeout(RELEASE_TIMEOUT_S):
                    await self._leases.release(list(self.projections))

    def _hear(self, _payload: str) -> None:
        self.pages.hear()
        for follower in self._followers:
            follower.wake.set()

    def _enter_epoch(self, _name: str) -> None:
        for follower in self._followers:
            follower.forget_stops()

    async def _keep_leases(self) -> None:
        while True:
            try:
                await self._take_leases()
            except UNAVAILABLE as error:
                log.warning("leases_not_renewed", error=type(error).__name__)
            await asyncio.sleep(RENEW_INTERVAL_S)

    async def _take_leases(self) -> None:
        """Renew what is held and take what is free, of the projections that this process can run."""
        standing = await read_standing(self._pool)
        fit = [follower for follower in self._followers if self._is_fit(follower, standing)]
        held = {follower.name for follower in fit if self._leases.holds(follower.name)}
        await self._leases.take([follower.name for follower in fit])
        for follower in fit:
            if follower.name not in held and self._leases.holds(follower.name):
                log.info("lease_taken", projection=follower.name)
                follower.wake.set()
        self._show(standing)

    def _is_fit(self, follower: Follower, standing: Standing) -> bool:
        item = standing.read_item(follower.name)
        return follower.is_fit_for(checkpoint_of(item) if item else None)

    def _show(self, standing: Standing) -> None:
        metrics.show_standing(standing)
        found = tuple(complaints(standing, self.projections))
        if found != self._complaints:
            self._complaints = found
            log.warning("projections_wait", complaints=found) if found else log.info("projections_run")
