"""`python -m bench.queued PORT`: the plain way to stream: a queue for each client, and an encoding for each.

It makes its events itself when it is asked to, of the size of ours, and says on stdout when it made each.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from time import perf_counter, time
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from bench.world import VARIABLES

# What an event of ours has beside its payload, about.
_ENVELOPE = {"type": "env.config_set", "version": 1, "actor_type": "system", "rest": "x" * 430}


class _Queues:
    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[dict[str, Any]]] = set()
        self._making: asyncio.Task[None] | None = None

    async def stream(self) -> AsyncIterator[bytes]:
        """Give the frames of one client."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield _frame({"position": 0}, "bookmark")
            while True:
                yield _frame(await queue.get(), "event")
        finally:
            self._queues.discard(queue)

    def begin(self, rate: int, seconds: float) -> None:
        """Make so many events a second from now on, for so long."""
        self._making = asyncio.create_task(self._make(rate, seconds))

    async def _make(self, rate: int, seconds: float) -> None:
        started = perf_counter()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, started + number / rate - perf_counter()))
            event = {**_ENVELOPE, "position": number + 1, "payload": {"variables": VARIABLES}}
            os.write(1, b"%d %.6f\n" % (number + 1, time()))
            for queue in self._queues:
                queue.put_nowait(event)


def _frame(event: dict[str, Any], kind: str) -> bytes:
    return b"id: base-%d\nevent: %s\ndata: %s\n\n" % (event["position"], kind.encode(), msgspec.json.encode(event))


_QUEUES = _Queues()


async def events(_request: Request) -> Response:
    """Stream."""
    return StreamingResponse(_QUEUES.stream(), media_type="text/event-stream")


async def run(request: Request) -> Response:
    """Begin to make events."""
    _QUEUES.begin(int(request.query_params["rate"]), float(request.query_params["seconds"]))
    return Response()


APP = Starlette(routes=[Route("/v1/events", events), Route("/run", run, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(APP, port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="warning", access_log=False)
