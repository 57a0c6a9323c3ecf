"""Logs: one JSON object a line on standard output, with constant event names, as the services log.

What an exception says may quote data, such as a command's variables, and so is left out but for what the operating
system says (F43). An agent has no database and no requests, and so none of what the services' logs do about those.
"""

import contextlib
import logging
import re
import sys
import traceback
from typing import Any, BinaryIO

import msgspec
import stamina.instrumentation
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# asyncio goes on with the arguments of a callback, or with a task and what it raised or gave.
_ASYNCIO_SAYS = re.compile(r"[^\n(<]*")

_encode = msgspec.json.Encoder(enc_hook=repr).encode


def configure_logging(level: str, file: BinaryIO | None = None) -> None:
    """Set logging up for this process; `level` is one of debug, info, warning, error. `file` is for tests."""
    structlog.configure(
        processors=[*_processors(), _render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.BytesLoggerFactory(_Lossy(file or sys.stdout.buffer)),  # type: ignore[arg-type]
        cache_logger_on_first_use=file is None,
    )
    logging.basicConfig(handlers=[_Forward()], level=level.upper(), force=True)
    logging.captureWarnings(capture=True)
    # That a service is away is said once, by `Contact`, and not at each of the client's attempts.
    stamina.instrumentation.set_on_retry_hooks([])


def describe(error: BaseException) -> str:
    """Give where an exception came from and its type, and that of what led to it; of what it says only an OSError's."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    parts = [] if before is None else [describe(before), "which led to:"]
    parts += (line.rstrip("\n") for line in traceback.format_tb(error.__traceback__))
    said = f": {error}" if isinstance(error, OSError) else ""
    parts.append(f"{type(error).__module__}.{type(error).__qualname__}{said}".removeprefix("builtins."))
    if isinstance(error, BaseExceptionGroup):
        parts += (describe(each) for each in error.exceptions)
    return "\n".join(parts)


def _processors() -> list[Processor]:
    def name_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = "agent"
        return event

    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        name_service,
        structlog.processors.ExceptionRenderer(lambda exc_info: describe(exc_info[1])),
    ]


def _render(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    return _encode(event)


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
