"""Reading cold aggregates and scopes from the log, for transactions."""

from collections.abc import Collection, Sequence

from keelson.command.state import Aggregate, S
from keelson.command.vault import SealedSecret
from keelson.events import REGISTRY, Envelope, Event
from keelson.events.ids import AggregateId, Position, Seq
from keelson.log.confirm import ScopeState, count_held, read_holder, read_holders, read_scope
from keelson.log.database import Pool
from keelson.log.queries import load
from keelson.log.read import read_aggregate, read_command_end, read_env

PAGE = 1000
# Of an environment: each may have all its variables in it.
ENV_PAGE = 200

_FIND_PERSON = load(__file__, "find_person")
_READ_SECRET = load(__file__, "read_secret")


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
        # The last event that is known is read once more: if it is gone, the log was put back, and nothing is known.
        found, after = known, Seq(known.seq - 1 if known else 0)
        while True:
            page = await read_aggregate(self._pool, aggregate_id, after, PAGE)
            if found is not None and after < found.seq and not page:
                return await self.read_aggregate(state_type, aggregate_id)
            for envelope in page:
                if found is None or envelope.seq > found.seq:
                    found = _evolve(state_type, found, envelope)
            if len(page) < PAGE:
                return found
            after = page[-1].seq

    async def read_scope(self, scope: str) -> ScopeState:
        """Give what a claim scope holds."""
        return await read_scope(self._pool, scope)

    async def count_held(self, scope: str, aggregate_ids: Collection[str]) -> int:
        """Count the keys that these aggregates hold in a scope."""
        return await count_held(self._pool, scope, aggregate_ids)

    async def read_holders(self, scope: str) -> Collection[AggregateId]:
        """Give the aggregates that hold keys in a scope."""
        return await read_holders(self._pool, scope)

    async def read_holder(self, scope: str, key: str) -> AggregateId | None:
        """Give the aggregate that holds a key, if one does."""
        return await read_holder(self._pool, scope, key)

    async def read_command_end(self, position: int) -> Position | None:
        """Give the last position up to this one at which a command ends, 0 if there is none; None beyond the head."""
        return await read_command_end(self._pool, position)

    async def read_env(
        self, env_id: str, after: Position, until: Position, types: Sequence[str]
    ) -> list[tuple[Position, AggregateId, Event]]:
        """Give a page of the events of an environment's aggregates of these types, in order; empty at the end.

        Raises UnknownEventError for an event that a newer writer wrote.
        """
        page = await read_env(self._pool, env_id, types, after=after, until=until, limit=ENV_PAGE)
        return [
            (each.position, each.aggregate_id, REGISTRY.decode(each.type, each.version, each.payload)) for each in page
        ]

    async def find_person(self, email: str) -> str | None:
        """Give the person who has an e-mail, in whichever case."""
        found: str | None = await self._pool.fetchval(_FIND_PERSON, email)
        return found

    async def read_secret(self, secret_id: str, version: int) -> SealedSecret | None:
        """Give a version of a secret, unless it was erased or never was."""
        row = await self._pool.fetchrow(_READ_SECRET, secret_id, version)
        return SealedSecret(*row) if row else None


def _evolve(state_type: type[S], found: Aggregate[S] | None, envelope: Envelope) -> Aggregate[S]:
    event = REGISTRY.decode(envelope.type, envelope.version, envelope.payload)
    state = state_type.evolve(found.state if found else None, event)
    return Aggregate(envelope.aggregate_id, envelope.seq, found.ids if found else envelope.ids, state)
