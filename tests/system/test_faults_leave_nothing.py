"""One fault after another under load: never a 500, 503 for listed causes alone, and afterwards nothing is left of it.

Two rounds of the same faults: the first one warms up, the second one must add nothing.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from support.answers import Answers
from support.database import Cluster, running_cluster
from support.faults import FAULTS, Scene
from support.footprint import SINGLE_SESSIONS, Footprint, Sessions, read_footprints, read_sessions
from support.judging import judge, read_when_caught_up, require_claims
from support.load import Answered, Load, Request
from support.proxy import proxied
from support.stack import running_stack
from support.waiting import eventually

MIB = 1024 * 1024
# What a process may have more after the second round than after the first: allocators keep some.
ALLOWANCE_BYTES = 16 * MIB
POOL_SIZE = 4
WRITERS = 3
READERS = 2
# Between a client's requests: some forty a second of all.
PACE_S = 0.1
# A request is answered long before that, whatever happens: else its client's session raises, and the test fails.
ANSWER_TIMEOUT_S = 10.0
SETTLED_WITHIN_S = 20.0

IMPATIENT: dict[str, Any] = {
    "pool_size": POOL_SIZE,
    "acquire_timeout_s": "0.5",
    "statement_timeout_s": "0.5",
    "command_timeout_s": "1.5",
    "receive_deadline_s": "1",
    "body_deadline_s": "1",
    "cache_entries": 200,
}


@pytest.fixture(scope="module")
def doomed_cluster() -> Iterator[Cluster]:
    """Start a server of its own: this one gets stopped and frozen."""
    with running_cluster() as cluster:
        yield cluster


@dataclass
class Steady(Load):
    """A load that takes its time between requests."""

    async def _answer(self, session: aiohttp.ClientSession, request: Request, random: Any) -> Answered:
        await asyncio.sleep(PACE_S)
        return await super()._answer(session, request, random)


async def read_on(scene: Scene, stop: asyncio.Event) -> None:
    """Read what there is, again and again; the session notes the answers."""
    query, headers = scene.stack.queries[0].url, {**scene.headers, "Prefer": "wait=1"}
    paths = cycle(["/v1/orgs?limit=5", "/v1/events?limit=5", "/v1/projections", "", "/readyz"])
    for path in paths:
        if stop.is_set():
            return
        try:
            async with scene.session.get(query + (path or own_write(scene)), headers=headers) as response:
                await response.read()
        except aiohttp.ClientError as error:
            scene.answers.faults.append(f"{path}: {error!r}")
        await asyncio.sleep(PACE_S)


def own_write(scene: Scene) -> str:
    """Give the path of a row that was written last, as it must be by now."""
    for answered in reversed(scene.load.acknowledged[-20:]):
        for event in answered.content.get("events", ()):
            kind = event["aggregate_id"].partition("_")[0]
            return f"/v1/{kind}s/{event['aggregate_id']}?min_position={event['position']}"
    return "/v1/orgs"


@asynccontextmanager
async def loaded(scene: Scene, turn: int) -> AsyncIterator[None]:
    """Load the stack while the body runs; in each turn by other writers."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as clients:
        for writer in range(turn * WRITERS, (turn + 1) * WRITERS):
            clients.create_task(scene.load.write(scene.session, writer, stop))
        for _ in range(READERS):
            clients.create_task(read_on(scene, stop))
        try:
            yield
        finally:
            stop.set()


@asynccontextmanager
async def open_scene(cluster: Cluster, folder: Path) -> AsyncIterator[Scene]:
    """Start the services, each of whose connections goes through the proxy, and clients that note all answers."""
    async with cluster.fresh_database() as database, proxied(database.admin_dsn) as proxy:
        behind = replace(
            database,
            command_dsn=proxy.url(database.command_dsn),
            projector_dsn=proxy.url(database.projector_dsn),
            query_dsn=proxy.url(database.query_dsn),
        )
        async with running_stack(cluster, behind, folder, **IMPATIENT) as stack:
            ports = {urlsplit(process.url).port or 0: process.name.partition("-")[0] for process in stack}
            answers = Answers(ports)
            load = Steady([each.url for each in stack.commands], stack.operator_token, seed=1)
            async with aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S),
                connector=aiohttp.TCPConnector(limit=0, force_close=True),  # no idle one is open when files are counted
                trace_configs=[answers.trace],
            ) as session:
                yield Scene(stack, database, proxy, session, load, answers)


async def run_round(scene: Scene, turn: int) -> None:
    """Make every fault once, each healed before the next."""
    async with loaded(scene, turn):
        await scene.healed()
        for fault in FAULTS:
            try:
                await fault(scene)
                await scene.healed()
            except AssertionError as error:
                raise AssertionError(f"{fault.__name__}: {scene.answers.counts}") from error
            assert not scene.answers.faults, fault.__name__


async def settle(scene: Scene) -> dict[str, Footprint]:
    """Wait until nothing is at work and all sessions are as they should be; give what each process holds then."""
    held: list[dict[str, Footprint]] = [{}]

    async def settled() -> bool:
        await require_idle(scene)
        async with scene.admin() as admin:
            sessions = await read_sessions(admin)
            held.append(read_footprints(scene.stack, sessions))
            require_right(sessions, scene)
            assert files_of(held[-1]) == files_of(held[-2]), "they still come and go"
            return await read_sessions(admin) == sessions

    await eventually(settled, SETTLED_WITHIN_S, interval_s=0.3)
    return held[-1]


def files_of(held: dict[str, Footprint]) -> dict[str, int]:
    """Give the number of each process's open files but for sessions."""
    return {name: each.files for name, each in held.items()}


def require_right(sessions: Sessions, scene: Scene) -> None:
    """Fail unless each service has its own sessions once, a pool of its size at most, and nothing is going on."""
    assert sessions.busy == 0, sessions
    assert {name: sessions.of[name] for name in SINGLE_SESSIONS} == dict.fromkeys(SINGLE_SESSIONS, 1)
    assert all(number <= POOL_SIZE for number in sessions.of.values()), sessions
    assert len(scene.proxy.connections) == sessions.total, "a connection has one end only"


async def require_idle(scene: Scene) -> None:
    """Fail unless no request is in flight and each pool has back what it lent."""
    for process in scene.stack:
        async with aiohttp.ClientSession() as session, session.get(f"{process.url}/metrics") as response:
            metrics = dict(re.findall(r"^(keelson_\S+) (\S+)$", await response.text(), re.MULTILINE))
        service = process.name.partition("-")[0]
        assert metrics[f'keelson_http_in_flight{{service="{service}"}}'] == "1.0", "only this request for metrics"
        pool = [
            metrics[f'keelson_pool_connections{{service="{service}",state="{state}"}}'] for state in ("open", "idle")
        ]
        assert pool[0] == pool[1], metrics


@pytest.mark.timeout(240)
async def test_faults_under_load_cost_no_500_and_leave_nothing_behind(doomed_cluster: Cluster, tmp_path: Path) -> None:
    async with open_scene(doomed_cluster, tmp_path) as scene:
        before = await settle(scene)
        await run_round(scene, 0)
        first = await settle(scene)
        await run_round(scene, 1)
        second = await settle(scene)
        events, views = await read_when_caught_up(scene.database)
        judge(scene.load, events, views)
        await require_claims(scene.database, events)
    counts = dict(sorted(scene.answers.counts.items()))
    print(counts, before, first, second, sep="\n")  # noqa: T201 - what a run did is worth seeing
    assert files_of(before) == files_of(first) == files_of(second)
    for name, each in second.items():
        assert each.resident_bytes - first[name].resident_bytes < ALLOWANCE_BYTES, name
