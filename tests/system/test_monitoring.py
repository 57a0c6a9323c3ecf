"""What watches Keelson is right: Prometheus accepts configuration and rules, and each says something of what runs."""

import re
import subprocess
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from secrets import token_hex
from typing import Any

import aiohttp
import msgspec
import pytest

from keelson.local.dashboard import DASHBOARD, DATASOURCE, dashboard_text
from keelson.local.panels import SECTIONS
from support.database import Cluster, Database
from support.programs import needs
from support.prometheus import FOLDER, Prometheus, configuration, scraping
from support.repository import ROOT
from support.stack import Stack, running_stack
from support.waiting import eventually

ALERTS = (FOLDER / "alerts.yml").read_text(encoding="utf-8")
TESTS = (FOLDER / "alerts.test.yml").read_text(encoding="utf-8")
NAMES = re.findall(r"^ +- alert: (\w+)$", ALERTS, re.MULTILINE)

needs_promtool = needs("promtool", "it checks rules and expressions (Debian's package prometheus)")
needs_prometheus = needs("prometheus", "it evaluates rules and expressions (Debian's package prometheus)")

# What nothing is to be said of while all is well, and no node is there.
MAY_BE_EMPTY = {"Answers that fail", "Nodes", "Actions of the scheduler"}

# Rules that ask how quick something is, and bounds that even a machine keeps that holds everything up for a moment.
SLOW = {"> 0.25": "> 5", "> 0.5": "> 10"}

# A word of PromQL that is a metric of ours or of the process.
METRIC = re.compile(r"\b(?:keelson|process)_\w+")


def promtool(*arguments: str, stdin: str | None = None) -> str:
    """Run promtool in the folder of the configuration; give what it said, and fail with that if it complained."""
    done = subprocess.run(  # noqa: S603 - our own arguments
        ["promtool", *arguments],  # noqa: S607 - wherever the machine has it
        cwd=FOLDER,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def panels() -> Iterator[tuple[str, list[str]]]:
    """Give each panel's title and its expressions, with Grafana's variable filled in."""
    for section in SECTIONS.values():
        for panel in section:
            yield panel.title, [line.expression.replace("$__rate_interval", "1m") for line in panel.lines]


def without_strings(expression: str) -> str:
    """Leave out what stands in quotes, which may look like a metric."""
    return re.sub(r'"[^"]*"', "", expression)


@needs_promtool
@pytest.mark.parametrize(
    "command",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")],
)
def test_prometheus_accepts_what_is_committed(command: tuple[str, ...]) -> None:
    assert "SUCCESS" in promtool(*command)


@needs_promtool
def test_a_rule_that_says_something_else_is_found(tmp_path: Path) -> None:
    (tmp_path / "alerts.test.yml").write_text(TESTS, encoding="utf-8")
    (tmp_path / "alerts.yml").write_text(ALERTS.replace("> 0.8", "> 0.95"), encoding="utf-8")
    with pytest.raises(AssertionError, match="KeelsonHeadContended"):
        promtool("test", "rules", str(tmp_path / "alerts.test.yml"))


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_is_seen_to_fire_and_not_to(name: str) -> None:
    tried = re.findall(rf"^ +alertname: {name}\n +exp_alerts:(.*)$", TESTS, re.MULTILINE)
    assert {each.strip() for each in tried} == {"", "[]"}


def test_each_alert_says_how_urgent_it_is_and_where_to_read_on() -> None:
    rules = re.split(r"^ +- alert: ", ALERTS, flags=re.MULTILINE)[1:]
    headings = {
        f"{page}.md#{title.lower().replace(' ', '-').replace(',', '')}"
        for page in ("operations", "scheduler")
        for title in re.findall(r"^#+ (.*)$", (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(rules) == len(set(NAMES)) >= 16
    for rule in rules:
        assert re.search(r"labels: \{severity: (page|ticket)\}", rule), rule
        assert re.search(r"summary: .+\n +description: .+", rule), rule
        [anchor] = re.findall(r"runbook: docs/(\S+)", rule)
        assert anchor in headings


def test_the_committed_dashboard_is_what_the_code_says() -> None:
    assert DASHBOARD.read_text(encoding="utf-8") == dashboard_text(), "run `make docs`"


def test_panels_have_places_of_their_own_and_the_datasource_that_is_provisioned() -> None:
    drawn: list[dict[str, Any]] = msgspec.json.decode(dashboard_text())["panels"]
    taken = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in drawn
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in drawn}) == len(drawn)
    provisioned = (ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text("utf-8")
    assert f"uid: {DATASOURCE['uid']}\n" in provisioned


@needs_promtool
def test_each_expression_of_the_dashboard_parses(tmp_path: Path) -> None:
    rules = [
        f"      - record: r{number}\n        expr: {msgspec.json.encode(each).decode()}\n"
        for number, each in enumerate(expression for _, expressions in panels() for expression in expressions)
    ]
    (tmp_path / "rules.yml").write_text("groups:\n  - name: g\n    rules:\n" + "".join(rules), encoding="utf-8")
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(tmp_path / "rules.yml"))


async def exposed(stack: Stack) -> list[str]:
    """Give what each process of a stack says at /metrics."""
    async with aiohttp.ClientSession() as session:
        return [await _text(session, f"{process.url}/metrics") for process in stack]


async def _text(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url) as response:
        return await response.text()


def metrics_of(texts: list[str]) -> set[str]:
    """Give the names by which expressions may ask for what is exposed."""
    found = [match for text in texts for match in re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE)]
    parts = {"histogram": ("_bucket", "_count", "_sum")}
    return {name + part for name, kind in found for part in parts.get(kind, ("",))}


async def use(stack: Stack) -> None:
    """Write, read it back, and be refused: whatever counts has something to count."""
    headers = {"Authorization": f"Bearer {stack.operator_token}", "Prefer": "wait=5"}
    command, query = stack.commands[0].url, stack.queries[0].url
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(f"{command}/v1/commands/org.create", json={"name": f"x-{token_hex(4)}"}) as made:
            position = (await made.json())["position"]
        async with session.get(f"{query}/v1/orgs", params={"min_position": position}) as read:
            assert read.status == 200
        async with session.get(f"{query}/v1/nothing") as refused:
            assert refused.status == 404


async def assert_all_is_shown(stack: Stack, prometheus: Prometheus) -> None:
    """Hold each panel to have something to show; the stack is used meanwhile, since rates need it."""

    async def is_shown() -> bool:
        await use(stack)
        for title, expressions in panels():
            for expression in expressions:
                assert title in MAY_BE_EMPTY or await prometheus.query(expression), f"{title}: {expression}"
        return True

    await eventually(is_shown, 60, interval_s=0.5)


def patiently(expression: str) -> str:
    """Give a rule that asks for how quick this is with a bound that no machine misses: here it is not asked for long.

    promtool's tests hold the rules to their own bounds.
    """
    return reduce(lambda text, bound: text.replace(*bound), SLOW.items(), expression)


@needs_prometheus
async def test_what_is_asked_of_prometheus_is_answered_by_what_runs(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    async with running_stack(cluster, database, tmp_path, schedulers=1) as stack:
        texts = await exposed(stack)
        for text in texts:
            assert promtool("check", "metrics", stdin=text) == ""
        services = {
            "command": stack.commands,
            "query": stack.queries,
            "projector": stack.projectors,
            "scheduler": stack.schedulers,
        }
        targets = {name: [each.url.removeprefix("http://") for each in of] for name, of in services.items()}
        async with scraping(targets) as prometheus:
            rules = {rule["name"]: rule["query"] for rule in await prometheus.rules()}
            assert [*rules] == NAMES
            for expression in [*rules.values(), *(each for _, expressions in panels() for each in expressions)]:
                assert set(METRIC.findall(without_strings(expression))) <= metrics_of(texts), expression
            await assert_all_is_shown(stack, prometheus)
            for name, expression in rules.items():
                assert await prometheus.query(patiently(expression)) == [], f"all is well, but {name} does not say so"


def test_every_job_of_the_configuration_is_put_elsewhere_for_tests() -> None:
    text = configuration(
        {"command": ["a:1"], "query": ["b:2"], "projector": ["c:3", "d:4"], "scheduler": ["e:5"]}, "1s"
    )
    assert "dns_sd" not in text
    assert re.findall(r"targets: \[(.*)\]", text) == ["a:1", "b:2", "c:3, d:4", "e:5"]
    assert text.count("_interval: 1s") == 2
