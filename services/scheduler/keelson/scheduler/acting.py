"""Actions sent as commands: those about the same thing one by one, the others side by side."""

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Literal

import structlog

from keelson.client import Client, ClientError, ProblemError, UnreachableError
from keelson.client.commands.instance import SetDesiredState
from keelson.client.commands.node import SetNodeState as SetNodeStateCommand
from keelson.scheduler import metrics
from keelson.scheduler.domain.actions import Allocate, AnyAction, Drain, EndLost, SetDeployStatus, SetNodeState, lane_of
from keelson.scheduler.following import Follower

# What others changed since this was planned: they are seen in the feed before long, and the next plan knows them.
CONFLICTS = frozenset(
    {
        "concurrent_change",
        "id_taken",
        "invalid_transition",
        "no_capacity",
        "node_not_active",
        "not_found",
        "seq_mismatch",
        "unknown_process",
    }
)
# What says of a node that nothing can be placed there for now.
NO_ROOM = frozenset({"no_capacity", "node_not_active"})

AT_ONCE = 32
REST_FIRST_S = 0.05
REST_MAX_S = 5.0
SEEN_TIMEOUT_S = 5.0
REFUSING_S = 5.0
# What went wrong longer ago has not gone wrong again: whatever is still to be done was tried since.
TROUBLE_S = 20.0

_log = structlog.get_logger()

Outcome = Literal["done", "conflict", "failed"]


class Actor:
    """Sends actions; `on_free` is called when a lane has come to its end, so that more may be planned for it.

    A lane that acts is left alone by later plans until the feed has shown what it did, or SEEN_TIMEOUT_S are over: what
    was sent is not sent again because it has not been seen yet. The first action of a lane that is not done ends it; a
    conflict rests it for a moment, longer at each in a row.
    """

    def __init__(
        self, client: Client, follower: Follower, *, monotonic: Callable[[], float], on_free: Callable[[], None]
    ) -> None:
        self._client = client
        self._follower = follower
        self._monotonic = monotonic
        self._on_free = on_free
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._busy: set[str] = set()
        self._failures: dict[str, int] = {}
        self._refusing: dict[str, float] = {}
        self._trouble: tuple[str, float] | None = None

    @property
    def trouble(self) -> str | None:
        """What keeps commands from being done, if anything went wrong lately and nothing went right since."""
        if self._trouble is None or self._monotonic() - self._trouble[1] >= TROUBLE_S:
            return None
        return self._trouble[0]

    @property
    def refusing(self) -> frozenset[str]:
        """Nodes that had no room a moment ago, though there should have been some."""
        now = self._monotonic()
        self._refusing = {node_id: until for node_id, until in self._refusing.items() if until > now}
        return frozenset(self._refusing)

    def offer(self, actions: Iterable[AnyAction], group: asyncio.TaskGroup) -> None:
        """Begin with the actions of all lanes that are free; what the others need is planned again when they are."""
        lanes: dict[str, list[AnyAction]] = {}
        for action in actions:
            lane = lane_of(action)
            if lane not in self._busy:
                lanes.setdefault(lane, []).append(action)
        for lane, given in lanes.items():
            self._busy.add(lane)
            group.create_task(self._run_lane(lane, given))

    async def _run_lane(self, lane: str, actions: list[AnyAction]) -> None:
        try:
            rest_s = await self._perform(lane, actions)
            await asyncio.sleep(rest_s)
        finally:
            self._busy.discard(lane)
        self._on_free()

    async def _perform(self, lane: str, actions: list[AnyAction]) -> float:
        """Do one action after the other; give for how long the lane is to rest."""
        position = 0
        for action in actions:
            async with self._turns:
                sent = await self._try(action)
            if sent is None:
                return self._rest(lane)
            position = max(position, sent)
        self._failures.pop(lane, None)
        await self._follower.reached(position, SEEN_TIMEOUT_S)
        return 0

    def _rest(self, lane: str) -> float:
        """Give for how long a lane is to rest after one more failure in a row; jittered, since others rest too."""
        failures = self._failures[lane] = self._failures.get(lane, 0) + 1
        longest_s = REST_FIRST_S * 2.0 ** min(failures - 1, 10)
        return min(longest_s, REST_MAX_S) * random.uniform(0.5, 1)  # noqa: S311 - it guards nothing

    async def _try(self, action: AnyAction) -> int | None:
        """Send an action; give the position that it came to, None if it did not come to anything, or nobody knows.

        Whatever goes wrong with one action is no reason to leave the others: it is noted, and tried again.
        """
        kind = type(action).__name__
        try:
            position = await self._send(action)
        except ProblemError as error:
            if isinstance(action, Allocate) and error.code in NO_ROOM:
                self._refusing[action.node_id] = self._monotonic() + REFUSING_S
            conflict = error.code in CONFLICTS
            self._note(kind, "conflict" if conflict else "failed", error)
            return None
        except Exception as error:  # noqa: BLE001 - one action's defect must not keep the others from being done
            self._note(kind, "failed", error)
            return None
        self._note(kind, "done", None)
        return position

    def _note(self, kind: str, outcome: Outcome, error: Exception | None) -> None:
        metrics.acted(kind, outcome)
        if outcome == "failed":
            self._trouble = (_tell(error), self._monotonic())
            is_foreseen = isinstance(error, ClientError)
            said = str(error) if is_foreseen else type(error).__name__
            _log.warning("action_failed", action=kind, error=said, exc_info=not is_foreseen)
        else:
            self._trouble = None
            _log.debug("action", action=kind, outcome=outcome, error=str(error) if error else None)

    async def _send(self, action: AnyAction) -> int:
        client, reason, cause = self._client, action.reason, action.cause
        match action:
            case Allocate():
                answer = await client.instance.allocate(
                    env_id=action.env_id,
                    process=action.process,
                    node_id=action.node_id,
                    instance_id=action.instance_id,
                    reason=reason,
                    causation=cause,
                )
                return answer.position
            case Drain():
                parts = [
                    *(
                        SetDesiredState(instance_id=each.id, desired_state="running").at(each.seq)
                        for each in action.relied_on
                    ),
                    *(
                        SetDesiredState(instance_id=each.id, desired_state="draining").at(each.seq)
                        for each in action.instances
                    ),
                ]
                return (await client.bundle(parts, reason=reason, causation=cause)).position
            case EndLost():
                as_it_is = SetNodeStateCommand(node_id=action.node.id, state="offline", message=action.message)
                ended = [SetDesiredState(instance_id=each, desired_state="stopped") for each in action.instance_ids]
                return (
                    await client.bundle([as_it_is.at(action.node.seq), *ended], reason=reason, causation=cause)
                ).position
            case SetNodeState():
                set_node = await client.node.set_state(
                    node_id=action.node.id,
                    state=action.state,
                    message=action.message,
                    if_match=action.node.seq,
                    reason=reason,
                    causation=cause,
                )
                return set_node.position
            case SetDeployStatus():
                set_deploy = await client.deploy.set_status(
                    deploy_id=action.deploy.id,
                    status=action.status,
                    message=action.message,
                    if_match=action.deploy.seq,
                    reason=reason,
                    causation=cause,
                )
                return set_deploy.position


def _tell(error: Exception | None) -> str:
    """Say what keeps commands from being done."""
    match error:
        case ProblemError():
            return "commands are refused"
        case UnreachableError():
            return "commands are not answered"
    return "commands go wrong"
