"""The agent of one node: follows what the node should be doing, converges, and says how that is."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Protocol, assert_never

import structlog

from keelson.agent.contact import REFUSED_PAUSE_S, Contact, Silence
from keelson.agent.driver import Driver
from keelson.agent.heartbeats import beat
from keelson.agent.reconcile import (
    Drain,
    End,
    Forget,
    Observed,
    SayStopped,
    Start,
    Step,
    Stop,
    reconcile,
)
from keelson.agent.reports import Reports
from keelson.agent.state import DesiredFile
from keelson.agent.supervisor import Pace, Supervisor
from keelson.client import Client, ClientError, Desired
from keelson.client.commands.instance import ReportStatus
from keelson.client.reads.nodes import DesiredInstance

_log = structlog.get_logger()


class Keeper(Protocol):
    """Keeps what the node should be doing over the agent's end."""

    def read_desired(self) -> DesiredFile | None:
        """Give what was kept last."""

    def write_desired(self, desired: DesiredFile) -> None:
        """Keep it, whole or not at all."""


class Agent:
    """Runs on one node what that should be running.

    It works from what it was told last, whether the control plane is there or not; nothing that the control plane fails
    to say, or refuses to say, ends an instance. When it ends itself, it leaves the instances running.
    """

    def __init__(
        self,
        node_id: str,
        client: Client,
        driver: Driver,
        keeper: Keeper,
        *,
        pace: Pace,
        heartbeat_interval_s: float = 3.0,
    ) -> None:
        self._node_id = node_id
        self._client = client
        self._driver = driver
        self._keeper = keeper
        self._pace = pace
        self._heartbeat_interval_s = heartbeat_interval_s
        self._desired: DesiredFile | None = None
        self._is_kept = True
        self._position = 0
        self._leftovers: dict[str, DesiredInstance] = {}
        self._supervisors: dict[str, Supervisor] = {}
        self._contact = Contact("command")
        self._reports = Reports(client, self._contact)

    async def run(self) -> None:
        """Do all that until cancelled."""
        structlog.contextvars.bind_contextvars(node_id=self._node_id)
        self._desired = self._keeper.read_desired()
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._take_up()
            tasks.create_task(self._driver.run())
            tasks.create_task(self._reports.run())
            tasks.create_task(beat(self._client, self._contact, self._node_id, self._look, self._heartbeat_interval_s))
            tasks.create_task(self._follow())

    def _take_up(self) -> None:
        """Go on where an agent before has left off: with what runs, and with what should."""
        for instance, run in self._driver.recover():
            if run is None:
                self._leftovers[instance.instance_id] = instance
            else:
                _log.info("instance_adopted", instance_id=instance.instance_id, was_ready=run.was_ready)
                self._supervise(Supervisor(instance, self._driver, self._tell, self._pace, run), instance)
        if self._desired is not None:
            self._position = self._desired.position
            self._converge(self._desired)

    async def _follow(self) -> None:
        """Follow what the node should be doing; turned away, ask again after a while."""
        contact, silence = Contact("query"), Silence()
        try:
            while True:
                silence.listen()
                try:
                    await self._listen(contact, silence)
                except ClientError as error:
                    contact.lost(error)
                await asyncio.sleep(REFUSED_PAUSE_S)
        finally:
            silence.over()

    async def _listen(self, contact: Contact, silence: Silence) -> None:
        known, digest = (None, None) if self._desired is None else (self._desired.cursor, self._desired.digest)
        async with aclosing(self._client.follow_desired(self._node_id, known, digest)) as items:
            async for item in items:
                contact.made()
                silence.heard()
                self._position = item.position
                if isinstance(item, Desired):
                    await self._adopt(item)
                elif not self._is_kept and self._desired is not None:
                    await self._keep(self._desired)

    async def _adopt(self, desired: Desired) -> None:
        """Take what the node should be doing; what is older than what is known is not, but in another epoch."""
        new = DesiredFile(
            cursor=desired.cursor,
            version=desired.version,
            digest=desired.digest,
            position=desired.position,
            items=desired.items,
        )
        before = self._desired
        if before is not None and before.epoch == new.epoch and before.version > new.version:
            return
        self._desired = new
        await self._keep(new)
        _log.info("desired_changed", version=new.version, instances=len(new.items))
        self._converge(new)
        if before is not None and before.epoch != new.epoch:
            _log.warning("epoch_changed", epoch=new.epoch, before=before.epoch)
            self._reports.doubt()

    async def _keep(self, desired: DesiredFile) -> None:
        """Keep it, now or later: what should run is more than that it is kept."""
        try:
            await asyncio.to_thread(self._keeper.write_desired, desired)
        except OSError as error:
            if self._is_kept:
                _log.error("desired_not_kept", why=error.strerror, consequence="tried again with each sign of life")
            self._is_kept = False
        else:
            self._is_kept = True

    def _converge(self, desired: DesiredFile) -> None:
        observed = self._observe()
        self._reports.keep_only({*observed, *(each.instance_id for each in desired.items)})
        for step in reconcile(desired.items, observed):
            self._take(step)

    def _observe(self) -> Mapping[str, Observed]:
        ended = {key: Observed("ended", each.spec_hash) for key, each in self._leftovers.items()}
        return ended | {key: each.observed for key, each in self._supervisors.items()}

    def _take(self, step: Step) -> None:
        match step:
            case Start(instance):
                self._leftovers.pop(instance.instance_id, None)
                self._supervise(Supervisor(instance, self._driver, self._tell, self._pace), instance)
            case Drain(key):
                self._supervisors[key].drain()
            case Stop(key):
                self._supervisors[key].stop()
            case End(key):
                self._supervisors[key].end()
                self._reports.forget(key)
            case SayStopped(key):
                if not self._reports.has_said(key, "stopped"):
                    self._tell(ReportStatus(instance_id=key, status="stopped"))
            case Forget(key):
                self._driver.discard(key)
                self._leftovers.pop(key, None)
                self._reports.forget(key)
            case _:
                assert_never(step)

    def _supervise(self, supervisor: Supervisor, instance: DesiredInstance) -> None:
        self._supervisors[instance.instance_id] = supervisor
        self._tasks.create_task(self._see_through(supervisor, instance))

    async def _see_through(self, supervisor: Supervisor, instance: DesiredInstance) -> None:
        """Supervise an instance to its end, and do what is to be done then."""
        await supervisor.run()
        del self._supervisors[instance.instance_id]
        self._leftovers[instance.instance_id] = instance
        if self._desired is not None:
            self._converge(self._desired)

    def _tell(self, report: ReportStatus) -> None:
        self._reports.tell(report)

    def _look(self) -> tuple[int, Mapping[str, float]]:
        ready = sum(each.is_ready for each in self._supervisors.values())
        return self._position, {"instances": len(self._supervisors), "ready": ready, **self._driver.measure()}
