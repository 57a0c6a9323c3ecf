"""One run of an instance as processes."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from subprocess import Popen

import msgspec
import structlog

from keelson.agent.driver import Address, Failure
from keelson.agent.drivers.process.folder import InstanceFolder, Record
from keelson.agent.drivers.process.group import Group
from keelson.agent.drivers.process.health import Health
from keelson.agent.drivers.process.identity import Identity, Member
from keelson.agent.drivers.process.launch import marker_of

_SIGNALLED = 128

_log = structlog.get_logger()


class ProcessRun:
    """The processes of an instance, from the start of its command to the end of the last one of them."""

    def __init__(
        self,
        record: Record,
        leader: Identity,
        folder: InstanceFolder,
        host: str,
        *,
        looking: asyncio.Lock,
        process: Popen[bytes] | None = None,
    ) -> None:
        """Take the run that `leader` leads; `process` if it is a child of ours, whose exit code can be known.

        `looking` is held by whoever looks through all processes of the machine.
        """
        self._record = record
        self._folder = folder
        self._process = process
        self._group = Group(leader, marker_of(record.instance.instance_id), looking)
        self._endpoints = {name: Address(host, port) for name, port in record.ports.items()}
        self._health = Health(record.instance.spec, self._endpoints)
        self._exceeded: Failure | None = None
        self.rss_bytes = 0

    @property
    def endpoints(self) -> Mapping[str, Address]:
        """Where its ports are."""
        return self._endpoints

    @property
    def was_ready(self) -> bool:
        """Whether it has been ready."""
        return self._record.ready

    @property
    def session(self) -> int:
        """The number of its session."""
        return self._group.leader.pid

    async def wait_until_ready(self) -> None:
        """Return when it is ready, and keep that for an agent to come."""
        await self._health.wait_until_ready()
        self._record = msgspec.structs.replace(self._record, ready=True)
        try:
            self._folder.write(self._record)
        except OSError as error:  # an agent to come would find out anew
            _log.warning("readiness_not_kept", instance_id=self._record.instance.instance_id, why=error.strerror)

    async def wait_until_unhealthy(self) -> str:
        """Return what is wrong with it."""
        return await self._health.wait_until_unhealthy()

    async def wait_until_ended(self) -> Failure:
        """Return how its leader ended; others of its processes may go on until `stop`."""
        await self._group.leader.wait_until_gone()
        return self._describe_end()

    async def stop(self, grace_s: float) -> Failure | None:
        """End all of its processes; those that the leader has left behind at once."""
        await self._group.end(grace_s if self._group.leader.is_running() else 0.0)
        return self._describe_end()

    async def watch(self, session: Sequence[Member], limit_bytes: int) -> None:
        """Look at what the processes of its session take, and end them if that is too much."""
        members = self._group.members_of(session)
        self.rss_bytes = sum(each.rss_bytes for each in members)
        if self._exceeded is None and self._group.hold_more_than(limit_bytes, members):
            self._exceeded = Failure(
                reason_code="memory_exceeded", exit_code=None, message=f"it took more than {limit_bytes} bytes"
            )
            await self._group.kill()

    def _describe_end(self) -> Failure:
        """Say how it ended, in the terms of shells: 128 and the signal, where it was a signal."""
        code = None if self._process is None else self._process.poll()
        if code is None:
            ended = Failure(reason_code="exited", message="it ended; how is not known")
        elif code < 0:
            ended = Failure(reason_code="exited", exit_code=_SIGNALLED - code, message=f"ended by {_name_of(-code)}")
        else:
            ended = Failure(reason_code="exited", exit_code=code)
        if self._exceeded is None:
            return ended
        return msgspec.structs.replace(self._exceeded, exit_code=ended.exit_code)


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of those that programs are free to use
        return f"signal {number}"
