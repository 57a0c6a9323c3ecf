"""Actions sent as commands: in order, none twice, and what is done about those that are refused."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from keelson.client import ProblemError, UnreachableError, UnsendableError
from keelson.scheduler import acting
from keelson.scheduler.acting import Actor
from keelson.scheduler.domain.actions import Allocate, AnyAction, Drain, EndLost, Seen, SetDeployStatus, SetNodeState
from keelson.scheduler.domain.world import World
from support.waiting import eventually


def allocate(number: int, process: str = "web") -> Allocate:
    return Allocate(instance_id=f"i{number}", env_id="env", process=process, node_id="node", reason="why", cause=7)


class Answer:
    """What any command comes to."""

    position = 9


class Client:
    """Notes what is sent; answers as a test says, once it lets it."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.failures: list[Exception] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.instance = self.node = self.deploy = self

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def send(*given: Any, **fields: Any) -> Answer:
            self.sent.append((name, fields | ({"parts": given[0]} if given else {})))
            await self.may_answer.wait()
            if self.failures:
                raise self.failures.pop(0)
            return Answer()

        return send


class Follower:
    """Has seen whatever was done, once a test lets it."""

    def __init__(self) -> None:
        self.world = World()
        self.has_seen = asyncio.Event()
        self.has_seen.set()

    async def reached(self, position: int, timeout_s: float) -> None:
        """Wait until a test lets it."""
        assert (position, timeout_s) == (9, acting.SEEN_TIMEOUT_S)
        await self.has_seen.wait()


class Stage:
    """An actor, its client and its follower; `free` counts lanes that came to their ends."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.client, self.follower, self.now, self.free = Client(), Follower(), 100.0, 0
        self._group = group
        self.actor = Actor(
            self.client,  # type: ignore[arg-type]
            self.follower,  # type: ignore[arg-type]
            monotonic=lambda: self.now,
            on_free=self._count,
        )

    def offer(self, *actions: AnyAction) -> None:
        """Offer actions to the actor."""
        self.actor.offer(actions, self._group)

    async def settle(self, lanes: int) -> None:
        """Wait until so many lanes have come to their ends."""
        await eventually(lambda: self.free >= lanes, interval_s=0.001)

    @property
    def ids(self) -> list[str]:
        """The instances that were to be allocated, in order."""
        return [fields["instance_id"] for _, fields in self.client.sent]

    def _count(self) -> None:
        self.free += 1


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    async with asyncio.TaskGroup() as group:
        yield Stage(group)


def problem(code: str) -> ProblemError:
    return ProblemError(409, code, "", {}, None)


async def test_a_lanes_actions_are_sent_one_by_one_in_order() -> None:
    async with staged() as stage:
        stage.offer(allocate(1), allocate(2), allocate(3))
        await stage.settle(1)

        assert stage.ids == ["i1", "i2", "i3"]
        assert stage.client.sent[0][1] | {} == {
            "env_id": "env",
            "process": "web",
            "node_id": "node",
            "instance_id": "i1",
            "reason": "why",
            "causation": 7,
        }


async def test_lanes_do_not_wait_for_each_other() -> None:
    async with staged() as stage:
        stage.client.may_answer.clear()
        stage.offer(allocate(1, "web"), allocate(2, "jobs"))
        await eventually(lambda: len(stage.client.sent) == 2)
        stage.client.may_answer.set()
        await stage.settle(2)


async def test_what_was_sent_is_not_sent_again_before_the_feed_has_shown_it() -> None:
    async with staged() as stage:
        stage.follower.has_seen.clear()
        stage.offer(allocate(1))
        for _ in range(20):
            await asyncio.sleep(0)
            stage.offer(allocate(1))
        assert stage.ids == ["i1"]
        stage.follower.has_seen.set()
        await stage.settle(1)

        stage.offer(allocate(2))
        await stage.settle(2)

        assert stage.ids == ["i1", "i2"]


@pytest.mark.parametrize("failure", [problem("id_taken"), problem("internal"), UnreachableError("away")])
async def test_the_first_that_is_not_done_ends_its_lane(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "REST_FIRST_S", 0.0)
    async with staged() as stage:
        stage.client.failures = [failure]
        stage.offer(allocate(1), allocate(2))
        await stage.settle(1)

        assert stage.ids == ["i1"]


async def test_a_lane_rests_longer_at_each_failure_in_a_row_and_no_more_after_success() -> None:
    async with staged() as stage:
        first = [stage.actor._rest("lane") for _ in range(12)]
        assert all(0 < each <= acting.REST_MAX_S for each in first)
        assert min(first[-3:]) >= acting.REST_MAX_S / 2 > max(first[:3])

        await stage.actor._perform("lane", [allocate(1)])

        assert stage.actor._rest("lane") <= acting.REST_FIRST_S


async def test_a_node_without_room_is_not_asked_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "REST_FIRST_S", 0.0)
    async with staged() as stage:
        stage.client.failures = [problem("no_capacity")]
        stage.offer(allocate(1))
        await stage.settle(1)

        assert stage.actor.refusing == {"node"}
        stage.now += acting.REFUSING_S + 0.1
        assert stage.actor.refusing == set()


async def test_a_conflict_is_no_trouble_and_a_defect_is_until_something_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acting, "REST_FIRST_S", 0.0)
    async with staged() as stage:
        stage.client.failures = [problem("seq_mismatch")]
        stage.offer(allocate(1))
        await stage.settle(1)
        assert not stage.actor.trouble

        stage.client.failures = [problem("forbidden")]
        stage.offer(allocate(1))
        await stage.settle(2)
        assert str(stage.actor.trouble) == "commands are refused"
        stage.now += acting.TROUBLE_S
        assert not stage.actor.trouble

        stage.client.failures = [problem("forbidden")]
        stage.offer(allocate(1))
        await stage.settle(3)
        assert str(stage.actor.trouble) == "commands are refused"

        stage.offer(allocate(1))
        await stage.settle(4)
        assert not stage.actor.trouble


@pytest.mark.parametrize(
    "defect", [UnsendableError("no line"), msgspec.DecodeError("a proxy's page"), ValueError("no")]
)
async def test_an_action_that_goes_wrong_ends_no_other(defect: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "REST_FIRST_S", 0.0)
    async with staged() as stage:
        stage.client.failures = [defect]
        stage.offer(allocate(1))
        await stage.settle(1)
        assert stage.actor.trouble == "commands go wrong"

        stage.offer(allocate(2))
        await stage.settle(2)

        assert stage.ids == ["i1", "i2"]
        assert stage.actor.trouble is None


async def test_a_drain_is_one_bundle_with_what_it_relies_on() -> None:
    drain = Drain(
        env_id="env",
        process="web",
        instances=(Seen("old", 3),),
        relied_on=(Seen("new", 4),),
        reason="why",
        cause=7,
    )
    async with staged() as stage:
        stage.offer(drain)
        await stage.settle(1)

    [(name, fields)] = stage.client.sent
    said = [(part.command.instance_id, part.command.desired_state, part.if_match) for part in fields["parts"]]
    assert name == "bundle"
    assert said == [("new", "running", 4), ("old", "draining", 3)]


async def test_what_is_lost_is_ended_while_its_node_is_offline() -> None:
    async with staged() as stage:
        stage.offer(EndLost(node=Seen("node", 5), message="gone", instance_ids=("i1", "i2"), reason="why", cause=7))
        await stage.settle(1)

    [(_, fields)] = stage.client.sent
    [guard, *ended] = fields["parts"]
    said = (guard.command.node_id, guard.command.state, guard.command.message, guard.if_match)
    assert said == ("node", "offline", "gone", 5)
    assert [(each.instance_id, each.desired_state) for each in ended] == [("i1", "stopped"), ("i2", "stopped")]


async def test_states_and_statuses_are_set_as_long_as_they_are_as_they_were_seen() -> None:
    async with staged() as stage:
        stage.offer(
            SetNodeState(node=Seen("node", 5), state="offline", message="gone", reason="why", cause=7),
            SetDeployStatus(deploy=Seen("deploy", 2), status="failed", message="no", reason="why", cause=7),
        )
        await stage.settle(2)

    assert {(name, fields["if_match"], fields["message"]) for name, fields in stage.client.sent} == {
        ("set_state", 5, "gone"),
        ("set_status", 2, "no"),
    }
