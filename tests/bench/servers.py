"""The no-op on the server that we use and on another, at many connections, kept and new: where a tail comes from."""

import asyncio
from time import perf_counter

import msgspec

from bench.figures import Figure, percentile
from bench.load import Spec, run_load
from bench.noop import SERVERS
from bench.wire import request
from bench.world import VARIABLES, Bench, noop

PART = "servers"
CONNECTIONS = (32, 256)
BURST = 256
BURSTS = 5
_BURST_TIMEOUT_S = 30.0
_ONE_REQUEST = b"GET /v1/envs/1 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


async def measure(bench: Bench) -> list[Figure]:
    """Measure each server; all but the first beside the first."""
    measured = [await _measure(bench, server) for server in SERVERS]
    ours, *others = measured
    return [
        *ours,
        *(figure.beside(base) for figures in others for figure, base in zip(figures, ours, strict=True)),
    ]


async def _measure(bench: Bench, server: str) -> list[Figure]:
    requests = [request("POST", "/v1/commands/env.set_config", "nobody", {"variables": VARIABLES})]
    async with noop(server) as port:
        loads = [
            (await run_load(Spec([port], connections, bench.seconds, requests))).figure(
                PART, f"no-op POST on {server}, {connections} kept connections"
            )
            for connections in CONNECTIONS
        ]
        return [*loads, await _burst(port, server)]


async def _burst(port: int, server: str) -> Figure:
    """Open many connections at once, a request each: whoever finds the listen queue full waits a second."""
    latencies_s: list[float] = []
    started = perf_counter()
    async with asyncio.timeout(_BURST_TIMEOUT_S):
        for _ in range(BURSTS):
            async with asyncio.TaskGroup() as tasks:
                for _ in range(BURST):
                    tasks.create_task(_ask(port, latencies_s))
    rate = len(latencies_s) / (perf_counter() - started)
    ordered = sorted(latencies_s)
    figure = Figure(part=PART, what=f"no-op GET on {server}, {BURST} new connections at once", value=rate)
    p50_ms, p99_ms = percentile(ordered, 0.5) * 1000, percentile(ordered, 0.99) * 1000
    return msgspec.structs.replace(figure, p50_ms=p50_ms, p99_ms=p99_ms)


async def _ask(port: int, latencies_s: list[float]) -> None:
    started = perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_ONE_REQUEST)
    if not (await reader.read()).startswith(b"HTTP/1.1 200"):
        raise RuntimeError("the no-op did not answer by 200")
    latencies_s.append(perf_counter() - started)
    writer.close()
