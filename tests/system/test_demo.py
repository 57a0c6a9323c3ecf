"""`make demo`: tells its story again and again, on a terminal of 100 columns."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from keelson.client import Client
from keelson.local.demo.secrets import VALUES
from keelson.local.home import Home
from keelson.local.instances import end_instances
from keelson.local.nodes import Machine
from support.supervised import Supervised, supervised
from support.waiting import eventually


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


def section(told: str, title: str) -> list[str]:
    """Give the lines of what is told under a heading."""
    found = re.search(rf"^{re.escape(title)}.*\n-+\n((?:.*\n)+?)(?:\n.*\n-+\n|\Z)", told, re.MULTILINE)
    assert found, told
    return found[1].splitlines()


def rows(lines: list[str]) -> list[list[str]]:
    """Give the cells of a chapter's lines, what was wrapped in one: at, who, command, of, why."""
    wide = next(line for line in lines if line.startswith("at "))
    starts = [wide.index(title) for title in ("at", "who", "why")]
    found: list[list[str]] = []
    for line in lines[lines.index(wide) + 1 :]:
        at, who, why = (
            line[start:end].strip() for start, end in zip(starts, [starts[1], starts[2], None], strict=True)
        )
        if who:
            found.append([at, *re.split(r"\s{2,}", who), why])
        elif found and why:
            found[-1][-1] += f" {why}"
    return found


@pytest.fixture
async def beside(tmp_path: Path) -> AsyncIterator[Supervised]:
    """Lend a home beside the stack's; whatever runs on it is ended afterwards."""
    folder = tmp_path / "beside"
    beside = Supervised(folder, {"KEELSON_HOME": str(folder)})
    try:
        yield beside
    finally:
        beside.clean_up()


@pytest.mark.timeout(600)
async def test_it_runs_again_and_again_and_reads_well(stack: Supervised, beside: Supervised) -> None:
    await stack.start()
    assert_it_reads_well(demo(stack), "acorn-bakery")
    assert await count_instances(stack) == 0
    await take_for_containers(stack, beside)
    told = demo(beside)
    assert_it_reads_well(told, "acorn-bakery-2")
    assert "This machine is two of them" in told.stdout
    assert_everybody_who_asked_was_answered(told.stdout)
    await assert_nothing_is_left(stack, beside)
    await assert_reasons_name_nobody(stack)
    await begin_and_be_killed(beside)
    await begin_and_be_hung_up(stack, beside)
    await assert_nothing_is_left(stack, beside)
    assert await stack.end() == 0


async def begin_and_be_killed(beside: Supervised) -> None:
    """Leave agents behind, of a telling whose terminal was closed before."""
    with begun(beside, Path("/dev/full")) as telling:
        await eventually(lambda: {"node-a", "node-b"} <= beside.pids.keys(), 60.0)
        telling.kill()
    assert beside.pids.keys() == {"node-a", "node-b"}


async def begin_and_be_hung_up(stack: Supervised, beside: Supervised) -> None:
    """Begin anew in spite of what was left behind, and be hung up when something runs."""
    orphans = beside.pids
    with begun(beside, beside.home / "told") as telling:
        await eventually(lambda: count_instances(stack), 60.0)
        assert not [name for name, identity in orphans.items() if identity.is_running()]
        telling.send_signal(signal.SIGHUP)
        assert await asyncio.to_thread(telling.wait, 120.0) == 128 + signal.SIGHUP


@contextmanager
def begun(stack: Supervised, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Begin a telling; it is ended afterwards."""
    with (
        output.open("wb") as told,
        subprocess.Popen(
            [sys.executable, "-m", "keelson.local", "demo"],
            env={**os.environ, **stack.environ},
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
        ) as telling,
    ):
        try:
            yield telling
        finally:
            telling.kill()


async def assert_nothing_is_left(stack: Supervised, beside: Supervised) -> None:
    """Hold that the machine is no node any more, and that the platform knows."""
    assert not beside.pids
    assert [end_instances(folder) for folder in Home(beside.home).nodes.iterdir()] == [0, 0]
    assert await count_instances(stack) == 0
    dev = stack.dev
    async with Client(dev.command_url, dev.query_url, dev.operator_token) as client:
        head = (await client.projections.list()).head
        nodes = [(node.name, node.state) async for node in client.nodes.list(min_position=head)]
    assert sorted(nodes) == [("node-a", "offline"), ("node-b", "offline")]


def assert_it_reads_well(told: subprocess.CompletedProcess[str], company: str) -> None:
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stderr == ""
    lines = told.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert told.stdout.isascii()
    assert "\x1b" not in told.stdout
    assert f"What runs at {company}: the view of environments" in lines
    assert f"shop.{company}.example" in told.stdout
    assert "kls_" not in told.stdout
    assert not [value for value in VALUES.values() if value in told.stdout]


async def take_for_containers(stack: Supervised, beside: Supervised) -> None:
    """Tell a home of a stack as of one in containers, which has no nodes but one whose machine has gone."""
    dev, home = stack.dev, Home(beside.home)
    home.make_folders()
    home.write_dev(msgspec.structs.replace(dev, projector_url=None, database_url=None))
    urls = dev.command_url, dev.query_url
    async with Client(*urls, dev.operator_token) as client:
        assert await Machine(home, os.environ, client, urls).has_peers()
        async for node in client.nodes.list():
            await client.node.remove(node_id=node.id, reason="as containers are none")
        await leave_a_dead_node(client, urls)


async def leave_a_dead_node(operator: Client, urls: tuple[str, str]) -> None:
    """Let a machine enrol by the name of one to come, be heard once, and go: nobody takes it for lost."""
    token = str((await operator.node.create_enrollment_token()).result.token)
    enrolled = (await operator.node.enroll(token=token, name="node-a", cpu_millis=1000, memory_bytes=2**31)).result
    async with Client(*urls, str(enrolled.credential)) as node:
        await node.nodes.heartbeat(enrolled.node_id, observed_position=0)


async def count_instances(stack: Supervised) -> int:
    dev = stack.dev
    async with Client(dev.command_url, dev.query_url, dev.operator_token) as client:
        return len([row async for row in client.instances.list() if row.status != "stopped"])


async def assert_reasons_name_nobody(stack: Supervised) -> None:
    """Hold people to be in the vault alone: the story tells e-mails, and what it sends as reasons does not."""
    dev = stack.dev
    async with Client(dev.command_url, dev.query_url, dev.operator_token) as client:
        emails = {row.email async for row in client.members.list()}
        reasons = [event.reason or "" async for event in client.events.list()]
    assert {"ada@acorn-bakery.example", "ben@birch-books-2.example"} <= emails
    assert reasons
    assert not [reason for reason in reasons if "@" in reason or "ada" in reason.split() or "ben" in reason.split()]


async def test_what_it_tells_is_what_it_promises(stack: Supervised) -> None:
    """Told once, since a stack takes long to start: the views, the trail, and each chapter."""
    await stack.start()
    told = demo(stack).stdout
    assert await stack.end() == 0
    assert_views_and_trail_say_what_was_done(told)
    assert_organisations_are_apart(told)
    assert_the_secret_is_its_nodes(told)
    assert_the_revoked_token_fails(told)
    assert_everybody_who_asked_was_answered(told)
    assert_the_rollback_did_what_its_dry_run_said(told)
    assert_rules_hold(told)
    assert not re.search(r"\b[a-z]+_[0-7][0-9a-z]{25}\b", told), "people are told names, not ids"


def assert_views_and_trail_say_what_was_done(told: str) -> None:
    production = next(line for line in section(told, "What runs at") if line.startswith("storefront  production"))
    assert re.split(r"\s{2,}", production)[2:4] == ["storefront 1", "web=3, worker=2"]
    deploys = section(told, "Deploys")
    assert [line.split()[5] for line in deploys[1:]].count("rollback") == 1
    routes = section(told, "Routes")
    assert [re.split(r"\s{2,}", line) for line in routes[1:]] == [
        ["shop.acorn-bakery.example", "storefront production", "web", "http"]
    ]
    running = section(told, "What runs, ")
    assert "orders production is healthy: api 2 of 2 ready, mailer 1 of 1 ready" in running
    assert {node for node in ("node-a", "node-b") if any(f"  {node}  " in line for line in running)} == {
        "node-a",
        "node-b",
    }
    trail = {tuple(re.split(r"\s{2,}", line)[2:4]) for line in section(told, "The audit trail")}
    assert trail >= {
        ("operator", "org.member_added"),
        ("ada", "release.created"),
        ("ci", "release.created"),
        ("scheduler", "deploy.status_changed"),
        ("ada", "secret.version_set"),
        ("ada", "principal.credential_revoked"),
        ("operator", "org.quota_set"),
    }


def assert_organisations_are_apart(told: str) -> None:
    fence = rows(section(told, "Neither sees the other"))
    assert ["GET /v1/apps/{id}", "the bakery's app", "shown: storefront"] in [row[2:] for row in fence]
    refused = [row for row in fence if "refused" in row[-1]]
    assert [row[1:3] for row in refused] == [
        ["ben", "GET /v1/apps/{id}"],
        ["ben", "app.rename"],
        ["ben", "project.create"],
        ["ada", "GET /v1/projects/{id}"],
    ]
    assert all(row[-1].startswith("refused, 404 not_found") for row in refused)


def assert_the_secret_is_its_nodes(told: str) -> None:
    secret = rows(section(told, "A secret that only its node can read"))
    reveals = [row for row in secret if row[2] == "secret.reveal"]
    assert [(row[1], row[-1].startswith("refused, 403 forbidden")) for row in reveals] == [
        ("operator", True),
        ("ada", True),
    ]
    assert [row[-1] for row in secret if row[2] == "GET /"] == ['"Hello", release 1, signed'] * 2
    trail = [re.split(r"\s{2,}", line)[2:4] for line in section(told, "The audit trail")]
    assert {who for who, what in (row for row in trail if len(row) == 2) if what == "secret.revealed"} <= {
        "node-a",
        "node-b",
    }


def assert_the_revoked_token_fails(told: str) -> None:
    program = [row for row in rows(section(told, "A token that is lost, and revoked")) if row[1] == "ci"]
    assert [(row[2], row[-1].partition(":")[0]) for row in program] == [
        ("release.create", "new checkout, ticket SHOP-118"),
        ("deploy.create", "refused, 403 forbidden"),
        ("release.create", "refused, 401 unauthenticated"),
        ("GET /v1/releases", "refused, 401 unauthenticated"),
    ]


def assert_rules_hold(told: str) -> None:
    rules = [row[-1] for row in rows(section(told, "What is refused")) if "refused" in row[-1]]
    assert [rule.split(":")[0].split()[-1] for rule in rules] == [
        "forbidden",
        "quota_exceeded",
        "quota_exceeded",
        "route_would_break",
        "in_use",
        "name_taken",
        "in_use",
        "unknown_process",
    ]


def assert_everybody_who_asked_was_answered(told: str) -> None:
    company = rows(section(told, "What a small company does"))
    assert [row[-1] for row in company if row[2] == "GET /"] == ['"Cake sale on Saturday", release 1'] * 3
    for chapter in ("From one release to the next", "A rollback, with its dry run"):
        (asked,) = (row for row in rows(section(told, chapter)) if row[1] == "anybody")
        assert re.fullmatch(
            r"asked all the while: [1-9]\d* by release 1 and [1-9]\d* by release 2, none unanswered", asked[-1]
        )


def assert_the_rollback_did_what_its_dry_run_said(told: str) -> None:
    recovery = section(told, "A rollback, with its dry run")
    dry, done = (row for row in rows(recovery) if row[2] == "env.rollback")
    assert dry[0] == ""
    assert done[0] > "0"
    changes = recovery[next(at for at, line in enumerate(recovery) if line.startswith("what it would")) + 1 :]
    assert [re.split(r"\s{2,}", line) for line in changes[:4]] == [
        ["release", "2", "1"],
        ["replicas/worker", "1", "2"],
        ["variables/CHECKOUT", "express", "-"],
        ["variables/GREETING", "-", "Cake sale on Saturday"],
    ]


def test_without_a_stack_it_says_how_to_get_one(stack: Supervised) -> None:
    told = demo(stack)
    assert told.returncode == 1
    assert "make run" in told.stderr
    assert "Traceback" not in told.stderr
