"""Waiting on conditions, bounded; and ports nobody uses."""

import asyncio
import inspect
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

_POLL_INTERVAL_S = 0.02


def free_port() -> int:
    """Give a loopback port that nothing listens on. Another process may take it in between: rare, and then loud."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@overload
async def eventually(
    condition: Callable[[], Awaitable[T]], timeout_s: float = 10.0, *, interval_s: float = _POLL_INTERVAL_S
) -> T: ...
@overload
async def eventually(
    condition: Callable[[], T], timeout_s: float = 10.0, *, interval_s: float = _POLL_INTERVAL_S
) -> T: ...
async def eventually(
    condition: Callable[[], Any], timeout_s: float = 10.0, *, interval_s: float = _POLL_INTERVAL_S
) -> Any:
    """Ask until the answer is truthy and return it; fail with the last answer after `timeout_s` seconds.

    A condition that raises AssertionError or an OSError (a service that is not up yet) is asked again as well; what
    it raised last is then the failure.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        failure: Exception | None = None
        answer = None
        try:
            answered = condition()
            answer = await answered if inspect.isawaitable(answered) else answered
        except (AssertionError, OSError) as error:
            failure = error
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s; the last answer was {answer!r}") from failure
        await asyncio.sleep(interval_s)
