"""The guard of streams: answers may overtake one another, and nobody waits for one that has come."""

import asyncio
from typing import Any

from keelson.access import Grants, Identity
from keelson.events import Actor
from keelson.events.ids import AggregateId
from keelson.query.feed.guard import Guard
from keelson.service.credentials import Caller

HOLDER = AggregateId("principal_" + "0" * 26)
IDENTITY = Identity(Actor("principal", HOLDER), "principal", "credential_1", HOLDER)
CALLER = Caller(IDENTITY, Grants(org_id="org_1"), b"hash")


class Vault:
    """Answers questions about credentials when it is told to, in any order."""

    def __init__(self) -> None:
        self.credentials = self
        self.asked: list[asyncio.Future[Caller | None]] = []

    async def ask(self, _token_hash: bytes) -> Caller | None:
        """Wait for the answer."""
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]

    def seconds_left(self, _caller: Caller) -> float | None:
        """Give none: it never expires."""
        return None


async def _until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - this is what lets the others run
            await asyncio.sleep(0)


async def test_an_answer_that_is_overtaken_leaves_nobody_in_doubt() -> None:
    vault: Any = Vault()
    guard = Guard(vault)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(guard.run())
        with guard.watching(CALLER, lambda: None) as first, guard.watching(CALLER, lambda: None) as second:
            confirmed = [tasks.create_task(guard.confirm(first))]
            await _until(lambda: len(vault.asked) == 1)
            confirmed.append(tasks.create_task(guard.confirm(second)))
            await _until(lambda: len(vault.asked) == 2)
            vault.asked[1].set_result(CALLER)
            await _until(lambda: not second.is_doubted)
            vault.asked[0].set_result(CALLER)
            async with asyncio.timeout(5):
                await asyncio.gather(*confirmed)
            assert not first.is_doubted
            await asyncio.sleep(0)
            assert await first.settled()
            assert await second.settled()
        running.cancel()
