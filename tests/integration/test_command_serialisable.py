"""Decisions are serialisable: whatever two replicas answered at once, the domain would have decided at one position.

Random commands on few ids and fewer names, from many callers. Then the log is walked: what each command appended is
what its handler decides on just what stood before it; what it refused, or left unchanged, is so at a position between
its question and its answer.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from keelson.command import decide
from keelson.command.registry import HANDLERS
from keelson.log.confirm import Confirmation, confirm
from keelson.log.database import Database as Queried
from keelson.log.decision import IdempotencyKey, ReadSet
from keelson.log.read import read_head
from support.command_world import IMAGE, Answer, Replica, World, open_world
from support.database import Database
from support.specs import Fact, fact_of, given, id_of

CALLERS = 12
COMMANDS = 40
EXISTING = 3
NAMES = ("a", "b", "c", "d", "e", "f")
PORTS = [{"name": "http", "port": 8080}]


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database, replicas=2) as world:
        yield world


@dataclass(frozen=True)
class Asked:
    """A command, the head when it was sent and when it was answered, and the answer."""

    name: str
    data: dict[str, Any]
    sent_at: int
    answered_at: int
    answer: Answer


class Caller:
    """Sends commands at random, seeded."""

    def __init__(self, replica: Replica, seed: int) -> None:
        self._replica = replica
        self._random = random.Random(seed)

    async def call(self) -> list[Asked]:
        """Send all of one's commands, one after another."""
        return [await self._ask() for _ in range(COMMANDS)]

    async def _ask(self) -> Asked:
        name, data = self._choose()
        sent_at = await self._read_head()
        answer = await self._replica.command(name, **data)
        return Asked(name, data, sent_at, await self._read_head(), answer)

    async def _read_head(self) -> int:
        return (await read_head(self._replica.app.state.pool)).position

    def _choose(self) -> tuple[str, dict[str, Any]]:
        name = self._random.choice(_CHOICES)
        return name, _MAKE[name](self)

    def an(self, prefix: str) -> str:
        """Choose one of the few ids that exist from the beginning."""
        return id_of(prefix, self.number(EXISTING) + 1)

    def any(self, prefix: str) -> str:
        """Choose one of more ids, some of which exist."""
        return id_of(prefix, self.number(8 * EXISTING) + 1)

    def name(self) -> str:
        """Choose one of a few names."""
        return self._random.choice(NAMES)

    def number(self, below: int) -> int:
        """Choose a number."""
        return self._random.randrange(below)

    def processes(self) -> dict[str, Any]:
        """Choose the processes of a release; it always has web."""
        return {name: {"command": ["x"], "ports": PORTS} for name in (self.name(), "web")}

    def host(self) -> str:
        """Choose one of a few hostnames."""
        return f"{self.name()}.example"


_MAKE: dict[str, Callable[[Caller], dict[str, Any]]] = {
    "org.create": lambda c: {"org_id": c.any("org"), "name": c.name()},
    "org.rename": lambda c: {"org_id": c.an("org"), "name": c.name()},
    "org.set_quota": lambda c: {"org_id": c.an("org"), "quota": {"apps": c.number(3)}},
    "principal.create": lambda c: {
        "principal_id": c.any("principal"),
        "org_id": c.an("org"),
        "name": c.name(),
        "scopes": ["apps:read"],
    },
    "principal.set_scopes": lambda c: {
        "principal_id": c.any("principal"),
        "scopes": ["apps:read", "apps:write"][: c.number(2) + 1],
    },
    "principal.delete": lambda c: {"principal_id": c.any("principal")},
    "project.create": lambda c: {"project_id": c.any("project"), "org_id": c.an("org"), "name": c.name()},
    "project.rename": lambda c: {"project_id": c.an("project"), "name": c.name()},
    "app.create": lambda c: {"app_id": c.any("app"), "project_id": c.an("project"), "name": c.name()},
    "app.rename": lambda c: {"app_id": c.an("app"), "name": c.name()},
    "app.delete": lambda c: {"app_id": c.any("app")},
    "env.create": lambda c: {"env_id": c.any("env"), "app_id": c.an("app"), "name": c.name()},
    "env.delete": lambda c: {"env_id": c.any("env")},
    "env.scale": lambda c: {"env_id": c.an("env"), "replicas": {"web": c.number(3)}},
    "env.set_config": lambda c: {"env_id": c.an("env"), "variables": {"A": str(c.number(2))}},
    "release.create": lambda c: {
        "release_id": c.any("release"),
        "app_id": c.an("app"),
        "image": IMAGE,
        "processes": c.processes(),
    },
    "deploy.create": lambda c: {
        "deploy_id": id_of("deploy", c.number(10**6)),
        "env_id": c.an("env"),
        "release_id": c.an("release"),
    },
    "route.create": lambda c: {
        "route_id": c.any("route"),
        "env_id": c.an("env"),
        "hostname": c.host(),
        "process": "web",
        "port": "http",
    },
    "route.update": lambda c: {"route_id": c.any("route"), "hostname": c.host()},
    "route.delete": lambda c: {"route_id": c.any("route")},
}

# What is deleted never comes back: seldom enough that something is left to contend for.
_CHOICES = [name for name in _MAKE for _ in range(1 if name.endswith(".delete") else 8)]


async def make_platform(replica: Replica) -> None:
    """Make what exists from the beginning: three whole trees."""
    for number in range(1, EXISTING + 1):
        org_id, project_id, app_id = (id_of(prefix, number) for prefix in ("org", "project", "app"))
        await replica.create("org", org_id=org_id, name=f"org-{number}")
        await replica.create("project", project_id=project_id, org_id=org_id, name="project")
        await replica.create("app", app_id=app_id, project_id=project_id, name="app")
        await replica.create("env", env_id=id_of("env", number), app_id=app_id, name="env")
        release: dict[str, Any] = {"image": IMAGE, "processes": {"web": {"command": ["x"], "ports": PORTS}}}
        await replica.create("release", release_id=id_of("release", number), app_id=app_id, **release)


async def decisions_are_serialisable(world: World, seed: int) -> Counter[str]:
    """Let them all call at once and check every answer; count what was answered."""
    await make_platform(world.replica)
    callers = [Caller(world.replicas[n % 2], seed * 1000 + n) for n in range(CALLERS)]
    asked = [each for calls in await asyncio.gather(*(caller.call() for caller in callers)) for each in calls]
    facts = [fact_of(event) for event in await world.events()]
    for each in asked:
        check(each, facts)
    return Counter(str(each.answer.body.get("code", each.answer.body.get("changed"))) for each in asked)


def check(asked: Asked, facts: list[Fact]) -> None:
    """Hold an answer against what the domain decides; `facts` begin with position 1."""
    answer = asked.answer
    if answer.status == 200 and answer.body["changed"]:
        first, last = answer.body["events"][0]["position"], answer.body["position"]
        assert decided(asked, facts[: first - 1]) == facts[first - 1 : last]
    elif answer.status == 200:
        assert decided(asked, facts[: answer.body["position"]]) == []
    elif answer.code != "concurrent_change":
        assert answer.status in {404, 409, 422}, answer.body
        positions = range(asked.sent_at, asked.answered_at + 1)
        assert any(decided(asked, facts[:position]) == answer.code for position in positions), asked


def decided(asked: Asked, facts: list[Fact]) -> list[Fact] | str:
    """Give what a command becomes on a history: events, or the code of its refusal."""
    command = msgspec.convert(asked.data, HANDLERS[asked.name].command)
    return given(*facts).when(command).as_appended()


@pytest.mark.parametrize("seed", range(3))
async def test_decisions_of_two_replicas_are_serialisable(world: World, seed: int) -> None:
    answered = await decisions_are_serialisable(world, seed)
    # The test is worth something only if all of this happened.
    assert answered["True"] > 50, answered
    assert answered.keys() >= {"False", "not_found", "name_taken", "id_taken"}, answered


async def test_refusals_from_a_stale_cache_are_not(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def believe(db: Queried, key: IdempotencyKey | None, reads: ReadSet) -> Confirmation:
        return msgspec.structs.replace(await confirm(db, key, reads), moved=False)

    monkeypatch.setattr(decide, "confirm", believe)
    with pytest.raises(AssertionError):
        await decisions_are_serialisable(world, 1)
