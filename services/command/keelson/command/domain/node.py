"""Nodes: machines that enrol by a one-time token, and then take instances."""

from datetime import timedelta
from typing import Annotated

import msgspec
from msgspec import Meta

from keelson.command.domain.node_state import Node
from keelson.command.fields import ONCE, CpuMillis, Host, MemoryBytes, Name, NodeId, Text
from keelson.command.handlers import Command, Handler
from keelson.command.refusal import Refusal
from keelson.command.state import Aggregate
from keelson.command.transaction import Transaction
from keelson.events import Ids
from keelson.events.node import (
    NodeCapacitySet,
    NodeEnrolled,
    NodeEnrollmentCreated,
    NodeRemoved,
    NodeState,
    NodeStateChanged,
    memory_of,
)

DEFAULT_EXPIRES_IN_S = 3600

LabelName = Annotated[str, Meta(pattern=r"^[a-z]([a-z0-9./_-]{0,61}[a-z0-9])?$(?!\n)")]


class CreateEnrollmentToken(Command, frozen=True, kw_only=True):
    """Let one machine enrol as a new node, by a token that is shown once and expires."""

    expires_in_s: Annotated[int, Meta(ge=1, le=30 * 24 * 3600)] = DEFAULT_EXPIRES_IN_S
    node_id: NodeId | None = None


class EnrollNode(Command, frozen=True, kw_only=True):
    """Enrol a machine as the node that its token is for; the token is good once. Sent without a credential."""

    token: Annotated[str, Meta(max_length=500)]
    name: Name
    labels: Annotated[dict[LabelName, Text], Meta(max_length=100)] = {}
    cpu_millis: CpuMillis
    memory_bytes: MemoryBytes
    address: Host | None = None

    def __repr__(self) -> str:
        return f"EnrollNode(name={self.name!r})"


class SetNodeState(Command, frozen=True, kw_only=True):
    """Say whether a node takes instances; only an active one does. What is placed there stays as it is."""

    node_id: NodeId
    state: NodeState
    message: Text | None = None


class SetNodeCapacity(Command, frozen=True, kw_only=True):
    """Say how much a node has: no less memory than its instances hold."""

    node_id: NodeId
    cpu_millis: CpuMillis
    memory_bytes: MemoryBytes


class RemoveNode(Command, frozen=True, kw_only=True):
    """Remove a node on which nothing is placed, and its credential; its name is free at once."""

    node_id: NodeId


class NodeResult(msgspec.Struct, frozen=True):
    """Which node."""

    node_id: str


class EnrollmentResult(msgspec.Struct, frozen=True):
    """Which node, and the token by which its machine enrols."""

    node_id: str
    token: Annotated[str | None, ONCE]


class EnrolledResult(msgspec.Struct, frozen=True):
    """Which node, and the credential by which it acts from now on."""

    node_id: str
    credential: Annotated[str | None, ONCE]


async def create_enrollment_token(tx: Transaction, command: CreateEnrollmentToken) -> EnrollmentResult:
    """Create the node, which waits for its machine."""
    node_id = await tx.new_id(Node, command.node_id)
    credential_id = tx.mint("credential")
    expires_at = tx.now + timedelta(seconds=command.expires_in_s)
    created = NodeEnrollmentCreated(expires_at=expires_at, credential_id=credential_id)
    tx.create(Node, node_id, Ids(node_id=node_id), created)
    token = tx.issue_credential(credential_id, "enrollment", node_id, node_id)
    return EnrollmentResult(node_id, token)


async def enroll_node(tx: Transaction, command: EnrollNode) -> EnrolledResult:
    """Enrol it, if it still waits for the enrolment that the token belongs to: of two who have it, one is the node."""
    node = await tx.read(Node, tx.identity.holder_id)
    if node is None or not _awaits(tx, node):
        raise Refusal("unauthenticated", "the token is not good, or not any more")
    tx.revoke_credential(tx.identity.credential_id)
    credential_id = tx.mint("credential")
    enrolled = NodeEnrolled(
        name=command.name,
        labels=command.labels,
        cpu_millis=command.cpu_millis,
        memory_bytes=command.memory_bytes,
        address=command.address,
        credential_id=credential_id,
    )
    tx.append(node, enrolled)
    return EnrolledResult(node.id, tx.issue_credential(credential_id, "node", node.id, node.id))


async def set_node_state(tx: Transaction, command: SetNodeState) -> NodeResult:
    """Change its state, unless that is its state; of one that is offline also why, even to nothing.

    Why tells whether it is lost, and back as soon as it is heard, or was taken away by a person who then says so again.
    """
    node = await _get_enrolled(tx, command.node_id)
    is_why = command.state == "offline" and node.state.message != command.message
    if node.state.state != command.state or is_why:
        tx.append(node, NodeStateChanged(state=command.state, message=command.message))
    return NodeResult(node.id)


async def set_node_capacity(tx: Transaction, command: SetNodeCapacity) -> NodeResult:
    """Change its capacity, unless that is what it has; what holds its memory has come before."""
    node = await _get_enrolled(tx, command.node_id)
    if (node.state.cpu_millis, node.state.memory_bytes) != (command.cpu_millis, command.memory_bytes):
        limit_memory(tx, node, command.memory_bytes)
        tx.append(node, NodeCapacitySet(cpu_millis=command.cpu_millis, memory_bytes=command.memory_bytes))
    return NodeResult(node.id)


async def remove_node(tx: Transaction, command: RemoveNode) -> NodeResult:
    """Remove it, enrolled or not."""
    node = await tx.get(Node, command.node_id)
    if await tx.held(memory_of(node.id)):
        raise Refusal("in_use", f"instances are still placed on the node {node.id}")
    for credential_id in (*node.state.access.enrollment, *node.state.access.credentials):
        tx.revoke_credential(credential_id)
    tx.append(node, NodeRemoved())
    return NodeResult(node.id)


def limit_memory(tx: Transaction, node: Aggregate[Node], memory_bytes: int) -> None:
    """Let a node's instances hold no more than this; else the command is refused."""
    refusal = Refusal("no_capacity", f"the instances of the node {node.id} would hold more than {memory_bytes} bytes")
    tx.limit(memory_of(node.id), amount=memory_bytes, refusal=refusal)


def _awaits(tx: Transaction, node: Aggregate[Node]) -> bool:
    """Whether the node waits for the enrolment that whoever asks has a token for."""
    expires_at = node.state.access.enrollment.get(tx.identity.credential_id)
    return expires_at is not None and tx.now < expires_at


async def _get_enrolled(tx: Transaction, node_id: str) -> Aggregate[Node]:
    node = await tx.get(Node, node_id)
    if node.state.state is None:
        raise Refusal("invalid_transition", f"the node {node_id} has not enrolled yet")
    return node


HANDLERS = (
    Handler(
        name="node.create_enrollment_token",
        command=CreateEnrollmentToken,
        handle=create_enrollment_token,
        result=EnrollmentResult,
    ),
    Handler(name="node.enroll", command=EnrollNode, handle=enroll_node, result=EnrolledResult),
    Handler(name="node.set_state", command=SetNodeState, handle=set_node_state, result=NodeResult, target="node_id"),
    Handler(
        name="node.set_capacity", command=SetNodeCapacity, handle=set_node_capacity, result=NodeResult, target="node_id"
    ),
    Handler(name="node.remove", command=RemoveNode, handle=remove_node, result=NodeResult, target="node_id"),
)
