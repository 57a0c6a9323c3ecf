"""The parts of the model of convergence: what can be begun again, who plans, and who listens beside the agents."""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from random import Random

import msgspec

from keelson.client import Client
from keelson.client.stream import Confirmed, Desired
from support.command_world import IMAGE
from support.desired_judge import Apprentice
from support.feed_consumers import Answer, Ask, read_stream
from support.feed_judge import Told
from support.frames import Frame

# So many instances a node, about, and no more.
MOST_A_NODE = 5


class Part:
    """Something that runs while its context is entered, in a task of its own, and can be begun again."""

    def __init__(self, enter: Callable[[], AbstractAsyncContextManager[object]]) -> None:
        self._enter = enter
        self._begun = asyncio.Event()
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, and return once it runs."""
        self._begun.clear()
        self._over.clear()
        self._task = asyncio.create_task(self._run())
        begun = asyncio.create_task(self._begun.wait())
        await asyncio.wait([self._task, begun], return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        if self._task.done():
            self._task.result()

    async def stop(self) -> None:
        """End, and return once it has ended; raises what made it fail."""
        self._over.set()
        task, self._task = self._task, None
        if task is not None:
            await task

    async def restart(self) -> None:
        """End and begin."""
        await self.stop()
        await self.start()

    async def _run(self) -> None:
        async with self._enter():
            self._begun.set()
            await self._over.wait()


class Planner:
    """Places instances, and lets them go, as a scheduler would: by commands, of which each is done for sure."""

    def __init__(self, client: Client, nodes: Sequence[str], random: Random) -> None:
        self._client = client
        self._nodes = nodes
        self._random = random
        self._env_id = ""
        self._running: list[str] = []
        self.is_over = False
        self.commands = 0

    async def begin(self) -> None:
        """Make an environment that has a release."""
        client = self._client
        org_id = (await client.org.create(name="acme")).result.org_id
        project_id = (await client.project.create(org_id=org_id, name="web")).result.project_id
        app_id = (await client.app.create(project_id=project_id, name="shop")).result.app_id
        self._env_id = (await client.env.create(app_id=app_id, name="production")).result.env_id
        process = {"command": ["serve"], "ports": [{"name": "http", "port": 8080}], "memory_bytes": 2**20}
        release = await client.command(
            "release.create", {"app_id": app_id, "image": IMAGE, "processes": {"web": process}}
        )
        await client.deploy.create(env_id=self._env_id, release_id=release.result["release_id"])

    async def run(self) -> None:
        """Go on until it is over."""
        while not self.is_over:
            await self._do_something()
            self.commands += 1
            await asyncio.sleep(self._random.uniform(0.0, 0.2))

    async def _do_something(self) -> None:
        if len(self._running) < 2 or (
            self._random.random() < 0.5 and len(self._running) < MOST_A_NODE * len(self._nodes)
        ):
            node_id = self._random.choice(self._nodes)
            placed = await self._client.instance.allocate(env_id=self._env_id, process="web", node_id=node_id)
            self._running.append(placed.result.instance_id)
            return
        instance_id = self._running.pop(self._random.randrange(len(self._running)))
        state = self._random.choice(("draining", "stopped"))
        await self._client.command("instance.set_desired_state", {"instance_id": instance_id, "desired_state": state})


class Listener:
    """Follows what a node should be doing beside its agent, off the socket or by our client, and keeps all of it."""

    def __init__(self, apprentice: Apprentice, ask: Ask, client: Client | None) -> None:
        self.apprentice = apprentice
        self._ask = ask
        self._client = client
        self._cursor: str | None = None

    async def run(self) -> None:
        """Follow until cancelled, from what it knows or, now and then, from nothing."""
        while True:
            start = None if self._ask.likes(0.2) else self._cursor
            told = self.apprentice.begin(start)
            with suppress(OSError, TimeoutError):
                await (self._listen(start, told) if self._client is None else self._follow(self._client, start, told))
            if told and told[-1].kind == "resync":
                self._cursor = None
            await asyncio.sleep(self._ask.random.uniform(0.0, 0.1))

    async def _listen(self, start: str | None, told: list[Told]) -> None:
        def hear(frame: Frame) -> None:
            self._hear(told, Told(frame.kind, frame.id, json.loads(frame.data)))

        answer = Answer(hear)
        path = f"/v1/nodes/{self.apprentice.node_id}/desired"
        await read_stream(self._ask, path, start, {}, answer, is_slow=self._ask.likes(0.2))
        if answer.status == 410:
            self._cursor = None

    async def _follow(self, client: Client, start: str | None, told: list[Told]) -> None:
        lasts_s = None if self._ask.calm() else self._ask.random.uniform(0.5, 3.0)
        async with asyncio.timeout(lasts_s), aclosing(client.follow_desired(self.apprentice.node_id, start)) as items:
            async for item in items:
                self._hear(told, _told_by(item, self._cursor))

    def _hear(self, told: list[Told], each: Told) -> None:
        told.append(each)
        self._cursor = each.cursor or self._cursor


def _told_by(item: Desired | Confirmed, cursor: str | None) -> Told:
    """Give what an item of the client says; a confirmation is of the epoch that was told last."""
    body = json.loads(msgspec.json.encode(item))
    if isinstance(item, Desired):
        return Told("event", item.cursor, body)
    return Told("bookmark", f"{(cursor or '-').rpartition('-')[0]}-{item.version}", body)
