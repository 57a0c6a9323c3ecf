"""`make demo`: tells its story again and again, on a terminal of 100 columns."""

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.supervised import Supervised, supervised


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Supervised]:
    with supervised(tmp_path / "home") as stack:
        yield stack


def demo(stack: Supervised) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "keelson.local", "demo"],
        env={**os.environ, **stack.environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def test_it_runs_again_and_again_and_reads_well(stack: Supervised) -> None:
    await stack.start()
    for company in ("acorn-bakery", "acorn-bakery-2"):
        told = demo(stack)
        assert told.returncode == 0, told.stdout + told.stderr
        assert told.stderr == ""
        lines = told.stdout.splitlines()
        assert max(map(len, lines)) <= 100
        assert told.stdout.isascii()
        assert "\x1b" not in told.stdout
        assert f"What runs at {company}: the view of environments" in lines
        assert "incident INC-7" in told.stdout
        assert "name_taken" in told.stdout
        assert "route_would_break" in told.stdout
        assert f"shop.{company}.example" in told.stdout
    assert await stack.end() == 0


async def test_the_views_and_the_audit_trail_say_what_was_done(stack: Supervised) -> None:
    await stack.start()
    sections = demo(stack).stdout.split("\n\n")
    runs = next(text for text in sections if text.startswith("What runs at"))
    production = next(line for line in runs.splitlines() if line.startswith("storefront  production"))
    assert re.split(r"\s{2,}", production)[2:4] == ["storefront 1", "web=4, worker=2"]
    deploys = next(text for text in sections if text.startswith("Deploys"))
    assert [line.split()[5] for line in deploys.splitlines()[3:]].count("rollback") == 1
    routes = next(text for text in sections if text.startswith("Routes"))
    assert [re.split(r"\s{2,}", line) for line in routes.splitlines()[3:]] == [
        ["shop.acorn-bakery.example", "storefront production", "web", "http"]
    ]
    trail = next(text for text in sections if text.startswith("The audit trail"))
    for event_type in (
        "org.created",
        "release.created",
        "env.release_set",
        "deploy.status_changed",
        "env.scaled",
        "route.updated",
    ):
        assert event_type in trail
    assert await stack.end() == 0


def test_without_a_stack_it_says_how_to_get_one(stack: Supervised) -> None:
    told = demo(stack)
    assert told.returncode == 1
    assert "make run" in told.stderr
    assert "Traceback" not in told.stderr
