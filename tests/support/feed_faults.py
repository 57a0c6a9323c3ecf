"""What befalls consumers of the change feed, chosen by a seed: replicas that restart, connections cut at any byte.

The replicas run within the test's process, so that bugs can be planted in them; each connection through the proxy leads
to any of them, and fares as chance will have it. The schedule is the seed's; how bytes fall between its steps is not.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any, NamedTuple

from support.database import Database
from support.feed_world import Credential, FeedWorld
from support.proxy import Direction, Fate, Proxy, running_proxy
from support.query_world import Reader, served
from support.waiting import free_port

REPLICAS = 2
# A stopped replica ends its streams by itself, long before it would be forced; a test waits no longer than this.
STOPS_WITHIN_S = 10.0
# Never forced: that would end the test's process.
_GRACE_S = 300.0


class Running(NamedTuple):
    """A replica that runs, and what ends it."""

    stack: AsyncExitStack
    reader: Reader


class Replicas:
    """Some replicas of the query service, each on a port of its own, and a proxy that leads to any of them."""

    def __init__(self, database: Database, random: Random, doomed: float, settings: dict[str, Any]) -> None:
        self._database = database
        self._random = random
        self._doomed = doomed
        self._settings = {"shutdown_grace_s": _GRACE_S, "log_level": "error", **settings}
        self._ports = [free_port() for _ in range(REPLICAS)]
        self._running: dict[int, Running] = {}
        self._directions: list[Direction] = []
        self.proxy: Proxy
        self.is_calm = False

    async def start(self, number: int) -> None:
        """Start a replica on its port."""
        stack = AsyncExitStack()
        serving = served(self._database, port=self._ports[number], **self._settings)
        reader = await stack.enter_async_context(serving)
        self._running[number] = Running(stack, reader)

    async def stop(self, number: int) -> None:
        """Stop a replica as SIGTERM would. Raises TimeoutError if its streams keep it, and what made it fail before."""
        running = self._running.pop(number)
        if (failure := running.reader.app.lifecycle.failure) is not None:
            raise failure
        async with asyncio.timeout(STOPS_WITHIN_S):
            await running.stack.aclose()

    async def restart_one(self) -> None:
        """Stop one replica, and start it again."""
        number = self._random.randrange(REPLICAS)
        await self.stop(number)
        await self.start(number)

    async def stop_all(self) -> None:
        """Stop whatever runs."""
        for number in list(self._running):
            await self.stop(number)

    def port(self) -> int:
        """Give the port of any replica, without a proxy between; it may be stopped."""
        return self._random.choice(self._ports)

    def fate(self) -> Fate:
        """Choose how a new connection fares: whole, or cut after some bytes, late, or in silence."""
        direction = Direction()
        if not self.is_calm and self._random.random() < self._doomed:
            after = self._random.choice((self._random.randrange(400), self._random.randrange(20_000)))
            direction = Direction(cut_after_bytes=after, resets=self._random.random() < 0.5)
            direction.delay_s = self._random.choice((0.0, 0.0, 0.02))
        self._directions.append(direction)
        return Fate(("127.0.0.1", self.port()), direction)

    async def stall(self) -> None:
        """Hold back what all are told, for a moment."""
        held, self._directions = self._directions[-50:], self._directions[-50:]
        for direction in held:
            direction.hold()
        await asyncio.sleep(self._random.uniform(0.1, 0.5))
        for direction in held:
            direction.release()

    async def refuse(self) -> None:
        """Take no connections, for a moment."""
        self.proxy.refuses = True
        await asyncio.sleep(self._random.uniform(0.05, 0.3))
        self.proxy.refuses = False

    def calm_down(self) -> None:
        """Let everything go well from now on; whoever listens by a doomed connection has to come again."""
        self.is_calm = True
        self.proxy.refuses = False
        self.proxy.cut()


@asynccontextmanager
async def running_replicas(
    database: Database, random: Random, doomed: float, **settings: Any
) -> AsyncIterator[Replicas]:
    """Run replicas behind a proxy that cuts this share of connections; stopped afterwards."""
    replicas = Replicas(database, random, doomed, settings)
    async with running_proxy("127.0.0.1", 0) as proxy:
        proxy.fate = replicas.fate
        replicas.proxy = proxy
        try:
            for number in range(REPLICAS):
                await replicas.start(number)
            yield replicas
        finally:
            proxy.cut()
            await replicas.stop_all()


Revoke = Callable[[Credential], Awaitable[None]]


# What may befall, and how often beside the others.
FAULTS: Mapping[str, int] = {
    "cut": 3,
    "stall": 3,
    "refuse": 2,
    "restart": 2,
    "cut_readers": 2,
    "revoke": 3,
    "begin_epoch": 2,
    "put_back": 2,
}


class Conductor:
    """Makes one fault after the other, as the seed says."""

    def __init__(
        self, random: Random, world: FeedWorld, replicas: Replicas, revocable: list[Credential], revoke: Revoke
    ) -> None:
        self._random = random
        self._world = world
        self._replicas = replicas
        self._revocable = revocable
        self._revoke = revoke
        self._epochs = 0
        self.made: Counter[str] = Counter()

    async def run(self, steps: int, faults: Mapping[str, int]) -> None:
        """Make so many faults of these kinds, with a moment between."""
        for kind in self._random.choices(list(faults), list(faults.values()), k=steps):
            await asyncio.sleep(self._random.uniform(0.02, 0.15))
            self.made[kind] += 1
            await getattr(self, kind)()

    async def stall(self) -> None:
        """Hold back what all are told, for a moment."""
        await self._replicas.stall()

    async def refuse(self) -> None:
        """Take no connections, for a moment."""
        await self._replicas.refuse()

    async def restart(self) -> None:
        """Stop a replica, and start it again."""
        await self._replicas.restart_one()

    async def cut_readers(self) -> None:
        """Cut the replicas off from the database."""
        await self._world.cut_readers()

    async def cut(self) -> None:
        """Cut all connections through the proxy."""
        self._replicas.proxy.cut()

    async def revoke(self) -> None:
        """Revoke a credential, if there is one left that may be."""
        if self._revocable:
            await self._revoke(self._revocable.pop())

    async def begin_epoch(self) -> None:
        """Begin an epoch, the log as it is."""
        self._epochs += 1
        await self._world.begin_epoch(f"next{self._epochs}")

    async def put_back(self) -> None:
        """Put the log back to an earlier state, which is another epoch."""
        self._epochs += 1
        await self._world.begin_epoch(f"restored{self._epochs}", lost=self._random.randrange(1, 60))
