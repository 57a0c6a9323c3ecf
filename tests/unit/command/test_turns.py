"""Turns: one after another per name, fair, without deadlock, and leaving nothing behind."""

import asyncio

import pytest

from keelson.command.turns import Turns


async def test_holders_of_one_name_go_one_after_another_in_order() -> None:
    turns = Turns()
    log: list[str] = []

    async def hold(who: str) -> None:
        async with turns.of({"a"}):
            log.append(f"{who} in")
            await asyncio.sleep(0)
            log.append(f"{who} out")

    await asyncio.gather(*map(hold, "123"))
    assert log == ["1 in", "1 out", "2 in", "2 out", "3 in", "3 out"]


async def test_holders_of_other_names_do_not_wait() -> None:
    turns = Turns()
    async with turns.of({"a"}), asyncio.timeout(1), turns.of({"b"}):
        pass


async def test_names_taken_in_any_order_do_not_deadlock() -> None:
    turns = Turns()

    async def hold(*names: str) -> None:
        for _ in range(20):
            async with turns.of(names):
                await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await asyncio.gather(hold("a", "b"), hold("b", "a"), hold("b", "c"), hold("c", "a"))
    assert not turns._locks


async def test_whoever_stops_waiting_leaves_nothing_behind() -> None:
    turns = Turns()
    async with turns.of({"b"}):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), turns.of({"a", "b"}):
                pass
        async with asyncio.timeout(5), turns.of({"a"}):
            pass
    async with asyncio.timeout(5), turns.of({"a", "b"}):
        pass
