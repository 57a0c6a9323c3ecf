"""Reading cold aggregates and scopes from the log, for transactions."""

from collections.abc import Collection

from keelson.command.state import Aggregate, S
from keelson.events import REGISTRY
from keelson.events.ids import AggregateId, Seq
from keelson.log.confirm import ScopeState, count_held, read_scope
from keelson.log.database import Pool
from keelson.log.read import read_aggregate

PAGE = 1000


class LogReader:
    """Folds aggregates from the log: one round trip per 1000 events."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read_aggregate(
        self, state_type: type[S], aggregate_id: str, known: Aggregate[S] | None = None
    ) -> Aggregate[S] | None:
        """Fold an aggregate, on from an earlier state of it if one is known; None if it has no event.

        Pages may be of different snapshots: the seq that was reached is what the read set holds against the log.
        Raises UnknownEventError for an event that a newer writer wrote.
        """
        found = known
        while True:
            page = await read_aggregate(self._pool, aggregate_id, found.seq if found else Seq(0), PAGE)
            for envelope in page:
                event = REGISTRY.decode(envelope.type, envelope.version, envelope.payload)
                state = state_type.evolve(found.state if found else None, event)
                ids = found.ids if found else envelope.ids
                found = Aggregate(AggregateId(aggregate_id), envelope.seq, ids, state)
            if len(page) < PAGE:
                return found

    async def read_scope(self, scope: str) -> ScopeState:
        """Give what a claim scope holds."""
        return await read_scope(self._pool, scope)

    async def count_held(self, scope: str, aggregate_ids: Collection[str]) -> int:
        """Count the keys that these aggregates hold in a scope."""
        return await count_held(self._pool, scope, aggregate_ids)
