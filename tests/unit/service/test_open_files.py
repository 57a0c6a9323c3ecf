"""How many files a service may open: as many as it may at all, and a warning where its settings promise more."""

import subprocess
import sys
from typing import Any

import msgspec

from keelson.service.open_files import SPARE
from unit.service.asgi import settings

# A process cannot take its hard limit back, so it is another one that has it.
_ALLOWED = """
import resource
from keelson.service.logs import configure_logging
from keelson.service.open_files import allow_files
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
configure_logging("test", "info")
allow_files({needed})
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def limit_after(*, soft: int, hard: int, needed: int) -> tuple[int, list[dict[str, Any]]]:
    """Give the limit that a process of these limits has then, and what it logged."""
    program = _ALLOWED.format(soft=soft, hard=hard, needed=needed)
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], check=True, capture_output=True, timeout=60
    )
    *logged, limit = done.stdout.splitlines()
    return int(limit), [msgspec.json.decode(line) for line in logged]


def test_f32_a_process_may_open_as_many_files_as_it_may_at_all() -> None:
    assert limit_after(soft=64, hard=512, needed=512) == (512, [])


def test_f32_that_it_may_not_open_as_many_as_are_promised_is_said() -> None:
    limit, [warning] = limit_after(soft=64, hard=512, needed=513)
    assert limit == 512
    assert (warning["event"], warning["level"]) == ("open_files_limited", "warning")
    assert (warning["limit"], warning["needed"]) == (512, 513)


def test_each_connection_to_the_database_is_a_file() -> None:
    assert settings(pool_size=7).files == SPARE + 7
