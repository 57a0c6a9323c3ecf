"""One instance, kept running until it is to end: started, watched, started again after a while, drained, stopped."""

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from keelson.agent.driver import Driver, Failure, Run, StartError
from keelson.agent.reconcile import Observed, Phase
from keelson.client.commands.instance import Endpoint, ReportStatus
from keelson.client.reads.nodes import DesiredInstance

_log = structlog.get_logger()


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How long things may take, and how soon they are tried again."""

    drain_s: float = 1.0
    stop_grace_s: float = 10.0
    boot_timeout_s: float = 60.0
    restart_backoff_first_s: float = 0.5
    restart_backoff_max_s: float = 30.0
    stable_s: float = 30.0


class Backoff:
    """How long to wait before the next start: twice as long each time, up to a bound."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._next_s = pace.restart_backoff_first_s

    def next_s(self, lived_s: float) -> float:
        """Give how long to wait after a run that lived so long; one that was stable begins from the first again."""
        if lived_s >= self._pace.stable_s:
            self._next_s = self._pace.restart_backoff_first_s
        wait_s = min(self._next_s, self._pace.restart_backoff_max_s)
        self._next_s = 2 * wait_s
        return wait_s


class Supervisor:
    """Keeps one instance running until it is told otherwise, and tells each change of how it is.

    Cancelling it leaves the instance as it is, to be taken up again by whoever comes next with its run.
    """

    def __init__(
        self,
        instance: DesiredInstance,
        driver: Driver,
        tell: Callable[[ReportStatus], None],
        pace: Pace,
        run: Run | None = None,
    ) -> None:
        """Keep `run` running if there is one from before, else begin with a start."""
        self._instance = instance
        self._driver = driver
        self._tell_report = tell
        self._pace = pace
        self._run = run
        self._phase: Phase = "running"
        self._silent = False
        self._ready = False
        self._failed = False
        self._ordered = asyncio.Event()
        self._hurried = asyncio.Event()
        self._log = _log.bind(instance_id=instance.instance_id, process=instance.process)

    @property
    def observed(self) -> Observed:
        """How it is."""
        return Observed(self._phase, self._instance.spec_hash)

    @property
    def is_ready(self) -> bool:
        """Whether it was told to be ready, and nothing since."""
        return self._ready

    def drain(self) -> None:
        """Let it serve a little longer, then stop it."""
        self._phase = "draining"
        self._ordered.set()

    def stop(self) -> None:
        """Stop it now, also if it drains."""
        self._phase = "stopping"
        self._ordered.set()
        self._hurried.set()

    def end(self) -> None:
        """Stop it now, and say nothing of it any more."""
        self._silent = True
        self.stop()

    async def run(self) -> None:
        """Do all that; return when nothing of the instance runs or is kept any more."""
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(self._keep_running())
            await self._ordered.wait()
            keeping.cancel()
        await self._finish()

    async def _keep_running(self) -> None:
        loop = asyncio.get_running_loop()
        backoff = Backoff(self._pace)
        while True:
            begun = loop.time()
            failure = await self._live_once()
            wait_s = backoff.next_s(loop.time() - begun)
            self._log.warning("instance_failed", again_in_s=wait_s, **msgspec.structs.asdict(failure))
            self._tell_failed(failure)
            if self._run is not None:
                await self._run.stop(self._pace.stop_grace_s)  # what it has left behind ends, too, if it ever does
                self._run = None
            await asyncio.sleep(wait_s)

    async def _live_once(self) -> Failure:
        """Run it until it ends or is not well; tell how it is meanwhile, and give why that was all."""
        if self._run is None:
            try:
                self._run = await self._driver.start(self._instance)
            except StartError as error:
                return error.failure
            self._log.info("instance_started")
        self._failed = False
        if not self._run.was_ready:
            self._tell("booting")
        return await self._watch(self._run)

    async def _watch(self, run: Run) -> Failure:
        """Return what comes first: its end, or that it is not well; of one that has ended before, only that."""
        watching = [asyncio.ensure_future(run.wait_until_ended())]
        try:
            # One that was ready once, and has ended while nobody watched, is not to be told to be ready now.
            await asyncio.wait(watching, timeout=0)
            if not watching[0].done():
                watching.append(asyncio.ensure_future(self._look_after(run)))
                await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
            return next(each.result() for each in watching if each.done())
        finally:
            for each in watching:
                each.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    async def _look_after(self, run: Run) -> Failure:
        """Tell when it is ready; return when it is not well."""
        try:
            if not run.was_ready:
                async with asyncio.timeout(self._pace.boot_timeout_s):
                    await run.wait_until_ready()
        except TimeoutError:
            return Failure(reason_code="unhealthy", message=f"not ready within {self._pace.boot_timeout_s:g} s")
        self._ready = True
        self._log.info("instance_ready")
        self._tell("ready", run)
        return Failure(reason_code="unhealthy", message=await run.wait_until_unhealthy())

    async def _finish(self) -> None:
        """Let it finish as it was ordered, and remove what is left of it."""
        run, failure = self._run, None
        if run is not None:
            if not self._failed:
                self._tell("draining")
                self._ready = False
                if self._phase == "draining":
                    await self._linger(run)
            self._phase = "stopping"
            failure = await run.stop(self._pace.stop_grace_s)
            self._run = None
        self._driver.discard(self._instance.instance_id)
        self._phase = "ended"
        self._log.info("instance_stopped", told=not self._silent)
        self._tell("stopped", exit_code=None if failure is None else failure.exit_code)

    async def _linger(self, run: Run) -> None:
        """Let it serve for the time that draining takes, or until it has ended, or must stop now."""
        ended, hurried = asyncio.ensure_future(run.wait_until_ended()), asyncio.ensure_future(self._hurried.wait())
        try:
            waited_for = (ended, hurried)
            await asyncio.wait(waited_for, timeout=self._pace.drain_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            hurried.cancel()
            await asyncio.gather(ended, hurried, return_exceptions=True)

    def _tell(self, status: str, run: Run | None = None, exit_code: int | None = None) -> None:
        endpoints = {} if run is None else {n: Endpoint(host=a.host, port=a.port) for n, a in run.endpoints.items()}
        self._send(
            ReportStatus(
                instance_id=self._instance.instance_id,
                status=status,  # type: ignore[arg-type]
                endpoints=endpoints or None,
                exit_code=exit_code,
            )
        )

    def _tell_failed(self, failure: Failure) -> None:
        self._ready, self._failed = False, True
        said = msgspec.structs.asdict(failure)
        self._send(ReportStatus(instance_id=self._instance.instance_id, status="failed", **said))

    def _send(self, report: ReportStatus) -> None:
        if not self._silent:
            self._tell_report(report)
