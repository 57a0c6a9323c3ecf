"""The scheduler as a process against real services, with agents that run nothing: it converges, and survives."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from keelson.client import Client
from keelson.client.reads.events import EventItem
from keelson.client.reads.nodes import Node
from keelson.local.child import Child, service_environ
from support.database import Cluster, Database
from support.repository import ROOT
from support.stack import Stack, running_stack
from support.tiny_agent import BROKEN, TinyAgent, tiny_agent
from support.waiting import eventually, free_port

IMAGE = "registry.example/shop@sha256:" + "0" * 64
# Long against what this very process may be held up, agents and all; short for what waits for it.
LOST_AFTER_S = 60.0
SOON_LOST_AFTER_S = 4.0


class Platform:
    """Services, two nodes in two zones, a client, and as many schedulers as a test starts."""

    def __init__(self, stack: Stack, client: Client, agents: Mapping[str, TinyAgent], logs: Path) -> None:
        self.client = client
        self.agents = agents
        self.stack = stack
        self._logs = logs
        self.schedulers: list[Child] = []
        self.app_id = ""

    async def start_scheduler(self, **settings: str | float) -> Child:
        """Start another scheduler; return when it is ready."""
        number = len(self.schedulers)
        given: dict[str, Any] = {
            "port": free_port(),
            "command_url": self.stack.commands[0].url,
            "query_url": self.stack.queries[0].url,
            "token": self.stack.operator_token,
            "node_lost_after_s": LOST_AFTER_S,
            **settings,
        }
        environ = service_environ(os.environ, **given)
        child = Child(f"scheduler-{number}", "keelson.scheduler", environ, self._logs / f"scheduler-{number}.log")
        self.schedulers.append(child)
        await child.start()
        await self.stack.wait_until_ready(child)
        return child

    async def create_env(self) -> str:
        """Make an app, and an environment of it."""
        org = await self.client.org.create(name="acme", owner_email="owner@acme.example")
        project = await self.client.project.create(org_id=org.result.org_id, name="shop")
        app = await self.client.app.create(project_id=project.result.project_id, name="web")
        self.app_id = app.result.app_id
        return (await self.client.env.create(app_id=self.app_id, name="production")).result.env_id

    async def deploy(self, env_id: str, command: tuple[str, ...] = ("serve",), **replicas: int) -> str:
        """Deploy another release of `web`; give the deploy."""
        process = {"command": command, "ports": [{"name": "http", "port": 8080}], "memory_bytes": 2**26}
        answer = await self.client.command(
            "release.create", {"app_id": self.app_id, "image": IMAGE, "processes": {"web": process}}
        )
        deploy = await self.client.deploy.create(env_id=env_id, release_id=answer.result["release_id"])
        if replicas:
            await self.client.env.scale(env_id=env_id, replicas=replicas)
        return deploy.result.deploy_id

    async def running(self, env_id: str) -> list[dict[str, Any]]:
        """Give the instances that should run."""
        rows = [row async for row in self.client.list("instances", env_id=env_id)]
        return [row for row in rows if row["desired_state"] == "running" and row["status"] != "stopped"]

    async def ready(
        self, env_id: str, count: int, release_number: int, timeout_s: float = 30.0
    ) -> list[dict[str, Any]]:
        """Return when exactly so many of a release run, all of them ready."""

        async def arrived() -> list[dict[str, Any]]:
            running = await self.running(env_id)
            said = [(row["status"], row["release_number"]) for row in running]
            assert said == [("ready", release_number)] * count, said
            return running

        return await eventually(arrived, timeout_s, interval_s=0.1)

    async def begun(self, env_id: str, release_number: int) -> None:
        """Return when something of a release runs."""

        async def has_begun() -> bool:
            return any(row["release_number"] == release_number for row in await self.running(env_id))

        await eventually(has_begun, 30.0)

    async def deploy_is(self, deploy_id: str, status: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """Return when a deploy has a status."""

        async def is_so() -> dict[str, Any]:
            row = await self.client.read("deploys", deploy_id)
            assert row["status"] == status, row
            return row

        return await eventually(is_so, timeout_s, interval_s=0.1)

    async def node(self, name: str) -> Node:
        """Give a node's row."""
        return await self.client.nodes.get(self.agents[name].node_id)

    async def events(self) -> list[EventItem]:
        """Give the whole log."""
        return [event async for event in self.client.events.list(limit=500)]


@pytest.fixture
async def platform(cluster: Cluster, database: Database, tmp_path: Path) -> AsyncIterator[Platform]:
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(
            running_stack(cluster, database, tmp_path, rate_limit_per_s=0, log_level="info")
        )
        urls = services.commands[0].url, services.queries[0].url
        client = await stack.enter_async_context(Client(*urls, services.operator_token))
        agents = {
            zone: await stack.enter_async_context(tiny_agent(client, *urls, f"node-{zone}", zone=zone))
            for zone in ("a", "b")
        }
        platform = Platform(services, client, agents, tmp_path)
        try:
            yield platform
        finally:
            for child in platform.schedulers:
                await child.stop()


def judge(events: list[EventItem], surge: int = 1) -> None:
    """Hold a log of one process against the promises: never more run, and a drain never leaves fewer ready."""
    wanted, running, ready, offline, of = 0, set[str](), set[str](), set[str](), dict[str, str]()
    for event in events:
        instance, payload = event.aggregate_id, event.payload
        match event.type:
            case "env.release_set":
                wanted = payload["processes"]["web"]["replicas"]
            case "env.scaled":
                wanted = payload["replicas"]["web"]
            case "node.state_changed":
                (offline.add if payload["state"] == "offline" else offline.discard)(event.aggregate_id)
            case "instance.allocated":
                running.add(instance)
                of[instance] = str(event.node_id)
                assert len(running) <= wanted + surge, f"{len(running)} run at {event.position}"
            case "instance.status_changed":
                (ready.add if payload["status"] == "ready" else ready.discard)(instance)
                if payload["status"] == "stopped":
                    running.discard(instance)
            case "instance.desired_state_changed":
                running.discard(instance)
                if instance in ready and payload["desired_state"] == "draining":
                    left = {each for each in ready & running if of[each] not in offline}
                    assert len(left) >= wanted, f"{len(left)} are ready at {event.position}"


async def test_it_places_what_is_wanted_and_says_so(platform: Platform) -> None:
    scheduler = await platform.start_scheduler()
    env_id = await platform.create_env()

    deploy_id = await platform.deploy(env_id, web=3)

    running = await platform.ready(env_id, 3, 1)
    assert {row["node_id"] for row in running} == {agent.node_id for agent in platform.agents.values()}
    await platform.deploy_is(deploy_id, "succeeded")
    events = await platform.events()
    allocated = [each for each in events if each.type == "instance.allocated"]
    assert all(each.reason and each.causation_id and each.causation_id < each.position for each in allocated)
    judge(events)
    scheduler_process = scheduler.identity
    assert scheduler_process is not None
    os.kill(scheduler_process.pid, signal.SIGTERM)
    assert await scheduler.wait() == "ended with exit code 0"


async def test_releases_config_scale_drains_and_zero_are_rolled_out(platform: Platform) -> None:
    await platform.start_scheduler()
    env_id = await platform.create_env()
    await platform.deploy(env_id, web=3)
    first = await platform.ready(env_id, 3, 1)

    await platform.deploy(env_id)
    second = await platform.ready(env_id, 3, 2)
    await platform.client.env.set_config(env_id=env_id, variables={"MODE": "other"})

    async def all_are_other() -> bool:
        running = await platform.ready(env_id, 3, 2, 0.0)
        return {row["id"] for row in running}.isdisjoint(row["id"] for row in [*first, *second])

    await eventually(all_are_other, 30.0)
    await platform.client.node.set_state(node_id=platform.agents["a"].node_id, state="draining")

    async def all_are_elsewhere() -> bool:
        running = await platform.ready(env_id, 3, 2, 0.0)
        return all(row["node_id"] == platform.agents["b"].node_id for row in running)

    await eventually(all_are_elsewhere, 30.0)
    await platform.client.env.scale(env_id=env_id, replicas={"web": 1})
    await platform.ready(env_id, 1, 2)
    await platform.client.env.scale(env_id=env_id, replicas={"web": 0})

    async def all_have_stopped() -> bool:
        rows = [row async for row in platform.client.list("instances", env_id=env_id)]
        return all(row["status"] == "stopped" for row in rows)

    await eventually(all_have_stopped, 30.0)
    judge(await platform.events())


async def test_killed_in_the_middle_of_a_rollout_it_goes_on_where_it_was(platform: Platform) -> None:
    scheduler = await platform.start_scheduler()
    env_id = await platform.create_env()
    await platform.deploy(env_id, web=4)
    await platform.ready(env_id, 4, 1)

    deploy_id = await platform.deploy(env_id)

    await platform.begun(env_id, 2)
    await platform.stack.kill(scheduler)
    await platform.stack.restart(scheduler)

    await platform.ready(env_id, 4, 2)
    await platform.deploy_is(deploy_id, "succeeded")
    judge(await platform.events())


async def test_two_at_once_place_nothing_twice(platform: Platform) -> None:
    await platform.start_scheduler()
    await platform.start_scheduler()
    env_id = await platform.create_env()
    await platform.deploy(env_id, web=4)
    await platform.ready(env_id, 4, 1)

    for number in (2, 3):
        await platform.deploy(env_id)
        await platform.ready(env_id, 4, number)
    await platform.client.env.scale(env_id=env_id, replicas={"web": 6})
    await platform.ready(env_id, 6, 3)

    events = await platform.events()
    judge(events)
    # Four at first, each replaced twice, and two more: nothing that was not wanted.
    assert len([each for each in events if each.type == "instance.allocated"]) == 4 * 3 + 2


async def test_a_node_that_falls_silent_is_lost_and_is_back_when_it_is_heard(platform: Platform) -> None:
    await platform.start_scheduler(node_lost_after_s=SOON_LOST_AFTER_S)
    env_id = await platform.create_env()
    await platform.deploy(env_id, web=2)
    await platform.ready(env_id, 2, 1)
    agent = platform.agents["a"]

    agent.is_alive = False

    async def all_are_elsewhere() -> bool:
        running = await platform.ready(env_id, 2, 1, 0.0)
        return all(row["node_id"] != agent.node_id for row in running)

    await eventually(all_are_elsewhere, 30.0)
    node = await platform.node("a")
    assert (node.state, node.message) == ("offline", "no heartbeat for 4 s")
    agent.is_alive = True

    async def is_active() -> bool:
        return (await platform.node("a")).state == "active"

    await eventually(is_active, 30.0)
    judge(await platform.events())


async def test_an_outage_of_the_control_plane_loses_no_node(platform: Platform) -> None:
    scheduler = await platform.start_scheduler(node_lost_after_s=SOON_LOST_AFTER_S)
    env_id = await platform.create_env()
    await platform.deploy(env_id, web=2)
    before = await platform.ready(env_id, 2, 1)

    await platform.stack.kill(platform.stack.commands[0])
    await asyncio.sleep(1.5 * SOON_LOST_AFTER_S)
    assert await scheduler.read_unreadiness() is not None
    await platform.stack.restart(platform.stack.commands[0])
    await platform.stack.wait_until_ready(scheduler)

    assert {row["id"] for row in await platform.ready(env_id, 2, 1)} == {row["id"] for row in before}
    assert not [each for each in await platform.events() if each.type == "node.state_changed"]


async def test_a_deploy_that_comes_no_further_fails_and_what_worked_works(platform: Platform) -> None:
    scheduler = await platform.start_scheduler(deploy_timeout_s=2)
    env_id = await platform.create_env()
    await platform.deploy(env_id, web=2)
    await platform.ready(env_id, 2, 1)

    deploy_id = await platform.deploy(env_id, BROKEN)

    await platform.begun(env_id, 2)
    await platform.stack.kill(scheduler)
    await platform.stack.restart(scheduler)
    row = await platform.deploy_is(deploy_id, "failed")
    assert "web: 0 of 2 ready, instance_" in row["message"]
    assert "exited, exit code 1" in row["message"]
    await platform.ready(env_id, 2, 1)
    judge(await platform.events())


async def test_its_metrics_and_checks_are_those_of_its_page(platform: Platform) -> None:
    scheduler = await platform.start_scheduler()
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{scheduler.url}/metrics") as response:
            kinds = re.findall(r"^# TYPE (keelson_scheduler\S+) \S+$", await response.text(), re.MULTILINE)
        async with session.get(f"{scheduler.url}/readyz") as response:
            checks = (await response.json())["checks"]
    page = (ROOT / "docs" / "scheduler.md").read_text(encoding="utf-8")
    assert {each for each in kinds if not each.endswith("_created")} == set(re.findall(r"`(keelson_\w+)`", page))
    assert set(checks) == set(re.findall(r"^\| `(\w+)` \| `", page, re.MULTILINE))
    assert set(checks.values()) == {"ok"}


async def test_without_room_it_says_so_in_its_metrics(platform: Platform) -> None:
    scheduler = await platform.start_scheduler()
    env_id = await platform.create_env()
    await platform.deploy(env_id, web=40)

    async def says_so() -> bool:
        async with aiohttp.ClientSession() as session, session.get(f"{scheduler.url}/metrics") as response:
            text = await response.text()
        return 'keelson_scheduler_instances{standing="unplaced"} 8.0' in text

    await eventually(says_so, 30.0)
    await platform.client.env.scale(env_id=env_id, replicas={"web": 32})
    await platform.ready(env_id, 32, 1)
