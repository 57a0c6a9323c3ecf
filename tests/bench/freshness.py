"""From a command's answer to its row in the view, at a steady rate that nobody waits for (an open loop)."""

import asyncio
from collections import deque
from time import perf_counter

import asyncpg
import msgspec

from bench.figures import Figure, percentile
from bench.over_http import port_of
from bench.wire import Wire, connect, split
from bench.world import Bench, create_envs, set_config
from keelson.service.checkpoints import CHANNEL
from support.log import connected
from support.stack import Stack
from support.waiting import eventually

PART = "view"
RATES = (100, 500)
MOST_P99_MS = 25.0
PROJECTION = "platform"
_WIRES = 64


class _Answer(msgspec.Struct):
    position: int


class _Watch:
    """Sends on time, and notes when each answer came and when its position was announced as being in the view."""

    def __init__(self, requests: list[list[bytes]]) -> None:
        self._requests = requests
        self._sent = 0
        self._due: deque[float] = deque()
        self._due_of: dict[Wire, float] = {}
        self._idle: deque[Wire] = deque()
        self._announced = 0
        self._waiting: dict[int, float] = {}
        self.failures = 0
        self.answers_s: list[float] = []
        self.lags_s: list[float] = []

    async def run(self, port: int, rate: int, seconds: float) -> None:
        """Send so many a second for so long, and wait for the last to be in the view."""
        wires = [await connect(port, self._answered, keep_bodies=True) for _ in range(_WIRES)]
        self._idle.extend(wires)
        started = perf_counter()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, started + number / rate - perf_counter()))
            self._due.append(started + number / rate)
            self._send()
        await eventually(lambda: not (self._due or self._waiting) and len(self._idle) == _WIRES)
        for wire in wires:
            wire.close()

    def hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        """Take what the projector announced: a projection and its position."""
        name, _, position = str(payload).partition(" ")
        if name != PROJECTION:
            return
        now, self._announced = perf_counter(), max(self._announced, int(position))
        for reached in [each for each in self._waiting if each <= self._announced]:
            self.lags_s.append(now - self._waiting.pop(reached))

    def _send(self) -> None:
        while self._due and self._idle:
            wire = self._idle.popleft()
            self._due_of[wire] = self._due.popleft()
            wire.send(self._requests[self._sent % len(self._requests)])
            self._sent += 1

    def _answered(self, wire: Wire, status: int, body: bytes) -> None:
        now = perf_counter()
        self.answers_s.append(now - self._due_of[wire])
        if status != 200:
            self.failures += 1
        else:
            position = msgspec.json.decode(body, type=_Answer).position
            if position <= self._announced:
                self.lags_s.append(0.0)
            else:
                self._waiting[position] = now
        self._idle.append(wire)
        self._send()


async def measure(bench: Bench) -> list[Figure]:
    """Measure at each rate, on one stack."""
    figures: list[Figure] = []
    async with bench.cluster.fresh_database() as database, bench.stack(database) as stack:
        envs = await create_envs(stack, 256)
        async with connected(database.query_dsn) as connection:
            for rate in RATES:
                figures += await _measure(bench, stack, envs, rate, connection)
    return figures


async def _measure(
    bench: Bench, stack: Stack, envs: list[str], rate: int, connection: "asyncpg.Connection[asyncpg.Record]"
) -> list[Figure]:
    watch = _Watch([split(set_config(stack, env_id)) for env_id in envs])
    await connection.add_listener(CHANNEL, watch.hear)
    try:
        await watch.run(port_of(stack.commands[0]), rate, bench.seconds)
    finally:
        await connection.remove_listener(CHANNEL, watch.hear)
    if watch.failures:
        raise RuntimeError(f"{watch.failures} commands were not answered by 200")
    answers, lags = sorted(watch.answers_s), sorted(watch.lags_s)
    most = MOST_P99_MS if rate == RATES[-1] else None
    return [
        _figure(f"answer to a command, {rate}/s", answers, None),
        _figure(f"from the answer to the row, {rate}/s", lags, most),
    ]


def _figure(what: str, ordered: list[float], most: float | None) -> Figure:
    p50_ms, p99_ms = percentile(ordered, 0.5) * 1000, percentile(ordered, 0.99) * 1000
    return Figure(part=PART, what=f"{what}, p99", value=p99_ms, unit="ms", p50_ms=p50_ms, p99_ms=p99_ms, most=most)
