"""Nodes that have fallen silent, those that are heard again, and what was on the lost ones."""

from collections.abc import Collection, Iterator

from keelson.events.node import NodeState
from keelson.scheduler.domain.actions import MAX_PARTS, EndLost, Seen, SetNodeState
from keelson.scheduler.domain.model import LOST, Node
from keelson.scheduler.domain.signs import Signs
from keelson.scheduler.domain.world import World

# A reason of the API has so many characters.
MAX_REASON = 500

# A node that is disabled takes nothing and keeps what it has; nobody waits for its heartbeats.
_WATCHED = ("active", "draining")


def watch(world: World, signs: Signs) -> Iterator[SetNodeState]:
    """Say which nodes are lost, and which are there again, as they were before.

    When all have fallen silent at once, it is the way to them that is broken, and there would be nowhere to go: then
    none is lost. So a node is lost only while another one is heard.
    """
    for node_id, node in sorted(world.nodes.items()):
        if node.was_lost and node_id in signs.heard:
            state: NodeState = "draining" if node.before == "draining" else "active"
            yield _set(node, state, "heartbeats arrive again")
        elif node.state in _WATCHED and node_id in signs.silent and signs.heard:
            yield _set(node, "offline", f"{LOST} {signs.silent_s:g} s")


def end_lost(world: World, returning: Collection[str]) -> Iterator[EndLost]:
    """End what was on nodes that are offline; it would hold their memory, and keep its environment, for ever.

    What is left on a node that is there again has not been lost after all.
    """
    lost: dict[str, list[str]] = {}
    for workload in world.all_workloads():
        for instance in workload.instances.values():
            if world.is_lost(instance) and instance.node_id not in returning:
                lost.setdefault(instance.node_id, []).append(instance.id)
    for node_id, ids in sorted(lost.items()):
        node = world.nodes[node_id]
        yield EndLost(
            node=Seen(node.id, node.seq),
            message=node.message,
            instance_ids=tuple(ids[: MAX_PARTS - 1]),
            reason=_in_one_line(f"node {node.id} is offline: {node.message or 'no message'}"),
            cause=node.moved,
        )


def _in_one_line(text: str) -> str:
    """Give text as a reason may be, which is a header: whoever set a node's state may have written anything."""
    printable = "".join(each if each.isprintable() else " " for each in text)
    return " ".join(printable.split())[:MAX_REASON]


def _set(node: Node, state: NodeState, message: str) -> SetNodeState:
    return SetNodeState(
        node=Seen(node.id, node.seq),
        state=state,
        message=message,
        reason=message,
        cause=node.moved,
    )
