"""One run of the model of convergence, by seed: simulated nodes behind faults, what they were told, and what they did.

The command service, the projector, two replicas of the query service and all agents run within the test's process, each
in a task of its own that can be ended and begun again. An operator places instances and lets them go by commands.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Any

from keelson.agent.fleet import Plan as FleetPlan
from keelson.agent.fleet import SimulatedFleet, SimulatedNode
from keelson.client import Client
from keelson.client.following import StreamTimes
from support.command_world import TOKEN, serving
from support.convergence_parts import Listener, Part, Planner
from support.database import Cluster, Database
from support.desired_judge import Apprentice, DesiredJudge, faults_of_doing
from support.feed_consumers import Ask
from support.feed_faults import Replicas, running_replicas
from support.feed_judge import Fault
from support.feed_world import FeedWorld
from support.log import connected, read_epoch
from support.projecting import replica
from support.proxy import Direction, Fate, Proxy, running_proxy
from support.waiting import eventually, free_port

NODES = 4
SETTINGS: dict[str, Any] = {
    "operator_token": TOKEN,
    "feed_ring_events": 16,
    "feed_bookmark_interval_s": 0.5,
    "feed_send_timeout_s": 1.0,
}
TIMES = StreamTimes(idle_timeout_s=3.0, retry_s=0.02, max_retry_s=0.2)
FAULTS: Mapping[str, int] = {
    "cut": 4,
    "stall": 2,
    "refuse": 2,
    "restart_query": 2,
    "restart_command": 2,
    "restart_projector": 1,
    "restart_agent": 4,
    "cut_readers": 2,
    "begin_epoch": 2,
}


@dataclass(frozen=True)
class Plan:
    """How much of everything: steps of which faults, the share of connections that are cut, and patience afterwards.

    An agent that was turned away some times asks again after ten seconds at most.
    """

    steps: int = 12
    faults: Mapping[str, int] = field(default_factory=lambda: FAULTS)
    doomed: float = 0.4
    patience_s: float = 30.0


class Site:
    """The services, the agents, and the ways between them."""

    def __init__(self, world: FeedWorld, replicas: Replicas, command: Part, projector: Part, proxy: Proxy) -> None:
        self.world = world
        self.replicas = replicas
        self.command = command
        self.projector = projector
        self.command_proxy = proxy
        self.nodes: list[SimulatedNode] = []
        self.agents: list[Part] = []

    def calm_down(self) -> None:
        """Let everything go well from now on."""
        self.replicas.calm_down()
        self.command_proxy.refuses = False
        self.command_proxy.cut()


class Run:
    """One seed's run at a site."""

    def __init__(self, seed: int, plan: Plan, site: Site, planner: Planner) -> None:
        self._plan = plan
        self._site = site
        self._planner = planner
        self._random = Random(f"{seed}/faults")
        self._made: Counter[str] = Counter()
        self._apprentices: list[Apprentice] = []

    async def go_through(self, listeners: Sequence[Listener]) -> str:
        """Plan and break until the schedule is over, then be calm until all is as it should be; tell how it went."""
        self._apprentices = [listener.apprentice for listener in listeners]
        async with asyncio.TaskGroup() as tasks:
            listening = [tasks.create_task(listener.run()) for listener in listeners]
            planning = tasks.create_task(self._planner.run())
            for kind in self._random.choices([*self._plan.faults], [*self._plan.faults.values()], k=self._plan.steps):
                await asyncio.sleep(self._random.uniform(0.05, 0.3))
                self._made[kind] += 1
                await getattr(self, kind)()
            self._site.calm_down()
            self._planner.is_over = True
            await planning
            await self._come_to_rest()
            for task in listening:
                task.cancel()
        told = sum(len(told) for each in self._apprentices for _, told in each.sessions)
        return f"{dict(self._made)}, {self._planner.commands} commands, told {told} things"

    async def _come_to_rest(self) -> None:
        """Wait until nothing is missing; what still is afterwards is the judge's business."""
        try:
            await eventually(self._is_at_rest, self._plan.patience_s, interval_s=0.2)
        except AssertionError:
            return

    async def _is_at_rest(self) -> bool:
        return not await self.faults_at_rest()

    async def faults_at_rest(self) -> list[Fault]:
        """Name what is not as the log wants it, or not known."""
        epochs = await self._site.world.epochs()
        judge = DesiredJudge(epochs)
        log = epochs[-1].log
        faults = [fault for each in self._apprentices for fault in judge.faults_at_rest(each, epochs[-1].name)]
        for node in self._site.nodes:
            running = [instance_id for instance_id, run in node.driver.runs.items() if run.runs]
            faults += faults_of_doing(log, node.node_id, running)
        return faults

    async def faults(self) -> list[Fault]:
        """Name whatever was wrong."""
        judge = DesiredJudge(await self._site.world.epochs())
        during = [fault for each in self._apprentices for fault in judge.faults_of(each)]
        return during + await self.faults_at_rest()

    async def cut(self) -> None:
        """Cut all connections through the proxies."""
        self._site.replicas.proxy.cut()
        self._site.command_proxy.cut()

    async def stall(self) -> None:
        """Hold back what the query service tells, for a moment."""
        await self._site.replicas.stall()

    async def refuse(self) -> None:
        """Take no connections, for a moment."""
        self._site.command_proxy.refuses = True
        await self._site.replicas.refuse()
        self._site.command_proxy.refuses = False

    async def restart_query(self) -> None:
        """End a replica of the query service, and begin it again."""
        await self._site.replicas.restart_one()

    async def restart_command(self) -> None:
        """End the command service, and begin it again."""
        await self._site.command.restart()

    async def restart_projector(self) -> None:
        """End the projector, and begin it again."""
        await self._site.projector.restart()

    async def restart_agent(self) -> None:
        """End an agent as a crash would; what it runs goes on, and the next one finds it."""
        await self._random.choice(self._site.agents).restart()

    async def cut_readers(self) -> None:
        """Cut the query service off from the database."""
        await self._site.world.cut_readers()

    async def begin_epoch(self) -> None:
        """Begin an epoch, the log as it is."""
        await self._site.world.begin_epoch(f"next{self._made['begin_epoch']}")


def _doom(proxy: Proxy, replicas: Replicas, random: Random, doomed: float) -> None:
    """Cut this share of the connections through a proxy after some bytes."""
    whole = proxy.fate

    def fate() -> Fate:
        if replicas.is_calm or random.random() >= doomed:
            return whole()
        return Fate(whole().target, Direction(cut_after_bytes=random.randrange(3000), resets=random.random() < 0.5))

    proxy.fate = fate


async def _begin_site(stack: AsyncExitStack, database: Database, seed: int, plan: Plan) -> tuple[Site, str]:
    """Begin everything but nodes; give the URL at which the command service is reached for sure."""
    connection = await stack.enter_async_context(connected(database.admin_dsn))
    world = FeedWorld(connection, await read_epoch(connection))
    port, random = free_port(), Random(f"{seed}/ways")
    command = Part(lambda: serving(database, port=port))
    projector = Part(lambda: replica(database))
    for part in (projector, command):
        await part.start()
        stack.push_async_callback(part.stop)
    replicas = await stack.enter_async_context(running_replicas(database, random, plan.doomed, **SETTINGS))
    proxy = await stack.enter_async_context(running_proxy("127.0.0.1", port))
    _doom(proxy, replicas, random, plan.doomed)
    return Site(world, replicas, command, projector, proxy), f"http://127.0.0.1:{port}"


async def _begin_agents(stack: AsyncExitStack, site: Site, operator: Client) -> None:
    ways = [f"http://127.0.0.1:{proxy.port}" for proxy in (site.command_proxy, site.replicas.proxy)]
    fleet_plan = FleetPlan(command_url=ways[0], query_url=ways[1], heartbeat_interval_s=0.5, ready_after_s=0.02)
    site.nodes = list((await SimulatedFleet.enrol(operator, fleet_plan, NODES)).nodes)
    for node in site.nodes:
        agent = Part(node.running)
        await agent.start()
        stack.push_async_callback(agent.stop)
        site.agents.append(agent)


async def _listeners(stack: AsyncExitStack, site: Site, seed: int) -> list[Listener]:
    """Let two listen beside each agent, by its credential: one off the socket, one by our client."""
    listeners: list[Listener] = []
    replicas = site.replicas
    url = f"http://127.0.0.1:{replicas.proxy.port}"
    for node in site.nodes:
        token = node._credential
        client = await stack.enter_async_context(Client(url, url, token, stream_times=TIMES))
        for name, by in (("stream", None), ("client", client)):
            random = Random(f"{seed}/{len(listeners)}")
            ask = Ask(lambda: replicas.proxy.port, replicas.port, token, random, lambda: replicas.is_calm)
            listeners.append(Listener(Apprentice(f"{name} of {node.node_id}", node.node_id), ask, by))
    return listeners


async def run_convergence(cluster: Cluster, seed: int, plan: Plan) -> list[Fault]:
    """Run one seed on a database of its own; give what was wrong."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(cluster.fresh_database())
        site, url = await _begin_site(stack, database, seed, plan)
        operator = await stack.enter_async_context(Client(url, url, TOKEN))
        await _begin_agents(stack, site, operator)
        planner = Planner(operator, [node.node_id for node in site.nodes], Random(f"{seed}/planner"))
        await planner.begin()
        run = Run(seed, plan, site, planner)
        said = await run.go_through(await _listeners(stack, site, seed))
        faults = await run.faults()
    print(f"seed {seed}: {said}; {len(faults)} faults")  # noqa: T201
    return faults
