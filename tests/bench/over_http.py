"""Commands and reads over HTTP, by connections that are kept, beside what does nothing on the same server."""

from bench.figures import Figure
from bench.load import Spec, run_load
from bench.wire import request
from bench.world import Bench, create_envs, noop, set_config
from keelson.local.child import Child
from support.stack import Stack

PART = "http"
READS = "reads"
CONNECTIONS = (1, 32, 256)
LEAST_OF_NOOP_POST = 0.55
LEAST_OF_NOOP_GET = 0.35


def port_of(child: Child) -> int:
    """Give the port that a service listens on."""
    return int(child.environ["KEELSON_PORT"])


async def measure_commands(bench: Bench) -> list[Figure]:
    """Measure commands with one and with two replicas, each connection on an environment of its own."""
    figures: list[Figure] = []
    async with bench.cluster.fresh_database() as database, bench.stack(database, commands=2) as stack, noop() as idle:
        envs = await create_envs(stack, CONNECTIONS[-1])
        for connections in CONNECTIONS:
            figures += await _measure_commands(bench, stack, idle, envs[:connections])
    return figures


async def _measure_commands(bench: Bench, stack: Stack, idle: int, envs: list[str]) -> list[Figure]:
    connections = len(envs)
    ports = [port_of(child) for child in stack.commands]
    plain = [set_config(stack, env_id) for env_id in envs]
    keyed = [set_config(stack, env_id, key=True) for env_id in envs]
    least = LEAST_OF_NOOP_POST if connections == 32 else None
    base = await _load(Spec([idle], connections, bench.seconds, plain), PART, "no-op POST")
    one = await _load(Spec(ports[:1], connections, bench.seconds, plain), PART, "command")
    with_key = await _load(Spec(ports[:1], connections, bench.seconds, keyed), PART, "command with a key")
    figures = [base, one.beside(base, least), with_key.beside(base, least)]
    if connections > 1:
        two = await _load(Spec(ports, connections, bench.seconds, plain), PART, "command, two replicas")
        figures.append(two.beside(base))
    return figures


async def measure_reads(bench: Bench) -> list[Figure]:
    """Measure reads of single rows, of list pages and of pages of the log."""
    figures: list[Figure] = []
    async with bench.cluster.fresh_database() as database, bench.stack(database) as stack, noop() as idle:
        envs = await create_envs(stack, CONNECTIONS[-1])
        for connections in CONNECTIONS[:2]:
            figures += await _measure_reads(bench, stack, idle, envs[:connections])
    return figures


async def _measure_reads(bench: Bench, stack: Stack, idle: int, envs: list[str]) -> list[Figure]:
    async def read(port: int, what: str, *paths: str) -> Figure:
        requests = [request("GET", path, stack.operator_token) for path in paths]
        return await _load(Spec([port], len(envs), bench.seconds, requests), READS, what)

    query = port_of(stack.queries[0])
    base = await read(idle, "no-op GET", "/v1/envs/1")
    row = await read(query, "single row", *(f"/v1/envs/{env_id}" for env_id in envs))
    rows = await read(query, "list page of 100", "/v1/envs?limit=100")
    events = await read(query, "page of 100 events", "/v1/events?after=100&limit=100")
    return [
        base,
        row.beside(base, LEAST_OF_NOOP_GET if len(envs) == 32 else None),
        rows.beside(base),
        events.beside(base),
    ]


async def _load(spec: Spec, part: str, what: str) -> Figure:
    connections = f"{spec.connections} connection{'s' if spec.connections > 1 else ''}"
    return (await run_load(spec)).figure(part, f"{what}, {connections}")
