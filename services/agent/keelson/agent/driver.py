"""Drivers: what runs instances. One runs local processes, another only says so; more may come."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from keelson.client.reads.nodes import DesiredInstance


class Address(NamedTuple):
    """Where a port of an instance can be reached."""

    host: str
    port: int


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why an instance does not run, or not well; the message holds nothing that is anybody's data."""

    reason_code: str
    exit_code: int | None = None
    message: str | None = None


class StartError(Exception):
    """An instance could not be started; it may be tried again."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason_code)
        self.failure = failure


class Run(Protocol):
    """One run of an instance, from its start to the end of the last of its processes. It outlives the agent."""

    @property
    def endpoints(self) -> Mapping[str, Address]:
        """Where its ports are, by their names; the same for as long as it runs."""

    @property
    def was_ready(self) -> bool:
        """Whether it was ready before this agent came to watch it."""

    async def wait_until_ready(self) -> None:
        """Return when it is ready for the first time, and keep that; may wait for ever."""

    async def wait_until_unhealthy(self) -> str:
        """Return what is wrong with it, once that has been so for a while; may wait for ever."""

    async def wait_until_ended(self) -> Failure:
        """Return how it ended, when it has ended by itself or for having taken too much; else wait for ever.

        Returns without waiting for anything if it has ended by now.
        """

    async def stop(self, grace_s: float) -> Failure | None:
        """End all of it, gently first, and return when nothing of it runs any more; tell how it ended, if known.

        Cancelling is safe: it may be called again.
        """


class Recovered(NamedTuple):
    """What an agent finds of an instance that another has run before; a run that has ended by now is one, too."""

    instance: DesiredInstance
    run: Run | None


class Driver(Protocol):
    """Runs the instances of one node."""

    async def run(self) -> None:
        """Do what must be done all the time, such as watching limits, until cancelled."""

    def recover(self) -> Sequence[Recovered]:
        """Give what is there from before; called once, before anything else."""

    async def start(self, instance: DesiredInstance) -> Run:
        """Start an instance of which nothing runs.

        Raises StartError, and nothing of it runs then. When cancelled, nothing of it runs either.
        """

    def discard(self, instance_id: str) -> None:
        """Remove all that was kept for an instance of which nothing runs, its secrets first. Safe twice."""

    def measure(self) -> Mapping[str, float]:
        """Give how busy the node is, by whatever measures; told with each heartbeat."""
