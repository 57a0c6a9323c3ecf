"""The guard of streams: what is doubted is settled by what was asked after it, at the cost of few questions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from keelson.access import Grants, Identity
from keelson.events import Actor, Envelope
from keelson.events.ids import AggregateId, Position, Seq
from keelson.query.feed import guard as guarding_module
from keelson.query.feed.guard import Guard
from keelson.service.credentials import Caller, UnauthenticatedError

HOLDER = AggregateId("principal_" + "0" * 26)
IDENTITY = Identity(Actor("principal", HOLDER), "principal", "credential_1", HOLDER)
CALLER = Caller(IDENTITY, Grants(org_id="org_1"), b"hash")
REVOCATION = Envelope(
    position=Position(9),
    aggregate_id=HOLDER,
    seq=Seq(3),
    type="principal.credential_revoked",
    version=1,
    actor_type="system",
    actor_id="operator",
    request_id="request",
    command_id="command",
    command_end=True,
    recorded_at=datetime(2026, 1, 1, tzinfo=UTC),
    payload="{}",
)


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


@asynccontextmanager
async def guarding(vault: Vault) -> AsyncIterator[Guard]:
    """Run a guard that asks this vault."""
    guard = Guard(cast("Any", vault))
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(guard.run())
        yield guard
        running.cancel()


async def test_many_who_come_at_once_are_asked_about_by_one_question_and_one_more() -> None:
    """Who comes while a question is under way is settled by the next one, which is asked once for all of them (F32)."""
    vault = Vault()
    async with guarding(vault) as guard, AsyncExitStack() as stack:
        watches = [stack.enter_context(guard.watching(CALLER, lambda: None)) for _ in range(500)]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(guard.confirm(watches[0]))
            await _until(lambda: len(vault.asked) == 1)
            for watch in watches[1:]:
                tasks.create_task(guard.confirm(watch))
            await asyncio.sleep(0)
            vault.asked[0].set_result(CALLER)
            await _until(lambda: len(vault.asked) == 2)
            assert all(watch.is_doubted for watch in watches)
            vault.asked[1].set_result(CALLER)
        assert not any(watch.is_doubted or watch.is_over for watch in watches)
        assert len(vault.asked) == 2


async def test_a_doubt_is_not_settled_by_what_was_asked_before_it() -> None:
    vault = Vault()
    async with guarding(vault) as guard:
        with guard.watching(CALLER, lambda: None) as watch:
            confirming = asyncio.create_task(guard.confirm(watch))
            await _until(lambda: len(vault.asked) == 1)
            guard.look_closely(REVOCATION)
            vault.asked[0].set_result(CALLER)
            await _until(lambda: len(vault.asked) == 2)
            assert watch.is_doubted
            assert not confirming.done()
            vault.asked[1].set_result(None)
            with pytest.raises(UnauthenticatedError):
                await confirming
            assert watch.is_over


async def test_a_doubt_ends_the_streams_in_time_whatever_was_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding_module, "MAX_DOUBT_S", 0.2)
    vault = Vault()
    loop = asyncio.get_running_loop()
    async with guarding(vault) as guard:
        with guard.watching(CALLER, lambda: None) as watch:
            began = loop.time()
            guard.look_closely(REVOCATION)
            await _until(lambda: watch.is_over)
            assert watch.verdict == "unknown"
            assert 0.2 <= loop.time() - began < 2.0
