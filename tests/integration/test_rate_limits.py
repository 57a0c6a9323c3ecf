"""One noisy tenant: it is held to its rate before there is work for the database, and the others keep theirs (F45)."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from statistics import median
from time import perf_counter

import pytest

from keelson.access import Grants, Identity
from keelson.events import Actor
from keelson.service.credentials import Caller
from support.command_world import CALLERS, Replica, World, open_world
from support.database import Database
from support.waiting import eventually

PER_S = 10
# More than a quiet tenant sends here.
BURST = 60
REQUESTS = 50
QUIET = ("first", "alone", "beside")
NOISY_CALLERS = 4

# Everything runs in one process, the tenants too: what one of them costs the others in CPU is in these figures.
FAR_BEYOND = 10.0


@pytest.fixture(autouse=True)
def tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("noisy", *QUIET):
        # They may send everything, as far as handlers know, and are limited like tenants all the same.
        caller = Caller(Identity(Actor("user", f"member_{name}"), "operator"), Grants())
        monkeypatch.setitem(CALLERS, name, caller)


async def latency_ms(replica: Replica, tenant: str, org_id: str) -> float:
    """Let a tenant rename its organisation one time after another; give the median of how long that takes."""
    took = []
    for number in range(REQUESTS):
        started = perf_counter()
        answer = await replica.command("org.rename", token=tenant, org_id=org_id, name=f"{tenant}-{number}")
        took.append(perf_counter() - started)
        assert answer.status == 200
    return median(took) * 1000


async def be_noisy(world: World, org_id: str, heard: Counter[int], stop: asyncio.Event) -> None:
    """Rename an organisation at full speed, until told to stop; count the statuses of the answers."""

    async def call(caller: int) -> None:
        while not stop.is_set():
            name = f"noisy-{caller}-{heard.total()}"
            answer = await world.replica.command("org.rename", token="noisy", org_id=org_id, name=name)
            heard[answer.status] += 1
            if answer.status == 429:
                assert int(answer.headers["Retry-After"]) >= 1

    async with asyncio.timeout(30):
        await asyncio.gather(*(call(caller) for caller in range(NOISY_CALLERS)))


async def test_f45_beside_a_noisy_tenant_the_others_keep_their_latency(database: Database) -> None:
    heard: Counter[int] = Counter()
    stop = asyncio.Event()
    async with open_world(database, rate_limit_per_s=PER_S, rate_burst=BURST) as world:
        orgs = {tenant: await world.create_org() for tenant in ("noisy", *QUIET)}
        await latency_ms(world.replica, "first", orgs["first"])  # connections, plans
        alone_ms = await latency_ms(world.replica, "alone", orgs["alone"])
        started = perf_counter()
        noise = asyncio.create_task(be_noisy(world, orgs["noisy"], heard, stop))
        await eventually(lambda: heard[429] > 0)
        beside_ms = await latency_ms(world.replica, "beside", orgs["beside"])
        stop.set()
        await noise
    took_s = perf_counter() - started
    print(  # noqa: T201 - a figure
        f"\nF45: alone {alone_ms:.2f} ms; beside {heard.total() / took_s:.0f}/s of another {beside_ms:.2f} ms, "
        f"{beside_ms / alone_ms:.1f} times that; of the other's {heard[429] / heard.total():.0%} were refused"
    )
    assert heard.keys() == {200, 429}
    assert heard[200] <= BURST + PER_S * took_s + 1
    assert beside_ms < FAR_BEYOND * alone_ms


async def test_f45_who_is_refused_makes_no_work_for_the_database(database: Database) -> None:
    async with open_world(database, rate_limit_per_s=0.001, rate_burst=1) as world:
        org_id = await world.create_org()
        assert (await world.replica.command("org.rename", token="noisy", org_id=org_id, name="a")).status == 200
        head, pool = await world.head(), world.replica.app.state.pool
        # Not even its connections are needed: all of them are in use.
        async with asyncio.timeout(10), AsyncExitStack() as stack:
            for _ in range(pool.max_size):
                await stack.enter_async_context(pool.acquire())
            answers = [
                await world.replica.command("org.rename", token="noisy", org_id=org_id, name=f"b{number}")
                for number in range(20)
            ]
        assert {(answer.status, answer.code) for answer in answers} == {(429, "rate_limited")}
        assert await world.head() == head
