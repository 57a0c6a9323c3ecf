"""Agents of nodes as real processes, and what an operator does with them by hand."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import msgspec

from keelson.agent.drivers.process.identity import has_variable, pids
from keelson.client import Client, ProblemError
from keelson.client.commands.release import Health, Port, Process
from keelson.client.reads.events import EventItem
from keelson.client.reads.instances import InstanceRow
from keelson.local.child import Child, service_environ
from support.instances import IMAGE, SERVES
from support.stack import Stack
from support.waiting import eventually

_NUMBERS = count(1)


@dataclass
class Agent:
    """The agent of a node as a process of its own, on a folder; nothing of it runs after the test."""

    child: Child
    node_id: str
    state: Path

    async def start(self) -> None:
        """Start it, or start it again."""
        await self.child.start()

    async def kill(self) -> None:
        """End it as a crash would."""
        await asyncio.to_thread(self.child.kill)

    @property
    def log(self) -> str:
        """What it has logged."""
        return self.child.log.read_text()

    def logged(self, event: str) -> Sequence[Mapping[str, object]]:
        """Give the lines of this event."""
        lines = [line for line in self.log.splitlines() if line.startswith("{")]
        decoded = [msgspec.json.decode(line, type=dict[str, object]) for line in lines]
        return [line for line in decoded if line["event"] == event]

    def told(self, instance_id: str) -> Sequence[object]:
        """Give the statuses that it has told of an instance, be they new to the command service or not."""
        return [line["status"] for line in self.logged("report_told") if line["instance_id"] == instance_id]


@dataclass
class Operator:
    """An operator, with an app whose release has one process: a small web server."""

    client: Client
    env_id: str
    app_id: str

    async def allocate(self, node_id: str) -> str:
        """Place an instance; give its id."""
        answer = await self.client.instance.allocate(env_id=self.env_id, process="web", node_id=node_id)
        return answer.result.instance_id

    async def read(self, instance_id: str) -> InstanceRow | None:
        """Give an instance as the views have it; None if they have it not yet."""
        try:
            return await self.client.instances.get(instance_id)
        except ProblemError as error:
            if error.status == 404:
                return None
            raise

    async def until(self, instance_id: str, *statuses: str, timeout_s: float = 20.0) -> InstanceRow:
        """Wait until an instance has one of these statuses."""

        async def has() -> InstanceRow:
            row = await self.read(instance_id)
            assert row is not None
            assert row.status in statuses, row
            return row

        return await eventually(has, timeout_s)

    async def told(self, instance_id: str) -> list[str]:
        """Give the statuses that an instance has had, in order."""
        events = [each async for each in self.client.events.list(aggregate_id=instance_id)]
        return [str(event.payload["status"]) for event in events if event.type == "instance.status_changed"]

    async def events(self) -> list[EventItem]:
        """Give the whole log."""
        return [each async for each in self.client.events.list()]


@asynccontextmanager
async def operating(
    stack: Stack,
    command: Sequence[str] = SERVES,
    *,
    secrets: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
) -> AsyncIterator[Operator]:
    """Make an app of one process and deploy it; `secrets` are its environment's."""
    number = next(_NUMBERS)
    async with Client(stack.commands[0].url, stack.queries[0].url, stack.operator_token) as client:
        org_id = (await client.org.create(name=f"org-{number}")).result.org_id
        project_id = (await client.project.create(org_id=org_id, name="shop")).result.project_id
        app_id = (await client.app.create(project_id=project_id, name="web")).result.app_id
        env_id = (await client.env.create(app_id=app_id, name="production")).result.env_id
        process = Process(
            command=list(command),
            ports=[Port(name="http", port=8080)],
            health=Health(path="/", port="http", interval_s=1),
            needs_secrets=secrets is not None,
        )
        release = await client.release.create(app_id=app_id, image=IMAGE, processes={"web": process})
        if variables:
            await client.env.set_config(env_id=env_id, variables=variables)
        if secrets:
            await client.secret.set(env_id=env_id, values=secrets)
        await client.deploy.create(env_id=env_id, release_id=release.result.release_id)
        yield Operator(client, env_id, app_id)


@asynccontextmanager
async def enrolled(stack: Stack, operator: Operator, folder: Path, **settings: str | float) -> AsyncIterator[Agent]:
    """Let an agent enrol, and run it; it and all that it ran are ended afterwards."""
    awaited = (await operator.client.node.create_enrollment_token()).result
    assert awaited.token is not None
    agent = agent_of(stack, folder, awaited.node_id, enrollment_token=awaited.token, **settings)
    await agent.start()
    try:
        await eventually(lambda: _has_been_heard(operator.client, awaited.node_id), 20.0)
        yield agent
    finally:
        await agent.child.stop(grace_s=5.0)
        end_all(agent.state)


def agent_of(stack: Stack, folder: Path, node_id: str = "", **settings: str | float) -> Agent:
    """Give an agent that does not run yet, on a folder of its own."""
    number = next(_NUMBERS)
    state = folder / f"node-{number}"
    given = {
        "command_url": stack.commands[0].url,
        "query_url": stack.queries[0].url,
        "state": str(state),
        "node_name": f"node-{number}",
        "memory_bytes": 2**31,
        "process_root": str(folder),
        "heartbeat_interval_s": 0.3,
        "drain_s": 0.1,
        "stop_grace_s": 2.0,
        "log_level": "debug",
        **settings,
    }
    environ = service_environ(os.environ, **{name: str(value) for name, value in given.items()})
    return Agent(Child(f"agent-{number}", "keelson.agent", environ, folder / f"agent-{number}.log"), node_id, state)


def pids_of(instance_id: str) -> list[int]:
    """Give the pids of what runs of an instance."""
    return [pid for pid in pids() if has_variable(pid, f"KEELSON_INSTANCE_ID={instance_id}")]


def end_all(state: Path) -> None:
    """End all that an agent has left running."""
    for folder in (state / "instances").glob("*"):
        for pid in pids_of(folder.name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def _has_been_heard(client: Client, node_id: str) -> bool:
    try:
        node = await client.nodes.get(node_id)
    except ProblemError:
        return False
    return node.state == "active" and node.heartbeat_at is not None
