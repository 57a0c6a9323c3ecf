"""Logs: one JSON object a line on standard output, with constant event names and the request's id.

What libraries log through `logging` comes out in the same form, as the event `library_logged`. Tracebacks have neither
local variables nor what an exception says of data (F43).
"""

import contextlib
import logging
import re
import sys
from typing import Any, BinaryIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from keelson.service.encoding import encode_anything
from keelson.service.tracebacks import describe

# asyncio goes on with the arguments of a callback, or with a task and what it raised or gave.
_ASYNCIO_SAYS = re.compile(r"[^\n(<]*")


def configure_logging(service: str, level: str, file: BinaryIO | None = None) -> None:
    """Set logging up for this process; `level` is one of debug, info, warning, error. `file` is for tests."""
    structlog.configure(
        processors=[*_processors(service), _render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.BytesLoggerFactory(_Lossy(file or sys.stdout.buffer)),  # type: ignore[arg-type]
        cache_logger_on_first_use=file is None,
    )
    logging.basicConfig(handlers=[_Forward()], level=level.upper(), force=True)
    logging.captureWarnings(True)


def _processors(service: str) -> list[Processor]:
    def name_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        name_service,
        structlog.processors.ExceptionRenderer(lambda exc_info: describe(exc_info[1])),
    ]


def _render(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    return encode_anything(event)


class _Forward(logging.Handler):
    """Hands what libraries log to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.name == "asyncio" and (said := _ASYNCIO_SAYS.match(message)):
            message = said[0].rstrip()
        fields: dict[str, Any] = {"logger": record.name, "message": message}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        structlog.get_logger().log(max(record.levelno, logging.DEBUG), "library_logged", **fields)


class _Lossy:
    """A file that takes what it can: a line that cannot be written is lost, and ends nothing.

    Any task may log; on a disk that is full, each would fail by it, even the one that handles just that.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, line: bytes) -> None:
        with contextlib.suppress(OSError):
            self._file.write(line)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()
