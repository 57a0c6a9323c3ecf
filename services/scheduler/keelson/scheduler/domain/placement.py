"""On which node an instance goes."""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterable

from keelson.scheduler.domain.model import Instance, Node
from keelson.scheduler.domain.world import World

# How good a node is, the least being the best: how many there are in its domain, and on it, and then the place of the
# node among those with the most memory left.
_Rank = tuple[int, int, int, str]


class Room:
    """The memory that nodes have left, less with every instance placed; `refusing` nodes are not asked.

    Nodes of a domain stand in the order of the memory that they have left, so that the best is among the first of them:
    placing costs as many steps as there are domains, and as the process has instances. Those that are domains of their
    own stand together.
    """

    def __init__(self, world: World, refusing: Collection[str] = ()) -> None:
        self._nodes = world.nodes
        self._domains: dict[str | None, list[tuple[int, str]]] = {}
        for node_id, node in sorted(world.nodes.items()):
            if node.state == "active" and node_id not in refusing:
                self._domains.setdefault(node.zone, []).append((node.held_bytes - node.memory_bytes, node_id))
        for nodes in self._domains.values():
            nodes.sort()

    def place(self, memory_bytes: int, spread: "Spread") -> Node | None:
        """Take the memory on a node that has it, where there are the fewest already; None if no node has it."""
        ranks = [spread.best(zone, nodes, memory_bytes) for zone, nodes in self._domains.items()]
        best = min((rank for rank in ranks if rank is not None), default=None)
        if best is None:
            return None
        *_, used_up, node_id = best
        node = self._nodes[node_id]
        nodes = self._domains[node.zone]
        del nodes[bisect_left(nodes, (used_up, node_id))]
        insort(nodes, (used_up + memory_bytes, node_id))
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
        self._nodes[node.id] += 1
        if node.zone is not None:
            self._zones[node.zone] += 1

    def best(self, zone: str | None, nodes: Iterable[tuple[int, str]], memory_bytes: int) -> _Rank | None:
        """Give the best rank in a domain, whose nodes come with the most memory left first; None if none has enough."""
        found: _Rank | None = None
        for used_up, node_id in nodes:
            if used_up + memory_bytes > 0:
                break
            here = self._nodes.get(node_id, 0)
            rank = (here if zone is None else self._zones[zone], here, used_up, node_id)
            if found is None or rank < found:
                found = rank
            if here == 0:
                break
        return found
