"""`python -m bench.load`: a load in a process of its own; what to send comes in on stdin, what came of it goes out.

A closed loop: each connection sends its next request when it has the answer to the one before.
"""

import asyncio
import gc
import os
import sys
from collections import Counter
from time import perf_counter

import msgspec
import uvloop

from bench.figures import Figure, percentile
from bench.wire import Wire, connect, split

WARM_UP_S = 0.5
# What a service may answer under a load that it cannot carry, or to one who lost too many races; counted, as nothing
# else is.
UNAVAILABLE, CONFLICT = "503", "409"
_PATIENCE_S = 30.0


class Spec(msgspec.Struct, frozen=True):
    """What to send: connection n sends request n, again and again, to port n, both counted around."""

    ports: list[int]
    connections: int
    seconds: float
    requests: list[str]


class Result(msgspec.Struct, frozen=True):
    """What came of it: answers after the warm-up, and answers of any other status than 200 at any time."""

    count: int
    seconds: float
    p50_ms: float
    p99_ms: float
    others: dict[str, int]

    def figure(self, part: str, what: str) -> Figure:
        """Give the rate with its latencies."""
        return Figure(
            part=part,
            what=what,
            value=self.count / self.seconds,
            p50_ms=self.p50_ms,
            p99_ms=self.p99_ms,
            unavailable=self.others.get(UNAVAILABLE, 0),
            conflicts=self.others.get(CONFLICT, 0),
        )


class _Load:
    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._requests: dict[Wire, list[bytes]] = {}
        self._latencies: list[float] = []
        self._others: Counter[str] = Counter()
        self._began_at = self._ends_at = 0.0
        self._under_way = 0
        self._done = asyncio.Event()

    async def run(self) -> Result:
        spec = self._spec
        requests = [split(text) for text in spec.requests]
        for number in range(spec.connections):
            wire = await connect(spec.ports[number % len(spec.ports)], self._answered)
            self._requests[wire] = requests[number % len(requests)]
        gc.freeze()
        self._began_at = perf_counter() + WARM_UP_S
        self._ends_at = self._began_at + spec.seconds
        for wire, parts in self._requests.items():
            self._under_way += 1
            wire.send(parts)
        async with asyncio.timeout(spec.seconds + _PATIENCE_S):
            await self._done.wait()
        for wire in self._requests:
            wire.close()
        return self._result()

    def _answered(self, wire: Wire, status: int, _body: bytes) -> None:
        now = perf_counter()
        if status != 200:
            self._others[str(status)] += 1
        elif self._began_at <= now <= self._ends_at:
            self._latencies.append(now - wire.sent_at)
        if status and now < self._ends_at:
            wire.send(self._requests[wire])
            return
        self._under_way -= 1
        if not self._under_way:
            self._done.set()

    def _result(self) -> Result:
        ordered = sorted(self._latencies) or [0.0]
        return Result(
            count=len(self._latencies),
            seconds=self._spec.seconds,
            p50_ms=percentile(ordered, 0.5) * 1000,
            p99_ms=percentile(ordered, 0.99) * 1000,
            others=dict(self._others),
        )


async def run_load(spec: Spec) -> Result:
    """Run a load in a process of its own. Raises RuntimeError for answers of any other status than 200, 503 and 409."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(spec.seconds + 2 * _PATIENCE_S):
            answer, _ = await process.communicate(msgspec.json.encode(spec))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"the load ended with {process.returncode}")
    result = msgspec.json.decode(answer, type=Result)
    if result.others.keys() - {UNAVAILABLE, CONFLICT} or not result.count:
        raise RuntimeError(
            f"{result.count} answers of 200, and others: {result.others}; sent {spec.requests[0][:60]!r}"
        )
    return result


if __name__ == "__main__":
    given = msgspec.json.decode(sys.stdin.buffer.read(), type=Spec)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        os.write(1, msgspec.json.encode(runner.run(_Load(given).run())))
