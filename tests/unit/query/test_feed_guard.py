"""The guard of streams: what is doubted is settled by what was asked after it, at the cost of few questions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest

from keelson.access import Grants, Identity
from keelson.events import Actor, Envelope
from keelson.events.ids import AggregateId, Position, Seq
from keelson.query.feed import guard as guarding_module
from keelson.query.feed import metrics
from keelson.query.feed.guard import QUESTIONS, Guard
from keelson.query.feed.watches import Watch
from keelson.service.credentials import Caller, UnauthenticatedError
from keelson.service.problems import Problem

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
        self.ends_at: float | None = None

    async def ask(self, _token_hash: bytes) -> Caller | None:
        """Wait for the answer."""
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]

    def seconds_left(self, _caller: Caller) -> float | None:
        """Give none, if it never expires."""
        return None if self.ends_at is None else self.ends_at - asyncio.get_running_loop().time()


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
            first = tasks.create_task(guard.confirm(watches[0]))
            await _until(lambda: len(vault.asked) == 1)
            others = [tasks.create_task(guard.confirm(watch)) for watch in watches[1:]]
            await asyncio.sleep(0)
            vault.asked[0].set_result(CALLER)
            await _until(lambda: len(vault.asked) == 2)
            assert first.done()
            assert not any(other.done() for other in others)
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


def of_another(number: int) -> Caller:
    """Give the caller of another credential of the same principal."""
    return msgspec.structs.replace(CALLER, token_hash=f"hash {number}".encode())


@asynccontextmanager
async def opened(vault: Vault, guard: Guard, caller: Caller = CALLER) -> AsyncIterator[Watch]:
    """Lend the watch of a stream that was let begin."""
    with guard.watching(caller, lambda: None) as watch:
        confirming = asyncio.create_task(guard.confirm(watch))
        before = len(vault.asked)
        await _until(lambda: len(vault.asked) > before)
        vault.asked[-1].set_result(caller)
        await confirming
        yield watch


async def test_who_connects_holds_back_nobody_else() -> None:
    vault = Vault()
    async with guarding(vault) as guard, opened(vault, guard) as watch:
        with guard.watching(CALLER, lambda: None) as coming:
            confirming = asyncio.create_task(guard.confirm(coming))
            await _until(lambda: len(vault.asked) == 2)
            assert not watch.is_doubted
            assert await watch.settled()
            vault.asked[1].set_result(CALLER)
            await confirming


async def test_f32_who_connects_while_nobody_answers_is_refused_and_ends_no_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The database is away: nothing says that those who are told things already may not be."""
    monkeypatch.setattr(guarding_module, "MAX_DOUBT_S", 0.01)
    vault, before = Vault(), metrics.REFUSED_LATE._value.get()
    async with guarding(vault) as guard, opened(vault, guard) as watch:
        hints = set()
        for _ in range(20):
            with guard.watching(CALLER, lambda: None) as coming, pytest.raises(Problem) as refusal:
                await guard.confirm(coming)
            assert (refusal.value.code, coming.verdict) == ("unavailable", "unknown")
            hints.add(int(refusal.value.headers["Retry-After"]))
        assert not watch.is_over
        assert not watch.is_doubted
    assert len(hints) > 2
    assert all(1 <= each <= 10 for each in hints)
    assert metrics.REFUSED_LATE._value.get() == before + 20


async def test_f32_those_who_come_at_once_while_nobody_answers_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guarding_module, "MAX_DOUBT_S", 0.05)
    vault = Vault()
    async with guarding(vault) as guard, AsyncExitStack() as stack:
        watches = [stack.enter_context(guard.watching(CALLER, lambda: None)) for _ in range(200)]
        await asyncio.gather(*(guard.confirm(watch) for watch in watches), return_exceptions=True)
        assert all(watch.verdict == "unknown" for watch in watches)
        assert len(vault.asked) == 2


async def test_f32_a_herd_of_different_credentials_has_one_turn_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of their questions together take longer than one may; each has its own time."""
    monkeypatch.setattr(guarding_module, "MAX_DOUBT_S", 0.6)
    herd = [of_another(number) for number in range(6 * QUESTIONS)]
    vault = Vault()

    async def ask(token_hash: bytes) -> Caller:
        await asyncio.sleep(0.15)
        return msgspec.structs.replace(CALLER, token_hash=token_hash)

    monkeypatch.setattr(vault, "ask", ask)
    async with guarding(vault) as guard, AsyncExitStack() as stack:
        watches = [stack.enter_context(guard.watching(each, lambda: None)) for each in herd]
        await asyncio.gather(*(guard.confirm(watch) for watch in watches))
        assert not any(watch.is_over for watch in watches)


async def test_f32_nobody_waits_for_a_turn_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding_module, "MAX_CONFIRMING_S", 0.05)
    vault = Vault()
    async with guarding(vault) as guard, AsyncExitStack() as stack:
        herd = [stack.enter_context(guard.watching(of_another(n), lambda: None)) for n in range(2 * QUESTIONS)]
        refusals = await asyncio.gather(*(guard.confirm(watch) for watch in herd), return_exceptions=True)
        assert {type(each) for each in refusals} == {Problem}


async def test_f34_a_doubt_does_not_wait_for_those_who_connect() -> None:
    vault = Vault()
    async with guarding(vault) as guard, opened(vault, guard) as watch, AsyncExitStack() as stack:
        coming = [stack.enter_context(guard.watching(of_another(n), lambda: None)) for n in range(2 * QUESTIONS)]
        confirming = [asyncio.create_task(guard.confirm(each)) for each in coming]
        await _until(lambda: len(vault.asked) == 1 + QUESTIONS)
        guard._doubt(watch.credential)  # type: ignore[arg-type]  # what has a token has a credential
        await _until(lambda: len(vault.asked) == 2 + QUESTIONS)
        vault.asked[-1].set_result(None)
        await _until(lambda: watch.verdict == "revoked")
        for each in confirming:
            each.cancel()
        await asyncio.gather(*confirming, return_exceptions=True)


async def test_what_is_doubted_later_holds_back_nobody_who_has_read_before() -> None:
    """Else a stream whose holder changes all the time would never be told anything."""
    vault = Vault()
    async with guarding(vault) as guard, opened(vault, guard) as watch:
        guard.look_closely(REVOCATION)
        settled = asyncio.create_task(watch.settled())
        await _until(lambda: len(vault.asked) == 2)
        guard.look_closely(REVOCATION)
        vault.asked[1].set_result(CALLER)
        assert await settled
        assert watch.is_doubted
        await _until(lambda: len(vault.asked) == 3)
        vault.asked[2].set_result(CALLER)
        await _until(lambda: not watch.is_doubted)


async def test_a_doubt_that_somebody_elses_question_settled_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own is never answered, and what was asked for one who connected after it was."""
    monkeypatch.setattr(guarding_module, "MAX_DOUBT_S", 0.2)
    vault = Vault()
    async with guarding(vault) as guard, opened(vault, guard) as watch:
        guard.look_closely(REVOCATION)
        await _until(lambda: len(vault.asked) == 2)
        async with opened(vault, guard):
            assert not watch.is_doubted
            credential = watch.credential
            assert credential is not None
            await _until(lambda: not credential.is_being_settled)
            assert not watch.is_over


async def test_f34_an_end_that_is_far_away_is_asked_about_when_it_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further than a timer is set for: it is not asked about before, and then it is."""
    monkeypatch.setattr(guarding_module, "LONGEST_TIMER_S", 0.05)
    vault, loop = Vault(), asyncio.get_running_loop()
    vault.ends_at = loop.time() + 0.3
    async with guarding(vault) as guard:
        with guard.watching(CALLER, lambda: None) as watch:
            await _until(lambda: len(vault.asked) == 1)
            assert loop.time() >= vault.ends_at
            vault.asked[0].set_result(None)
            await _until(lambda: watch.is_over)
