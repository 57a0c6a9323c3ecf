"""The driver that runs instances as local processes."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from keelson.agent.driver import Failure, Recovered, StartError
from keelson.agent.drivers.process.aside import to_the_end
from keelson.agent.drivers.process.folder import InstanceFolder, Record, folders_in
from keelson.agent.drivers.process.group import Group
from keelson.agent.drivers.process.identity import Identity, has_variable, pids, read_sessions
from keelson.agent.drivers.process.launch import Launched, environment_of, launch, marker_of
from keelson.agent.drivers.process.ports import NoPortError, Ports
from keelson.agent.drivers.process.run import ProcessRun
from keelson.client.reads.nodes import DesiredInstance

Reveal = Callable[[str], Awaitable[Mapping[str, str]]]

_log = structlog.get_logger()


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What all instances of a node have in common."""

    node_id: str
    host: str
    root: Path
    log_max_bytes: int = 10 * 2**20
    kept_logs: int = 20
    watch_interval_s: float = 1.0


class ProcessDriver:
    """Runs each instance's command as a process group of this machine.

    A run outlives the agent: the next one on the same folder finds it by its pid and the moment at which it started.
    Memory and the size of logs are looked at once in `watch_interval_s`, and so may be more than their bounds for as
    long. An instance runs as the agent's account, and may do what that may: this isolates nothing.
    """

    def __init__(self, folder: Path, rules: Rules, reveal: Reveal) -> None:
        """Keep instances' folders in `folder`, and logs of those that ended beside it.

        `reveal` gives an instance's secrets, or raises StartError.
        """
        self._folder = folder
        self._ended = folder.with_name("ended")
        self._rules = rules
        self._reveal = reveal
        self._ports = Ports()
        self._looking = asyncio.Lock()
        self._runs: dict[str, tuple[ProcessRun, Record]] = {}

    async def run(self) -> None:
        """Hold the bounds of memory and of logs."""
        while True:
            sessions = await asyncio.to_thread(read_sessions) if self._runs else {}
            for run, record in list(self._runs.values()):
                await run.watch(sessions.get(run.session, ()), record.instance.spec.memory_bytes)
            for instance_id in list(self._runs):
                await asyncio.to_thread(self._folder_of(instance_id).bound_logs, self._rules.log_max_bytes)
            await asyncio.sleep(self._rules.watch_interval_s)

    def recover(self) -> Sequence[Recovered]:
        """Give what an agent before has started, whether it runs or has ended meanwhile, and what it only prepared."""
        found = []
        for folder in folders_in(self._folder):
            record = folder.read()
            if record is None:
                self._give_up(folder)
            else:
                found.append(Recovered(record.instance, self._adopt(folder, record)))
        return found

    async def start(self, instance: DesiredInstance) -> ProcessRun:
        """Start it: with the ports that it had before if they are free, and its secrets as they were revealed first."""
        folder = self._folder_of(instance.instance_id)
        try:
            await to_the_end(folder.make)
            if instance.secret_version is not None and not folder.secrets.exists():
                await to_the_end(folder.write_secrets, await self._reveal(instance.instance_id))
            record = await self._prepare(instance, folder)
            return self._start(record, folder)
        except NoPortError:
            raise StartError(Failure(reason_code="start_failed", message="no port is free")) from None
        except OSError as error:
            message = f"{type(error).__name__}: {error.strerror}"
            raise StartError(Failure(reason_code="start_failed", message=message)) from None
        except ValueError:
            message = "the command or a variable cannot be handed to a process"
            raise StartError(Failure(reason_code="start_failed", message=message)) from None

    def discard(self, instance_id: str) -> None:
        """Give back its ports, and remove its folder."""
        self._runs.pop(instance_id, None)
        folder = self._folder_of(instance_id)
        record = folder.read()
        if record is not None:
            self._ports.give_back(record.ports)
        folder.remove(self._ended, self._rules.kept_logs)

    def measure(self) -> Mapping[str, float]:
        """Give the memory that the instances' processes have, in bytes, as it was looked at last."""
        return {"memory_bytes": sum(run.rss_bytes for run, _ in self._runs.values())}

    async def _prepare(self, instance: DesiredInstance, folder: InstanceFolder) -> Record:
        """Take its ports, and keep that it is to be started: if the agent is killed then, it is found by its marker."""
        before = folder.read()
        had = {} if before is None else before.ports
        self._ports.give_back(had)
        record = Record(instance=instance, ports=self._ports.take([port.name for port in instance.spec.ports], had))
        try:
            await to_the_end(folder.write, record)
        except OSError:
            self._ports.give_back(record.ports)
            raise
        return record

    def _start(self, record: Record, folder: InstanceFolder) -> ProcessRun:
        """Start its command and keep which process it is, without anything else of the agent coming in between."""
        environment = environment_of(record.instance, self._rules.node_id, record.ports, folder)
        process = launch(record.instance, environment, self._rules.root, folder)
        return self._keep(folder, record, process)

    def _keep(self, folder: InstanceFolder, record: Record, process: Launched) -> ProcessRun:
        leader = Identity.read(process.pid)
        if leader is None:
            raise AssertionError("a child is there until it is waited for")
        record = msgspec.structs.replace(record, leader=leader)
        try:
            folder.write(record)
        except OSError as error:  # it runs; an agent to come finds it by its marker
            _log.warning("leader_not_kept", instance_id=record.instance.instance_id, why=error.strerror)
        run = ProcessRun(record, leader, folder, self._rules.host, looking=self._looking, process=process)
        self._runs[record.instance.instance_id] = (run, record)
        return run

    def _adopt(self, folder: InstanceFolder, record: Record) -> ProcessRun | None:
        """Give the run of what was started, be it over by now; None of what never was."""
        self._ports.keep(record.ports)
        leader = record.leader or _find_leader(record.instance.instance_id)
        if leader is None:
            return None
        run = ProcessRun(record, leader, folder, self._rules.host, looking=self._looking)
        self._runs[record.instance.instance_id] = (run, record)
        return run

    def _give_up(self, folder: InstanceFolder) -> None:
        """Remove a folder that says nothing: nothing was started, or what was is not known, and so must not go on."""
        leader = _find_leader(folder.path.name)
        if leader is not None:
            _log.error("instance_unknown", instance_id=folder.path.name, consequence="what runs of it is ended")
            Group(leader, marker_of(folder.path.name), self._looking).signal(signal.SIGKILL)
        folder.remove(self._ended, self._rules.kept_logs)

    def _folder_of(self, instance_id: str) -> InstanceFolder:
        return InstanceFolder(self._folder / instance_id)


def _find_leader(instance_id: str) -> Identity | None:
    """Find the session leader that an instance was started as, where an agent was killed before it could keep that.

    Where that has left only others behind, it is given as a process that has ended, so that they are ended with it.
    """
    marker = marker_of(instance_id)
    marked = [pid for pid in pids() if has_variable(pid, marker)]
    found = (identity for pid in marked if _leads_session(pid) and (identity := Identity.read(pid)))
    return next(found, Identity(marked[0], "long ago") if marked else None)


def _leads_session(pid: int) -> bool:
    return any(member.identity.pid == pid for member in read_sessions().get(pid, ()))
