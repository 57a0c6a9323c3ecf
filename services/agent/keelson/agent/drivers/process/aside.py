"""What takes its time, of a disk or of many processes, done beside the loop."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def to_the_end(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do this in a thread, and give what it gives; when cancelled, raise that only when it is done.

    So nobody removes a folder while something is being written there, and nobody starts what is still being ended.
    """
    doing = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait((doing,))
        raise
