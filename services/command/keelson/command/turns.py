"""Turns: decisions of this process on one aggregate go one after another, instead of refusing each other at the append.

Nothing depends on it but speed; between replicas the read set alone decides.
"""

import asyncio
from collections.abc import Collection, Iterable
from types import TracebackType
from weakref import WeakValueDictionary


class Turns:
    """A fair lock per name, kept only while somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, names: Collection[str]) -> "Turn":
        """Hold all names, as a context; taken in sorted order, so that two holders never wait for each other."""
        return Turn([self._lock(name) for name in sorted(names)])

    def _lock(self, name: str) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock


class Turn:
    """Some locks, held together. A class: generators that do the same cost each command a twentieth more."""

    __slots__ = ("_locks",)

    def __init__(self, locks: list[asyncio.Lock]) -> None:
        self._locks = locks

    async def __aenter__(self) -> None:
        """Wait for all of them; hold none if that is given up."""
        for index, lock in enumerate(self._locks):
            try:
                await lock.acquire()
            except BaseException:
                _release(self._locks[:index])
                raise

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Let go of all of them."""
        _release(self._locks)


def _release(locks: Iterable[asyncio.Lock]) -> None:
    for lock in locks:
        lock.release()
