"""Working until a signal, with an end that is the work's own: what it has started is ended by its `finally`."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def until_signal(work: Coroutine[Any, Any, None], tell: Callable[[], None]) -> signal.Signals | None:
    """Work until the end, or until SIGINT, SIGTERM or SIGHUP cancels it, whatever is being done just then; give which.

    `tell` is called when it was asked to stop; later signals change nothing.
    """
    running = asyncio.ensure_future(work)
    asked: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if not asked:
            asked.append(number)
            running.cancel()
            tell()

    for number in _ASKING:
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        await running
    except asyncio.CancelledError:
        if not asked:
            raise
    return asked[0] if asked else None
