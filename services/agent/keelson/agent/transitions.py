"""Which statuses may follow one another, as the command service has it, and how to get from one to another."""

from collections.abc import Mapping
from typing import Literal

Status = Literal["booting", "ready", "draining", "stopped", "failed"]

# None is before the node has said anything; what has stopped has ended.
MAY_FOLLOW: Mapping[Status | None, tuple[Status, ...]] = {
    None: ("booting", "ready", "draining", "stopped", "failed"),
    "booting": ("ready", "draining", "stopped", "failed"),
    "ready": ("draining", "stopped", "failed"),
    "draining": ("stopped", "failed"),
    "failed": ("booting", "stopped"),
    "stopped": (),
}


def between(known: Status | None, wanted: Status) -> tuple[Status, ...] | None:
    """Give the shortest way from what is known to what is wanted, without either; None where no way leads there."""
    ways: list[tuple[Status, ...]] = [()]
    seen: set[Status] = set()
    if known == wanted:
        return ()
    for way in ways:  # grows while it is gone through: breadth first
        for status in MAY_FOLLOW[way[-1] if way else known]:
            if status == wanted:
                return way
            if status not in seen:
                seen.add(status)
                ways.append((*way, status))
    return None
