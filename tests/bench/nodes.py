"""Nodes: what one node's change costs while many follow what they should be doing, beside how many they are."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import NamedTuple

from bench.figures import Figure
from bench.listeners import Spec, allow_files, listening
from bench.over_http import port_of
from bench.streams import GRACE_S, append_steadily, cpu_s, read_head, read_times, resident_kib
from bench.world import ANCESTORS, Bench, append_all, begin_world
from keelson.events.instance import InstanceAllocated, InstanceDesiredStateChanged, InstanceSpec
from keelson.events.node import NodeEnrolled, NodeEnrollmentCreated
from keelson.log.append import Appender
from keelson.log.decision import Decision
from support.database import Database
from support.decisions import an_event, decide, made_id
from support.log import appending, connected
from support.stack import Stack
from support.waiting import eventually

PART = "nodes"
NODES = (200, 2000)
# Changes a second, of one node after the other.
RATE = 20
TIMES = 5
INSTANCES = 4
# How long nothing happens, so that what is done all the same can be told from what a change costs.
IDLE_S = 3.0
# The server logs each statement of the query service, and of nobody else: what is counted there is all there is.
_STATEMENT = b"LOG:  execute"
_IS_PROJECTED = "SELECT min(c.position) = (SELECT h.position FROM log.head AS h) FROM ops.checkpoints AS c"

_SPEC = InstanceSpec(image="shop@sha256:" + "0" * 64, command=("serve",), cpu_millis=250, memory_bytes=2**28)


class _Node:
    """A node with some instances, each of which is let go and taken back in turn."""

    def __init__(self) -> None:
        self.node_id = made_id("node")
        self._instances = [made_id("instance") for _ in range(INSTANCES)]
        self._ids = {**ANCESTORS, "env_id": made_id("env"), "node_id": self.node_id}
        self._changes = 0

    def begin(self, epoch: str) -> Decision:
        """Decide that it has enrolled, and what it should be doing."""
        until = datetime.now(UTC) + timedelta(hours=1)
        awaited = NodeEnrollmentCreated(expires_at=until, credential_id=made_id("credential"))
        enrolled = NodeEnrolled(
            name=self.node_id, labels={}, cpu_millis=64_000, memory_bytes=2**40, credential_id=made_id("credential")
        )
        allocated = InstanceAllocated(
            process="web", release_id=made_id("release", 1), release_number=1, spec=_SPEC, spec_hash="0"
        )
        return decide(
            epoch,
            an_event(self.node_id, 1, awaited),
            an_event(self.node_id, 2, enrolled),
            *(an_event(instance_id, 1, allocated, **self._ids) for instance_id in self._instances),
        )

    def change(self, epoch: str) -> Decision:
        """Decide that one of its instances should be doing something else."""
        instance_id = self._instances[self._changes % INSTANCES]
        seq = 2 + self._changes // INSTANCES
        self._changes += 1
        state = InstanceDesiredStateChanged(desired_state="draining" if seq % 2 == 0 else "running")
        return decide(epoch, an_event(instance_id, seq, state, **self._ids))


async def measure(bench: Bench) -> list[Figure]:
    """Measure with few nodes and with many, each time from nothing."""
    allow_files(NODES[-1])
    return [figure for number in NODES for figure in await _measure(bench, number)]


async def _measure(bench: Bench, number: int) -> list[Figure]:
    nodes = [_Node() for _ in range(number)]
    paths = [f"/v1/nodes/{node.node_id}/desired" for node in nodes]
    async with _serving(bench, nodes) as (database, stack, appender, epoch):
        query = stack.queries[0]
        changes = [nodes[turn % number].change(epoch) for turn in range(int(RATE * bench.seconds * TIMES))]
        before_kib = resident_kib(query)
        async with listening(Spec(port_of(query), number, paths, stack.operator_token)) as audience:
            kib = (resident_kib(query) - before_kib) / number
            at_rest = await _spent_during(bench, stack, asyncio.sleep(IDLE_S))
            head = await read_head(database)
            spent = await _spent_during(bench, stack, _change(appender, changes))
            heard = await audience.tell(await read_times(database, head))
    if heard.events != len(changes) or heard.lost or heard.disordered:
        raise RuntimeError(f"of {len(changes)} changes the nodes heard {heard}")
    return [
        heard.figure(PART, f"{number:,} nodes, p99 from a change's commit to its node's snapshot"),
        *_costs(number, spent, at_rest, len(changes)),
        Figure(part=PART, what=f"{number:,} nodes, memory of one that waits", value=kib, unit="KiB"),
    ]


class _Spent(NamedTuple):
    """What was used in so many seconds: CPU of the query service and of the projector, and the former's statements."""

    seconds: float
    query_s: float
    projector_s: float
    statements: int


async def _spent_during(bench: Bench, stack: Stack, work: Awaitable[None]) -> _Spent:
    """Do some work; give what was used meanwhile."""
    query, projector = stack.queries[0].pid, stack.projectors[0].pid
    before = (perf_counter(), cpu_s(query), cpu_s(projector), _count_statements(bench))
    await work
    after = (perf_counter(), cpu_s(query), cpu_s(projector), _count_statements(bench))
    return _Spent(*(later - earlier for earlier, later in zip(before, after, strict=True)))  # type: ignore[arg-type]


def _count_statements(bench: Bench) -> int:
    return bench.cluster.server.log.read_bytes().count(_STATEMENT)


def _costs(number: int, spent: _Spent, at_rest: _Spent, changes: int) -> list[Figure]:
    """Give what one change costs on top of what is used all the same, and what that is."""
    as_long = spent.seconds / at_rest.seconds
    query_us = (spent.query_s - at_rest.query_s * as_long) * 1e6 / changes
    projector_us = (spent.projector_s - at_rest.projector_s * as_long) * 1e6 / changes
    statements = (spent.statements - at_rest.statements * as_long) / changes
    resting = at_rest.query_s * 1000 / at_rest.seconds
    return [
        Figure(part=PART, what=f"{number:,} nodes, CPU of a change, query", value=query_us, unit="us"),
        Figure(part=PART, what=f"{number:,} nodes, CPU of a change, projector", value=projector_us, unit="us"),
        Figure(part=PART, what=f"{number:,} nodes, statements of a change, query", value=statements, unit=""),
        Figure(part=PART, what=f"{number:,} nodes, CPU while nothing changes, query", value=resting, unit="ms/s"),
    ]


async def _change(appender: Appender, changes: Sequence[Decision]) -> None:
    await append_steadily(appender, changes, RATE)
    await asyncio.sleep(GRACE_S)


@asynccontextmanager
async def _serving(bench: Bench, nodes: Sequence[_Node]) -> AsyncIterator[tuple[Database, Stack, Appender, str]]:
    """Run services that have projected all nodes, the query service's statements being logged."""
    async with bench.cluster.fresh_database() as database:
        async with connected(database.admin_dsn) as connection:
            await connection.execute(f"ALTER ROLE keelson_query IN DATABASE {database.name} SET log_statement = 'all'")
        async with (
            bench.stack(database, commands=0, feed_max_streams=10_000) as stack,
            appending(database.command_dsn) as (appender, epoch),
        ):
            await begin_world(appender, epoch)
            await append_all(appender, [node.begin(epoch) for node in nodes])
            await eventually(lambda: _is_projected(database), 60.0)
            yield database, stack, appender, epoch


async def _is_projected(database: Database) -> bool:
    async with connected(database.owner_dsn) as connection:
        return bool(await connection.fetchval(_IS_PROJECTED))
