"""Waiting on conditions, bounded; and ports nobody uses."""

import asyncio
import inspect
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, TypeVar, overload

T = TypeVar("T")

_POLL_INTERVAL_S = 0.02
_LOWEST_PORT, _HIGHEST_PORT = 15_000, 30_000
# Each session begins elsewhere, so that two side by side rarely meet.
_PORTS = count(_LOWEST_PORT + secrets.randbelow(_HIGHEST_PORT - _LOWEST_PORT))


def free_port() -> int:
    """Give a loopback port that nothing listens on, each time another.

    It lies below the range from which the kernel gives ports to outgoing connections, so that none of those takes it
    before whoever asked does.
    """
    for _ in range(1000):
        port = next(_PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError("no free port")


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
