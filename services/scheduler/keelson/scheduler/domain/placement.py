"""On which node an instance goes."""

from collections import Counter
from collections.abc import Collection, Iterable

from keelson.scheduler.domain.model import Instance, Node
from keelson.scheduler.domain.world import World


class Room:
    """The memory that nodes have left, less with every instance placed; `refusing` nodes are not asked."""

    def __init__(self, world: World, refusing: Collection[str] = ()) -> None:
        self._nodes = [node for _, node in sorted(world.nodes.items()) if _takes(node) and node.id not in refusing]
        self._free = {node.id: node.memory_bytes - node.held_bytes for node in self._nodes}

    def place(self, memory_bytes: int, spread: "Spread") -> Node | None:
        """Take the memory on a node that has it, where there are the fewest already; None if no node has it."""
        if not self._nodes or max(self._free.values()) < memory_bytes:
            return None
        fitting = (node for node in self._nodes if self._free[node.id] >= memory_bytes)
        node = min(fitting, key=lambda each: (*spread.rank(each), -self._free[each.id], each.id))
        self._free[node.id] -= memory_bytes
        spread.add(node)
        return node


class Spread:
    """How many instances of one process there are in each failure domain, and on each node."""

    def __init__(self, world: World, instances: Iterable[Instance]) -> None:
        self._zones: Counter[str] = Counter()
        self._nodes: Counter[str] = Counter()
        for instance in instances:
            if instance.node_id in world.nodes:
                self.add(world.nodes[instance.node_id])

    def add(self, node: Node) -> None:
        """Count one more."""
        self._zones[node.zone] += 1
        self._nodes[node.id] += 1

    def rank(self, node: Node) -> tuple[int, int]:
        """Rank a node: the fewest in its domain first, then the fewest on it."""
        return self._zones[node.zone], self._nodes[node.id]


def _takes(node: Node) -> bool:
    return node.state == "active"
