"""What the log does not tell: what a scheduler has noticed by itself, given to a plan as a fact."""

import msgspec


class Signs(msgspec.Struct, frozen=True, kw_only=True):
    """What was noticed, by ids.

    `silent` nodes have sent no heartbeat for `silent_s`, `heard` ones did just now, as far as there is a way to them;
    `refusing` nodes had no room after all; `overdue` deploys have come no further for too long.
    """

    silent: frozenset[str] = frozenset()
    silent_s: float = 0.0
    heard: frozenset[str] = frozenset()
    refusing: frozenset[str] = frozenset()
    overdue: frozenset[str] = frozenset()
