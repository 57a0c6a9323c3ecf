"""Readiness: every check is told, bounded in time, and tells nothing that only operators may know."""

import asyncio
from typing import Any

import pytest

from keelson.log.database import NotDurableError
from keelson.service import health
from keelson.service.health import run_checks
from keelson.service.lifecycle import NotReadyError
from unit.service.asgi import ask, make_app, running


async def fine(_state: Any) -> None:
    """Find nothing wrong."""


async def not_ready(_state: Any) -> None:
    raise NotReadyError("projection platform is stopped at 17")


async def not_durable(_state: Any) -> None:
    raise NotDurableError("PostgreSQL runs with fsync off")


async def unreachable(_state: Any) -> None:
    raise ConnectionRefusedError("10.0.0.7 port 5432")


async def defective(_state: Any) -> None:
    raise KeyError("canary")


async def hanging(_state: Any) -> None:
    await asyncio.Event().wait()


async def test_each_check_says_what_cannot_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CHECK_TIMEOUT_S", 0.05)
    checks = {each.__name__: each for each in (fine, not_ready, not_durable, unreachable, defective, hanging)}
    async with asyncio.timeout(8):
        said = await run_checks(checks, None)
    assert said == {
        "fine": "ok",
        "not_ready": "projection platform is stopped at 17",
        "not_durable": "PostgreSQL runs with fsync off",
        "unreachable": "cannot be reached",
        "defective": "the check itself failed",
        "hanging": "no answer within 0.05 s",
    }


async def test_checks_get_the_state_and_one_that_fails_makes_the_service_unready() -> None:
    seen: list[Any] = []

    async def look(state: Any) -> None:
        seen.append(state.epoch.name)

    async with running(make_app(readiness={"look": look})) as app:
        assert (await ask(app, "GET", "/readyz", token=None)).json == {
            "ready": True,
            "checks": {"service": "ok", "look": "ok"},
        }
    assert seen == ["first"]
    async with running(make_app(readiness={"fine": fine, "unreachable": unreachable})) as app:
        answer = await ask(app, "GET", "/readyz", token=None)
        assert answer.status == 503
        assert answer.json["checks"] == {"service": "ok", "fine": "ok", "unreachable": "cannot be reached"}
