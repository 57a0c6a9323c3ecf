"""Logs: one JSON object a line, whoever logs, whatever is logged."""

import asyncio
import gc
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import asyncpg
import msgspec
import pytest
import structlog

from keelson.service.logs import configure_logging
from keelson.service.tracebacks import WITHHELD, describe, message_of

CANARY = "canary-7f3a@person.example"

Lines = Callable[[], list[dict[str, Any]]]


def test_an_event_has_its_name_level_service_time_and_context(lines: Lines) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger().warning("batch_applied", events=3)
    [line] = lines()
    time = line.pop("time")
    assert time.endswith("Z")
    assert line == {"event": "batch_applied", "level": "warning", "service": "test", "events": 3, "request_id": "r1"}


def test_lower_levels_are_left_out(lines: Lines) -> None:
    structlog.get_logger().debug("quiet")
    logging.getLogger("library").debug("quiet")
    assert lines() == []


def test_what_libraries_log_has_the_same_form(lines: Lines) -> None:
    logging.getLogger("uvicorn.error").error("it broke: %d", 7, exc_info=RuntimeError("inside"))
    [line] = lines()
    assert (line["event"], line["logger"], line["message"]) == ("library_logged", "uvicorn.error", "it broke: 7")
    assert "RuntimeError: inside" in line["exception"]


@pytest.mark.parametrize("value", ["lone \ud800", object(), b"\xff", {1, 2}])
def test_logging_never_fails_on_what_it_is_given(lines: Lines, value: object) -> None:
    structlog.get_logger().info("odd", value=value)
    structlog.get_logger().info("odd", value={"both": "\ud800", "of": object()})
    assert [line["event"] for line in lines()] == ["odd", "odd"]


def test_what_cannot_be_written_is_lost_and_whoever_says_it_goes_on(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", SimpleNamespace(buffer=full))
        configure_logging("test", "info")
        structlog.get_logger().error("lost")
        logging.getLogger("library").error("lost")
        with pytest.raises(OSError, match="space"):
            full.write(b"lost")
    assert lines() == []


def unique_violation() -> asyncpg.PostgresError:
    """Make what asyncpg makes of the server's message: its text has the DETAIL."""
    told = {"S": "ERROR", "C": "23505", "M": "duplicate key", "D": f"Key (lower(email))=({CANARY}) already exists."}
    error = asyncpg.PostgresError.new(told)
    assert CANARY in str(error)
    return error


def undecodable() -> Exception:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(f'"{CANARY}"', type=Literal["a"])
    return caught.value


QUOTING: list[BaseException] = [
    ValueError(f"invalid literal: {CANARY}"),
    KeyError(CANARY),
    Exception(CANARY),
    UnicodeEncodeError("ascii", f"{CANARY}\ud800", 0, 1, CANARY),
    asyncpg.DataError(f"invalid input for query argument $1: '{CANARY}'"),
    asyncpg.PostgresError.new({"S": "ERROR", "C": "22P02", "M": f'invalid input syntax for type uuid: "{CANARY}"'}),
    unique_violation(),
    undecodable(),
]


@pytest.mark.parametrize("error", [*QUOTING, ExceptionGroup("several", [KeyError(CANARY), ValueError(CANARY)])])
def test_f43_a_traceback_tells_kind_and_place_and_no_data(lines: Lines, error: BaseException) -> None:
    email = CANARY  # a local variable, such as tracebacks for people show
    for raised_of in (error, RuntimeError("of"), TypeError("of")):
        try:
            try:
                raise error
            except type(error) as again:
                if raised_of is error:
                    raise
                raise raised_of from (again if isinstance(raised_of, TypeError) else None)
        except Exception:
            structlog.get_logger().exception("request_failed")
            logging.getLogger("library").exception("it broke")
    told = [line["exception"] for line in lines()]
    assert len(told) == 6
    assert not [text for text in told if email in text]
    assert all(type(error).__name__ in text and "test_logs.py" in text for text in (*told[:2], *told[4:]))
    assert "RuntimeError: of" in told[2]


def test_what_a_traceback_may_tell_it_tells() -> None:
    assert message_of(OSError(111, "Connection refused")) == "[Errno 111] Connection refused"
    assert message_of(unique_violation()) == "23505 duplicate key"
    assert message_of(asyncpg.InterfaceError("the pool is closed")) == "the pool is closed"
    assert message_of(ValueError("x")) == WITHHELD
    ring = RuntimeError("one")
    ring.__cause__ = KeyError("two")
    ring.__cause__.__cause__ = ring
    assert describe(ring).count("Traceback") == 2


async def test_f43_a_task_that_nobody_waited_for_is_logged_without_what_it_raised(lines: Lines) -> None:
    async def fail(_token: str) -> None:
        raise ValueError(CANARY)

    def call_back(_token: str) -> None:
        raise KeyError(CANARY)

    loop = asyncio.get_running_loop()
    task = loop.create_task(fail(CANARY))
    await asyncio.wait([task])
    del task
    gc.collect()
    loop.call_soon(call_back, CANARY)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    never, called = lines()
    assert never["message"] == "Task exception was never retrieved"
    assert called["message"].startswith("Exception in callback")
    assert CANARY not in f"{never} {called}"
    assert "ValueError" in never["exception"]
