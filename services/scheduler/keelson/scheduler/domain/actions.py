"""What a plan is made of: each action is one command, or one bundle, with its reason and the event that caused it.

What must go on serving, a node that is lost or found, a deploy: each is guarded by the seq that it was seen at, so that
of two schedulers, or of one that is behind, none changes it by what it knew of before. What an environment declares is
not: one that has not seen yet that more are wanted again drains by the fewer that it saw, and then places them anew.
"""

from typing import Literal, NamedTuple

import msgspec

from keelson.events.node import NodeState

# What a deploy may be said to be; that it is superseded is said by no client.
DeployOutcome = Literal["rolling", "succeeded", "failed"]

# A bundle takes so many commands.
MAX_PARTS = 100


class Seen(NamedTuple):
    """An aggregate as it was seen."""

    id: str
    seq: int


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """`reason` and `cause`, a position, are kept on the events."""

    reason: str
    cause: int


class Allocate(Action, frozen=True, kw_only=True):
    """Place an instance; its id lets it succeed only if none was placed that its planner had not seen."""

    instance_id: str
    env_id: str
    process: str
    node_id: str


class Drain(Action, frozen=True, kw_only=True):
    """Let instances finish, as long as these others are as they were seen: ready."""

    env_id: str
    process: str
    instances: tuple[Seen, ...]
    relied_on: tuple[Seen, ...] = ()


class EndLost(Action, frozen=True, kw_only=True):
    """Count instances for stopped, as long as their node is as it was seen: offline, with this message."""

    node: Seen
    message: str | None
    instance_ids: tuple[str, ...]


class SetNodeState(Action, frozen=True, kw_only=True):
    """Say that a node is lost, or there again, as long as it is as it was seen."""

    node: Seen
    state: NodeState
    message: str


class SetDeployStatus(Action, frozen=True, kw_only=True):
    """Say how far a deploy is, as long as it is as it was seen."""

    deploy: Seen
    status: DeployOutcome
    message: str | None = None


AnyAction = Allocate | Drain | EndLost | SetNodeState | SetDeployStatus


def lane_of(action: AnyAction) -> str:
    """Give what an action is about: those about the same thing are done one by one, in the order of the plan."""
    match action:
        case Allocate() | Drain():
            return f"{action.env_id}/{action.process}"
        case EndLost() | SetNodeState():
            return action.node.id
        case SetDeployStatus():
            return action.deploy.id
