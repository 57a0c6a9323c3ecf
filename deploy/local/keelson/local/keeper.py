"""Keeping processes alive: what dies is started again, with back-off, until it is to stop."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from keelson.local.errors import LocalError
from keelson.local.process import Identity

_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 10.0
# Whoever lived so long starts again with the first back-off.
_PROVEN_AFTER_S = 30.0

Say = Callable[[str, str], None]
Note = Callable[[str, Identity | None], None]


class Keepable(Protocol):
    """A process that can be started, waited for and stopped; each any number of times."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def identity(self) -> Identity | None:
        """Which process it is while it runs."""

    async def start(self) -> None:
        """Start it; raises LocalError if that fails."""

    async def wait(self) -> str:
        """Wait until it has ended; tell how, in words."""

    async def stop(self) -> None:
        """Stop it, bounded, by force if need be; safe when it does not run."""


@asynccontextmanager
async def kept_alive(keepables: Sequence[Keepable], say: Say, note: Note) -> AsyncIterator[None]:
    """Start all, start again what dies while the block runs, and stop all when it ends, at the same time.

    `say(name, line)` is told what happens; `note(name, identity)` which process runs under a name. What cannot be
    started the first time is an ExceptionGroup of LocalErrors.
    """
    async with asyncio.TaskGroup() as group:
        tasks = []
        for keepable in keepables:
            started = asyncio.Event()
            tasks.append(group.create_task(_keep(keepable, started, say, note)))
            await started.wait()
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _keep(keepable: Keepable, started: asyncio.Event, say: Say, note: Note) -> None:
    try:
        await _start(keepable, note)
        started.set()
        await _keep_started(keepable, say, note)
    finally:
        await keepable.stop()
        note(keepable.name, None)


async def _keep_started(keepable: Keepable, say: Say, note: Note) -> None:
    backoff_s = _FIRST_BACKOFF_S
    while True:
        started_at = time.monotonic()
        how = await keepable.wait()
        if time.monotonic() - started_at > _PROVEN_AFTER_S:
            backoff_s = _FIRST_BACKOFF_S
        say(keepable.name, f"{how}; starting it again in {backoff_s:g} s")
        await asyncio.sleep(backoff_s)
        backoff_s = min(backoff_s * 2, _LONGEST_BACKOFF_S)
        await _start_again(keepable, say, note)


async def _start_again(keepable: Keepable, say: Say, note: Note) -> None:
    try:
        await _start(keepable, note)
        say(keepable.name, "started again")
    except LocalError as error:
        say(keepable.name, str(error))


async def _start(keepable: Keepable, note: Note) -> None:
    await keepable.start()
    note(keepable.name, keepable.identity)
