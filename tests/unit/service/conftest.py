"""Logs of a test, as a process would write them."""

import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import structlog

from keelson.service.logs import configure_logging


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Log at level info into memory; called, it gives what was logged so far, decoded."""
    handlers, level = list(logging.root.handlers), logging.root.level
    file = io.BytesIO()
    configure_logging("test", "info", file)
    yield lambda: [msgspec.json.decode(line) for line in file.getvalue().splitlines()]
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
