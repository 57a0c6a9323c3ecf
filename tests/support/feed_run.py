"""One run of the change feed's model, by seed: who listens, what befalls them, and what the judge says of it."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from random import Random
from time import monotonic
from typing import Any

from keelson.client import Client
from keelson.client.following import StreamTimes
from support.database import Cluster
from support.feed_consumers import Ask, Follower, Listener, Pager, Streamer
from support.feed_faults import FAULTS, Conductor, Replicas, running_replicas
from support.feed_judge import Consumer, Fault, Judge
from support.feed_world import CORRELATIONS, ENVS, NODES, ORGS, Credential, FeedWorld, open_feed_world
from support.query_world import TOKEN
from support.waiting import eventually

# Small, so that whoever falls behind at all has to be caught up from the database.
SETTINGS: dict[str, Any] = {"feed_ring_events": 16, "feed_bookmark_interval_s": 0.5, "feed_send_timeout_s": 1.0}
# What a client waits between connections, and for a stream that is silent.
TIMES = StreamTimes(idle_timeout_s=3.0, retry_s=0.02, max_retry_s=0.2)
# Longer than a credential may be told of anything after its revocation.
AFTER_REVOCATION_S = 1.2

# How often patience is renewed for those who are still told something.
_RESTS = 6

# What operators ask for; the last two never happen.
WANTED: tuple[dict[str, str], ...] = (
    {},
    {"org_id": ORGS[0]},
    {"env_id": str(ENVS[0].env_id)},
    {"node_id": NODES[0]},
    {"aggregate_type": "instance", "org_id": ORGS[1]},
    {"correlation_id": CORRELATIONS[0], "app_id": str(ENVS[2].app_id)},
    {"request_id": "request-3"},
    {"org_id": "org_00000000000000000000000099"},
    {"type": "env.scaled"},
)


@dataclass(frozen=True)
class Plan:
    """How much of everything: steps of which faults, what operators and how many principals ask for, and patience.

    `doomed` is the share of connections that are cut after so many bytes.
    """

    steps: int = 14
    faults: Mapping[str, int] = field(default_factory=lambda: FAULTS)
    wanted: tuple[dict[str, str], ...] = WANTED
    principals: int = 5
    doomed: float = 0.6
    patience_s: float = 15.0


class Run:
    """The world, who listens, and what befell them."""

    def __init__(self, seed: int, plan: Plan, world: FeedWorld, replicas: Replicas) -> None:
        self._seed = seed
        self._plan = plan
        self._world = world
        self._replicas = replicas
        self._listeners: list[Listener] = []
        self._by_credential: dict[str, list[Consumer]] = {}
        self._revoked_at = 0.0
        self._is_written = False

    async def listen(self, stack: AsyncExitStack) -> list[Credential]:
        """Let everybody be there who will listen; give the credentials that they listen by."""
        for number, wanted in enumerate(self._plan.wanted):
            for kind in (Streamer, Pager):
                self._listeners.append(kind(Consumer(f"{kind.__name__} {number}", wanted), self._ask(TOKEN)))
            self._listeners.append(await self._follower(stack, Consumer(f"Follower {number}", wanted), TOKEN))
        return [await self._listen_as_principal(stack, number) for number in range(self._plan.principals)]

    async def _listen_as_principal(self, stack: AsyncExitStack, number: int) -> Credential:
        credential = await self._world.issue(ORGS[number % len(ORGS)])
        stream, followed = (
            Consumer(f"{kind} of {credential.principal_id}", {}, credential.org_id) for kind in ("Streamer", "Follower")
        )
        self._by_credential[credential.credential_id] = [stream, followed]
        self._listeners.append(Streamer(stream, self._ask(credential.token)))
        self._listeners.append(await self._follower(stack, followed, credential.token))
        return credential

    def _ask(self, token: str) -> Ask:
        random = Random(f"{self._seed}/{len(self._listeners)}")
        replicas = self._replicas
        return Ask(lambda: replicas.proxy.port, replicas.port, token, random, lambda: replicas.is_calm)

    async def _follower(self, stack: AsyncExitStack, consumer: Consumer, token: str) -> Follower:
        url = f"http://127.0.0.1:{self._replicas.proxy.port}"
        client = await stack.enter_async_context(Client(url, url, token, stream_times=TIMES))
        return Follower(consumer, self._ask(token), client)

    async def revoke(self, credential: Credential) -> None:
        """Revoke a credential; whoever listens by it is told nothing of what comes a second later."""
        recorded_at = await self._world.revoke(credential)
        self._revoked_at = monotonic()
        for consumer in self._by_credential[credential.credential_id]:
            consumer.revoked_at = recorded_at

    async def go_through(self, credentials: list[Credential]) -> str:
        """Write and break until the schedule is over, then be calm, until all that listen are at the log's end.

        One credential stays good. Gives what the run was like.
        """
        random = Random(f"{self._seed}/faults")
        conductor = Conductor(random, self._world, self._replicas, credentials[1:], self.revoke)
        async with asyncio.TaskGroup() as tasks:
            listening = [tasks.create_task(listener.run()) for listener in self._listeners]
            writing = tasks.create_task(self._write())
            await conductor.run(self._plan.steps, self._plan.faults)
            await eventually(lambda: monotonic() > self._revoked_at + AFTER_REVOCATION_S)
            self._replicas.calm_down()
            self._is_written = True
            await writing
            await self._come_to_rest()
            for task in listening:
                task.cancel()
        return f"{dict(conductor.made)}, {self._describe()}"

    async def _write(self) -> None:
        random = Random(f"{self._seed}/writer")
        while not self._is_written:
            for _ in range(random.choice((1, 1, 1, 1, 5, 30))):
                await self._world.append_at_random(random)
            await asyncio.sleep(random.uniform(0.0, 0.1))

    async def _come_to_rest(self) -> None:
        """Wait until all have the head's cursor; who is told nothing more and never gets there is the judge's business.

        Who is still told something has not been forgotten, however slow the machine may be; within bounds.
        """
        for _ in range(_RESTS):
            told = self._told()
            with suppress(AssertionError):
                await eventually(self._is_at_rest, self._plan.patience_s)
            if self._is_at_rest() or self._told() == told:
                return

    def _is_at_rest(self) -> bool:
        return all(listener.cursor == self._world.cursor for listener in self._lasting())

    def _lasting(self) -> list[Listener]:
        return [listener for listener in self._listeners if listener.consumer.revoked_at is None]

    def _told(self) -> int:
        """Count the places with an event that were told; what is told again and again brings nobody further."""
        return sum(
            len(
                {each.cursor for session in listener.consumer.sessions for each in session.told if each.kind == "event"}
            )
            for listener in self._lasting()
        )

    def _describe(self) -> str:
        sessions = [session for listener in self._listeners for session in listener.consumer.sessions]
        told = sum(len(session.told) for session in sessions)
        return f"at {self._world.cursor}, {len(sessions)} sessions were told {told} things"

    async def judge(self) -> list[Fault]:
        """Name all that was wrong."""
        judge = Judge(await self._world.epochs())
        during = [fault for listener in self._listeners for fault in judge.faults_of(listener.consumer)]
        return during + [fault for each in self._lasting() for fault in judge.faults_at_rest(each.consumer)]


async def run_feed(cluster: Cluster, seed: int, plan: Plan) -> list[Fault]:
    """Run one seed on a database of its own; give what was wrong."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(cluster.fresh_database())
        world = await stack.enter_async_context(open_feed_world(database))
        random = Random(f"{seed}/replicas")
        replicas = await stack.enter_async_context(running_replicas(database, random, plan.doomed, **SETTINGS))
        run = Run(seed, plan, world, replicas)
        said = await run.go_through(await run.listen(stack))
        faults = await run.judge()
    print(f"seed {seed}: {said}; {len(faults)} faults")  # noqa: T201
    return faults
