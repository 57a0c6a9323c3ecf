"""What the agent logs holds no data that an exception quotes (F43)."""

import errno
import logging
import os
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import msgspec
import pytest
import structlog

from keelson.agent.logs import configure_logging

CANARY = "the-canary-of-the-log"


class FullDisk(BytesIO):
    """Takes nothing until there is room."""

    has_room = False

    def write(self, line: Any) -> int:
        """Write, or fail."""
        self._fail()
        return super().write(line)

    def flush(self) -> None:
        """Do nothing, or fail."""
        self._fail()

    def _fail(self) -> None:
        if not self.has_room:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(params=[BytesIO])
def log(request: pytest.FixtureRequest) -> Iterator[BytesIO]:
    handlers, level = list(logging.root.handlers), logging.root.level
    file = request.param()
    configure_logging("info", file)
    yield file
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def fail(error: Exception) -> None:
    try:
        try:
            os.environ[CANARY]
        except KeyError as cause:
            raise error from cause
    except Exception:  # noqa: BLE001 - the one that was to be raised
        structlog.get_logger().exception("it_failed")


@pytest.mark.parametrize("error", [ValueError(CANARY), ExceptionGroup(CANARY, [RuntimeError(CANARY)])])
def test_f43_what_exceptions_quote_is_left_out(log: BytesIO, error: Exception) -> None:
    fail(error)
    assert CANARY not in log.getvalue().decode()
    line = msgspec.json.decode(log.getvalue())
    assert (line["event"], line["service"], line["level"]) == ("it_failed", "agent", "error")
    assert "KeyError" in line["exception"]
    assert type(error).__name__ in line["exception"]
    assert "test_logs.py" in line["exception"]


def test_what_the_operating_system_says_is_kept(log: BytesIO) -> None:
    fail(OSError(28, "No space left on device"))
    assert "No space left on device" in log.getvalue().decode()


def test_what_libraries_log_comes_out_in_the_same_form_and_without_what_asyncio_quotes(log: BytesIO) -> None:
    logging.getLogger("asyncio").error("Task exception was never retrieved <Task args=%s>", CANARY)
    line = msgspec.json.decode(log.getvalue())
    assert (line["event"], line["logger"]) == ("library_logged", "asyncio")
    assert line["message"] == "Task exception was never retrieved"


def test_what_is_less_than_the_level_is_left_out(log: BytesIO) -> None:
    structlog.get_logger().debug("nothing")
    assert not log.getvalue()


@pytest.mark.parametrize("log", [FullDisk], indirect=True)
def test_what_cannot_be_written_is_lost_and_whoever_says_it_goes_on(log: FullDisk) -> None:
    structlog.get_logger().error("lost")
    logging.getLogger("library").error("lost")
    log.has_room = True
    structlog.get_logger().info("there_is_room")
    [line] = log.getvalue().splitlines()
    assert msgspec.json.decode(line)["event"] == "there_is_room"
