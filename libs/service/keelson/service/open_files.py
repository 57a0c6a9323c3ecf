"""Open files: each connection is one, and the usual limit of 1,024 is a soft one, which a process may raise itself."""

import resource

import structlog

# Beside what is counted: requests, whoever keeps a connection for the next one, and what the process itself has open.
SPARE = 256

_log = structlog.get_logger()


def allow_files(needed: int) -> None:
    """Let this process open as many files as it may at all; warn if that is fewer than its settings promise.

    It starts all the same: beyond the limit no connection is accepted, and none to the database is made.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # macOS says that it has no limit, and has one
        hard = soft
    if hard != resource.RLIM_INFINITY and hard < needed:
        _log.warning("open_files_limited", limit=hard, needed=needed)
