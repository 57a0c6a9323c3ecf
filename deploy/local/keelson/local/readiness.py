"""Waiting until children are ready, all at the same time, within a bound."""

import asyncio
import time
from collections.abc import Sequence

from keelson.local.child import Child
from keelson.local.errors import LocalError
from keelson.local.keeper import Say

_WITHIN_S = 90.0
_POLL_INTERVAL_S = 0.1
# What ends so often before it was ever ready will not get there.
_HOPELESS_STARTS = 5


async def wait_until_ready(children: Sequence[Child], say: Say) -> None:
    """Return when each was ready once, and tell so of each. Raises a group of LocalErrors of who does not get there."""
    deadline = time.monotonic() + _WITHIN_S
    async with asyncio.TaskGroup() as group:
        for child in children:
            group.create_task(_wait_for(child, deadline, say))


async def _wait_for(child: Child, deadline: float, say: Say) -> None:
    while (unreadiness := await child.read_unreadiness()) is not None:
        if child.starts >= _HOPELESS_STARTS or time.monotonic() > deadline:
            raise LocalError(f"{child.name} does not get ready: {unreadiness}; see {child.log}")
        await asyncio.sleep(_POLL_INTERVAL_S)
    say(child.name, f"ready {child.whereabouts}")
