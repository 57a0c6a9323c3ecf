"""`python -m bench`: measure Keelson beside its baselines, print a table, keep all of it as JSON."""

import argparse
import asyncio
import os
import platform
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import uvloop

from bench import append, contention, freshness, nodes, over_http, projections, servers, streams
from bench.figures import Figure, medians, table
from bench.world import Bench
from keelson.local.postgres import DURABLE_SETTINGS
from support.database import Cluster, reachable_folder, running_cluster
from support.log import connected
from support.repository import ROOT

Part = Callable[[Bench], Awaitable[list[Figure]]]

PARTS: Mapping[str, Part] = {
    append.PART: append.measure,
    over_http.PART: over_http.measure_commands,
    over_http.READS: over_http.measure_reads,
    freshness.PART: freshness.measure,
    projections.PART: projections.measure,
    contention.PART: contention.measure,
    servers.PART: servers.measure,
    streams.PART: streams.measure,
    nodes.PART: nodes.measure,
}
# pgbench's 256 clients need connections; all else is as PostgreSQL comes, and durable.
SETTINGS = {"max_connections": "400"}
LIBRARIES = ("asyncpg", "granian", "httptools", "msgspec", "starlette", "uvicorn", "uvloop")
_SHOWN = (*DURABLE_SETTINGS, *SETTINGS, "server_version", "shared_buffers", "wal_sync_method", "commit_delay", "jit")
_RESULTS = ROOT / ".keelson" / "bench"


def main() -> int:
    """Run what was asked for; give the exit code, 0 whether or not expectations are met."""
    given = _parse()
    # The processes that parts start import these modules too.
    os.environ["PYTHONPATH"] = str(ROOT / "tests")
    with running_cluster(SETTINGS) as cluster, reachable_folder() as folder:
        bench = Bench(cluster, folder, given.seconds, 200_000 if given.full else 50_000)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures, about = runner.run(_run(bench, given.only, 3 if given.full else 1))
    _say(f"\n{table(figures)}\n\nkept in {_keep(figures, {'arguments': sys.argv[1:], **about})}")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--full", action="store_true", help="three rounds over 200,000 events: medians and spread")
    parser.add_argument("--only", type=_names, default=list(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each rate is measured (2)")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - PARTS.keys():
        raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return names


async def _run(bench: Bench, names: list[str], rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    about = await _describe(bench.cluster)
    measured: list[list[Figure]] = []
    for number in range(rounds):
        measured.append([])
        for name in names:
            began_at = monotonic()
            measured[-1] += await PARTS[name](bench)
            _say(f"round {number + 1} of {rounds}: {name} took {monotonic() - began_at:.0f} s")
    figures = medians(measured)
    return figures, {**about, "seconds": bench.seconds, "events": bench.events, "rounds": measured}


async def _describe(cluster: Cluster) -> dict[str, Any]:
    """Tell on what is measured."""
    async with connected(cluster.server.url()) as connection:
        settings = {name: await connection.fetchval("SELECT current_setting($1)", name) for name in _SHOWN}
    return {
        "taken_at": datetime.now(UTC),
        "revision": _revision(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg(),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "postgresql": settings,
    }


def _revision() -> str | None:
    """Give the commit that is checked out, marked if the tree differs; None in a copy without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def _keep(figures: list[Figure], about: Mapping[str, Any]) -> Path:
    _RESULTS.mkdir(parents=True, exist_ok=True)
    path = _RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode({**about, "figures": figures})) + b"\n")
    return path


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
