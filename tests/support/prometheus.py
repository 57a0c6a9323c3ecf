"""A real Prometheus for tests: the committed configuration, but for where the replicas are."""

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from support.repository import ROOT
from support.waiting import eventually, free_port

FOLDER = ROOT / "deploy" / "prometheus"

_DISCOVERY = re.compile(r"- job_name: (\w+)\n    dns_sd_configs:\n(?:      .*\n?)+", re.MULTILINE)


@dataclass(frozen=True)
class Prometheus:
    """A server that runs."""

    url: str
    _session: aiohttp.ClientSession

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Give the series that an expression has now."""
        answer = await self._get("query", query=expression)
        found: list[dict[str, Any]] = answer["result"]
        return found

    async def rules(self) -> list[dict[str, Any]]:
        """Give the alert rules, as the server read them."""
        return [rule for group in (await self._get("rules"))["groups"] for rule in group["rules"]]

    async def targets(self) -> list[dict[str, Any]]:
        """Give what is scraped, and how that goes."""
        found: list[dict[str, Any]] = (await self._get("targets"))["activeTargets"]
        return found

    async def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        async with self._session.get(f"{self.url}/api/v1/{path}", params=parameters) as response:
            # While it starts it says so in plain text.
            assert response.content_type == "application/json", response.status
            answer = await response.json()
        assert answer["status"] == "success", answer
        found: dict[str, Any] = answer["data"]
        return found


def configuration(targets: Mapping[str, Sequence[str]], scrape_interval: str) -> str:
    """Give the committed configuration with these addresses for each job, in the place of DNS."""
    text = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")

    def put(match: re.Match[str]) -> str:
        return f"- job_name: {match[1]}\n    static_configs:\n      - targets: [{', '.join(targets[match[1]])}]\n"

    text, jobs = _DISCOVERY.subn(put, text)
    assert jobs == len(targets)
    text = text.replace("- alerts.yml", f"- {FOLDER / 'alerts.yml'}")
    return re.sub(r"_interval: \w+\n", f"_interval: {scrape_interval}\n", text)


@asynccontextmanager
async def scraping(targets: Mapping[str, Sequence[str]]) -> AsyncIterator[Prometheus]:
    """Run a server that scrapes these each second, until the body ends; lend it once all of them answered."""
    with tempfile.TemporaryDirectory(prefix="keelson-prometheus-") as name:
        folder, port = Path(name), free_port()
        (folder / "prometheus.yml").write_text(configuration(targets, "1s"), encoding="utf-8")
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                stdout=log,
                stderr=log,
            )
        try:
            async with aiohttp.ClientSession() as session:
                prometheus = Prometheus(f"http://127.0.0.1:{port}", session)
                await eventually(lambda: _answered(prometheus, process), 60, interval_s=0.2)
                yield prometheus
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _answered(prometheus: Prometheus, process: asyncio.subprocess.Process) -> bool:
    assert process.returncode is None, "it ended"
    targets = await prometheus.targets()
    assert {target["health"] for target in targets} == {"up"}, [target["lastError"] for target in targets]
    return True
