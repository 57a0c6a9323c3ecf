"""`make run` with a greeter deployed on it: to declare something else, to break something, and to see how it ends."""

import hashlib
import hmac
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from keelson.client import Client, ClientError
from keelson.client.commands.release import Health, Port, Process
from keelson.local.child import Child, service_environ
from keelson.local.home import Home
from keelson.local.instances import end_instances
from support.greeters import Watch, all_answer, processes_of, watched
from support.ledger import Ledger
from support.supervised import Supervised
from support.waiting import eventually, free_port

# What is promised, and how much more is let pass on a machine that is busy.
WITHIN_S = 30.0
LEEWAY = 3
SURGE = 1
KEY = "a key of the tests'"

_GREETER = Process(
    command=["python3", "examples/greeter/greeter.py"],
    ports=[Port(name="http", port=8000)],
    memory_bytes=32 * 1024 * 1024,
    health=Health(path="/healthz", port="http", interval_s=1),
    needs_secrets=True,
)


class Stage:
    """One environment on a stack, whose one process is called `web`; lent for one test as a context manager."""

    def __init__(self, stack: Supervised, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self.ledger = Ledger()
        self.figures: dict[str, float] = {}
        self.env_id = ""
        self._app_id = ""
        self._key = KEY
        self._lost: set[str] = set()

    async def __aenter__(self) -> Self:
        dev = self.stack.dev
        self.client = await Client(dev.command_url, dev.query_url, dev.operator_token, retry_for_s=60).__aenter__()
        # Endpoints are lent out again; a connection to the one before must not be.
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.session.close()
        await self.client.__aexit__(kind, error, where)

    async def declare(self) -> None:
        """Make an organisation with an environment and a secret, deploy nothing yet."""
        client = self.client
        org_id = (await client.org.create(name="greeters")).result.org_id
        project_id = (await client.project.create(org_id=org_id, name="all")).result.project_id
        self._app_id = (await client.app.create(project_id=project_id, name="greeter")).result.app_id
        self.env_id = (await client.env.create(app_id=self._app_id, name="production")).result.env_id
        await client.env.set_config(env_id=self.env_id, variables={"GREETING": "Hello"})
        await self.set_secret(KEY)

    async def release(self) -> str:
        """Make a further release, alike to the one before but for its number; return its id."""
        image = f"images.example/greeter@sha256:{hashlib.sha256(b'greeter').hexdigest()}"
        made = await self.client.release.create(app_id=self._app_id, image=image, processes={"web": _GREETER})
        return made.result.release_id

    async def deploy(self, release_id: str) -> str:
        """Deploy a release; return the deploy's id."""
        return (await self.client.deploy.create(env_id=self.env_id, release_id=release_id)).result.deploy_id

    async def scale(self, replicas: int) -> None:
        """Want so many."""
        await self.client.env.scale(env_id=self.env_id, replicas={"web": replicas})

    async def greet_with(self, greeting: str) -> None:
        """Configure what is said."""
        await self.client.env.set_config(env_id=self.env_id, variables={"GREETING": greeting})

    async def set_secret(self, key: str) -> None:
        """Set what the greeting is signed by."""
        await self.client.secret.set(env_id=self.env_id, values={"SIGNING_KEY": key})
        self._key = key

    async def kill(self, name: str) -> None:
        """End one of the stack's processes by SIGKILL, and return when it was started again, be it ready or not."""
        killed = self.stack.pids[name]
        killed.signal(signal.SIGKILL)
        await eventually(lambda: self.stack.pids.get(name, killed) != killed, 30.0)

    def adopted(self, name: str) -> int:
        """Count the instances that a node's agents have taken up from one before."""
        return (Home(self.stack.home).logs / f"{name}.log").read_text().count('"event":"instance_adopted"')

    @asynccontextmanager
    async def converging(self, what: str, *, floor: int | None = None) -> AsyncIterator[Watch]:
        """Do something, and see that it ends in the declared state, at no moment with less than `floor` ready.

        How long that took is noted as a figure; it fails beyond LEEWAY times what is promised.
        """
        await self.ledger.read(self.client)
        position = self.ledger.position
        async with watched(self.client, self.env_id) as watch:
            started = time.monotonic()
            yield watch
            await eventually(self.is_as_declared, LEEWAY * WITHIN_S, interval_s=0.1)
            self.figures[what] = time.monotonic() - started
        self._judge(watch, position, floor)
        self._tell(what, watch, position)

    async def is_as_declared(self) -> bool:
        """Look whether all is as declared: in the log, on this machine, and by asking each. AssertionError if not."""
        try:
            return await self._is_as_declared()
        except (aiohttp.ClientError, ClientError, TimeoutError) as error:
            raise AssertionError(f"somebody does not answer: {error!r}") from error

    async def _is_as_declared(self) -> bool:
        await self.ledger.read(self.client)
        lacks = self.ledger.lacks(self.env_id)
        assert lacks is None, lacks
        live = self.ledger.live(self.env_id)
        told = [each for each in processes_of(self.env_id).values() if each["KEELSON_NODE_ID"] not in self._lost]
        assert {each["KEELSON_INSTANCE_ID"] for each in told} == set(live)
        assert len(told) == len(live)
        answers = await all_answer(self.session, [each.endpoints["http"] for each in live.values()])
        assert {answer["instance"] for answer in answers} == set(live)
        for answer in answers:
            self._check(answer)
        return True

    def _check(self, answer: dict[str, Any]) -> None:
        wanted = self.ledger.wanted[self.env_id]
        greeting = wanted.variables["GREETING"]
        release = self.ledger.instances[answer["instance"]].allocated["release_number"]
        assert (answer["greeting"], answer["release"]) == (greeting, str(release))
        assert answer["signature"] == hmac.new(self._key.encode(), greeting.encode(), hashlib.sha256).hexdigest()

    def _judge(self, watch: Watch, position: int, floor: int | None) -> None:
        if floor is None:
            return
        moments = self.ledger.since(self.env_id, position)
        low = [each for each in moments if each.ready < floor]
        assert not low, f"less than {floor} were ready, by the log: {low}"
        assert watch.answered, "nobody was asked"
        assert min(watch.answered) >= floor, f"less than {floor} answered: {watch.answered}"

    def _tell(self, what: str, watch: Watch, position: int) -> None:
        moments = self.ledger.since(self.env_id, position)
        line = (
            f"{what}: as declared after {self.figures[what]:.1f} s (within {WITHIN_S:g}); ready at least "
            f"{min(each.ready for each in moments)} in {len(moments)} moments of the log, answered at least "
            f"{min(watch.answered, default=0)} in {len(watch.answered)} rounds, {watch.stale} of a stale view"
        )
        print(line)  # noqa: T201

    @contextmanager
    def lost(self, node_id: str) -> Iterator[None]:
        """Look away from what a node still runs that nobody can reach."""
        self._lost.add(node_id)
        try:
            yield
        finally:
            self._lost.discard(node_id)

    def secret_of(self, name: str) -> str:
        """Give one of the home's secrets."""
        return str(json.loads((self.stack.home / "secrets.json").read_text())[name])

    @asynccontextmanager
    async def second_scheduler(self) -> AsyncIterator[Child]:
        """Run another scheduler beside the stack's own."""
        environ = service_environ(
            os.environ,
            command_url=self.stack.dev.command_url,
            query_url=self.stack.dev.query_url,
            token=self.secret_of("scheduler_token"),
            port=free_port(),
        )
        child = Child("scheduler-2", "keelson.scheduler", environ, self.folder / "scheduler-2.log")
        await child.start()
        try:
            await eventually(partial(_is_ready, child), 60.0)
            yield child
            assert child.pid, child.last_words()
        finally:
            await child.stop()

    @asynccontextmanager
    async def third_node(self, name: str) -> AsyncIterator[Child]:
        """Let a machine enrol of which the stack's supervisor knows nothing; end it and all that it runs."""
        token = (await self.client.node.create_enrollment_token()).result.token
        state = self.folder / name
        environ = service_environ(
            os.environ,
            command_url=self.stack.dev.command_url,
            query_url=self.stack.dev.query_url,
            state=str(state),
            node_name=name,
            labels="zone=c",
            memory_bytes=2 * 1024**3,
            enrollment_token=str(token),
        )
        child = Child(name, "keelson.agent", environ, self.folder / f"{name}.log")
        await child.start()
        try:
            yield child
        finally:
            await child.stop()
            end_instances(state)


async def _is_ready(child: Child) -> bool:
    unreadiness = await child.read_unreadiness()
    assert unreadiness is None, unreadiness
    return True
