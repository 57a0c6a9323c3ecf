"""Logs: one JSON object a line, whoever logs, whatever is logged."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import structlog

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
    logging.getLogger("uvicorn.error").error("it broke: %d", 7, exc_info=ValueError("inside"))
    [line] = lines()
    assert (line["event"], line["logger"], line["message"]) == ("library_logged", "uvicorn.error", "it broke: 7")
    assert "ValueError: inside" in line["exception"]


@pytest.mark.parametrize("value", ["lone \ud800", object(), b"\xff", {1, 2}])
def test_logging_never_fails_on_what_it_is_given(lines: Lines, value: object) -> None:
    structlog.get_logger().info("odd", value=value)
    structlog.get_logger().info("odd", value={"both": "\ud800", "of": object()})
    assert [line["event"] for line in lines()] == ["odd", "odd"]
