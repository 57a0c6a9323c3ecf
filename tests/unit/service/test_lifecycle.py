"""A service's life: waiting for what it needs, dying with its parts, ending in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from keelson.log.database import NotDurableError
from keelson.log.pooling import SharedSessionsError
from keelson.service import lifecycle
from keelson.service.app import Application
from keelson.service.lifecycle import Lifecycle, NotReadyError, background, is_refusal
from support.waiting import eventually
from unit.service.asgi import ask, make_app, running


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(lifecycle, "RETRY_MAX_S", 0.02)


async def test_background_tasks_end_with_the_body() -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async with background(work("a"), work("b")) as group:
        group.create_task(work("c"))
        await asyncio.sleep(0)
        assert ended == []
    assert sorted(ended) == ["a", "b", "c"]


async def test_a_background_task_that_dies_ends_the_body() -> None:
    async def die() -> None:
        raise ValueError("broken")

    with pytest.raises(ExceptionGroup) as caught:
        async with background(die()):
            await asyncio.Event().wait()
    assert caught.group_contains(ValueError, match="broken")


async def test_a_body_that_raises_ends_the_tasks() -> None:
    async def work() -> None:
        await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        async with background(work()):
            raise KeyError("body")
    assert caught.group_contains(KeyError)


async def test_a_background_task_may_finish() -> None:
    done = asyncio.Event()

    async def finish() -> None:
        done.set()

    async with background(finish()):
        await done.wait()


async def test_a_service_waits_for_the_database_and_says_so() -> None:
    attempts = [ConnectionRefusedError("10.0.0.7 refused"), NotReadyError("migrations are missing: 0002")]
    gate = asyncio.Event()

    @asynccontextmanager
    async def lifespan(_app: Application) -> AsyncIterator[None]:
        if attempts:
            raise ExceptionGroup("nested", [attempts.pop(0)])
        await gate.wait()
        yield

    app = make_app(lifespan=lifespan)
    seen: set[str] = set()
    async with app.router.lifespan_context(app):
        answer = await ask(app, "GET", "/echo")
        assert answer.problem == (503, "unavailable")
        assert answer.header("retry-after") == "1"
        assert (await ask(app, "GET", "/healthz", token=None)).status == 200

        async def says_what_it_lacks() -> bool:
            answer = await ask(app, "GET", "/readyz", token=None)
            assert answer.status == 503
            assert answer.json["ready"] is False
            seen.add(answer.json["checks"]["service"])
            return "migrations are missing: 0002" in seen

        await eventually(says_what_it_lacks, interval_s=0.001)
        gate.set()
        await eventually(lambda: app.lifecycle.answers)
        assert (await ask(app, "GET", "/echo")).status == 200
        assert (await ask(app, "GET", "/readyz", token=None)).json == {"ready": True, "checks": {"service": "ok"}}
    assert not any("10.0.0.7" in text for text in seen)


async def test_a_service_that_still_waits_can_be_stopped() -> None:
    entered = asyncio.Event()

    @asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        entered.set()
        await asyncio.Event().wait()
        yield

    life = Lifecycle(resources)
    async with asyncio.timeout(5), life.run_within():
        await entered.wait()
    assert (life.phase, life.failure) == ("stopped", None)


@pytest.mark.parametrize(
    ("error", "refusal"),
    [(ValueError("a defect"), False), (NotDurableError("fsync is off"), True), (SharedSessionsError("lent"), True)],
)
async def test_a_start_that_cannot_succeed_is_not_repeated(error: Exception, *, refusal: bool) -> None:
    attempts: list[int] = []
    told = asyncio.Event()

    @asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        attempts.append(1)
        if error:
            raise error
        yield

    life = Lifecycle(resources)
    life.on_failure = told.set
    async with life.run_within():
        await asyncio.wait_for(told.wait(), 5)
    assert (life.failure, attempts, life.phase) == (error, [1], "stopped")
    assert is_refusal(error) is refusal


async def test_a_part_that_dies_later_is_a_failure_even_if_it_lost_the_database() -> None:
    die = asyncio.Event()
    told = asyncio.Event()

    async def part() -> None:
        await die.wait()
        raise ConnectionResetError

    @asynccontextmanager
    async def lifespan(_app: Application) -> AsyncIterator[None]:
        async with background(part()):
            yield

    async with running(make_app(lifespan=lifespan)) as app:
        app.lifecycle.on_failure = told.set
        die.set()
        await asyncio.wait_for(told.wait(), 5)
        assert (await ask(app, "GET", "/echo")).problem == (503, "unavailable")
        assert (await ask(app, "GET", "/readyz", token=None)).status == 503
    assert isinstance(app.lifecycle.failure, ExceptionGroup)


async def test_a_draining_service_answers_but_is_not_ready() -> None:
    async with running(make_app()) as app:
        app.lifecycle.drain()
        assert (await ask(app, "GET", "/echo")).status == 200
        readiness = await ask(app, "GET", "/readyz", token=None)
        assert (readiness.status, readiness.json["checks"]) == (503, {"service": "the service is stopping"})


async def test_resources_are_closed_in_order_at_the_end() -> None:
    closed: list[str] = []

    @asynccontextmanager
    async def lifespan(_app: Application) -> AsyncIterator[None]:
        yield
        await asyncio.sleep(0)
        closed.append("pool")

    async with running(make_app(lifespan=lifespan)):
        assert closed == []
    assert closed == ["pool"]
