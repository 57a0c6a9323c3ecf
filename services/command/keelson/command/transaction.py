"""The transaction: all that a handler sees. It reads, it decides, and it remembers what it read."""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from keelson.access import Identity
from keelson.access.grants import NOTHING
from keelson.command.refusal import Refusal, name_taken, not_found
from keelson.command.state import Aggregate, S, State, StateCache
from keelson.command.vault import Sealer, Vault, VaultReader
from keelson.events import Event, Ids, Release
from keelson.events.ids import AggregateId, Position, Seq
from keelson.log.confirm import ScopeState
from keelson.log.decision import CredentialKind, FreedScope, Limit, NewEvent, ReadSet, TakenKey


class Reader(VaultReader, Protocol):
    """Reads what is not warm, from the log."""

    async def read_aggregate(
        self, state_type: type[S], aggregate_id: str, known: Aggregate[S] | None
    ) -> Aggregate[S] | None:
        """Fold an aggregate, on from an earlier state of it if one is known; None if it has no event."""

    async def read_scope(self, scope: str) -> ScopeState:
        """Give what a claim scope holds."""

    async def count_held(self, scope: str, aggregate_ids: Collection[str]) -> int:
        """Count the keys that these aggregates hold in a scope."""

    async def read_holders(self, scope: str) -> Collection[AggregateId]:
        """Give the aggregates that hold keys in a scope."""

    async def read_holder(self, scope: str, key: str) -> AggregateId | None:
        """Give the aggregate that holds a key, if one does."""

    async def read_command_end(self, position: int) -> Position | None:
        """Give the last position up to this one at which a command ends, 0 if there is none; None beyond the head."""

    async def read_env(
        self, env_id: str, after: Position, until: Position, types: Sequence[str]
    ) -> Sequence[tuple[Position, AggregateId, Event]]:
        """Give a page of the events of an environment's aggregates of these types, in order; empty at the end."""


class NotReachedError(Exception):
    """A position that the log has not come to."""


class Supply(NamedTuple):
    """What handlers cannot make themselves: ids of a prefix, tokens, and what seals secrets."""

    mint: Callable[[str], str]
    new_token: Callable[[], str]
    sealer: Sealer


class SetLimit(NamedTuple):
    """A limit, what is answered when the scope would hold more, and which of the request's commands set it."""

    limit: Limit
    refusal: Refusal
    command_index: int


class Transaction:
    """One decision in the making: one command, or the commands of a bundle, later ones seeing earlier ones.

    Whatever is read joins the read set; the append, or the confirmation, refuses the decision if any of it has moved.
    `now` is when the request was received, in UTC: the same however often it is decided.
    """

    def __init__(self, reader: Reader, cache: StateCache, supply: Supply, *, identity: Identity, now: datetime) -> None:
        self._reader = reader
        self._cache = cache
        self._supply = supply
        self._aggregates: dict[AggregateId, Aggregate[Any] | None] = {}
        self.identity = identity
        # What the sender may; set before each command's handler runs.
        self.grants = NOTHING
        self.now = now
        self.epoch = cache.epoch
        self.reads = ReadSet()
        self.vault = Vault(reader, supply.sealer)
        self.reads.people = self.vault.looked_up
        self.limits: list[SetLimit] = []
        # Which of the request's commands runs; set by whoever runs them.
        self.command_index = 0
        self.scopes: dict[str, ScopeState] = {}
        self.events: list[NewEvent] = []
        self.taken: dict[tuple[str, str], TakenKey] = {}
        self.freed: dict[tuple[str, AggregateId], FreedScope] = {}
        # Taken and freed again by this very transaction: nothing to keep, but they must have been free.
        self.passing: list[TakenKey] = []

    async def read(self, state_type: type[S], aggregate_id: str) -> Aggregate[S] | None:
        """Give an aggregate, also a deleted one, as this transaction's events leave it; None if it never was."""
        own_id = AggregateId(aggregate_id)
        if own_id not in self._aggregates:
            found = self._cache.read(own_id) or await self._read_cold(state_type, own_id)
            self._aggregates[own_id] = found
            self.reads.aggregates[own_id] = found.seq if found else Seq(0)
        return self._aggregates[own_id]

    async def get(self, state_type: type[S], aggregate_id: str) -> Aggregate[S]:
        """Give a live aggregate that the sender may see. Raises Refusal `not_found` for any other.

        What a command names is got; what a handler looks up by itself is read.
        """
        found = await self.read(state_type, aggregate_id)
        if found is None or found.state.deleted or not self.grants.sees(found.ids):
            raise not_found(state_type.noun, aggregate_id)
        return found

    async def held(self, scope: str) -> int:
        """Give how many keys a claim scope holds, with what this transaction has taken and freed so far."""
        state = await self._read_scope(scope)
        taken = sum(1 for taken in self.taken.values() if taken.scope == scope)
        freed = [freed.aggregate_id for freed in self.freed.values() if freed.scope == scope]
        return state.held + taken - (await self._reader.count_held(scope, freed) if freed else 0)

    async def holders(self, scope: str) -> list[AggregateId]:
        """Give which aggregates hold keys in a claim scope, in order, as this transaction's events leave it.

        Only an empty scope is warm; of any other they are read each time. They may be of a later moment than the
        version in the read set: while that version holds, nobody has come or gone between the two.
        """
        state = await self._read_scope(scope)
        holding = set(await self._reader.read_holders(scope)) if state.held else set()
        holding -= {freed.aggregate_id for freed in self.freed.values() if freed.scope == scope}
        return sorted(holding | {taken.aggregate_id for taken in self.taken.values() if taken.scope == scope})

    async def holder(self, scope: str, key: str) -> AggregateId | None:
        """Give who holds a claim key, as this transaction's events leave it; who held it before joins the read set."""
        own = self.taken.get((scope, key))
        if own is not None:
            return own.aggregate_id
        if (scope, key) not in self.reads.keys:
            self.reads.keys[scope, key] = await self._reader.read_holder(scope, key)
        found = self.reads.keys[scope, key]
        return None if found is None or (scope, found) in self.freed else found

    async def env_history(
        self, env_id: str, until: int, types: Sequence[str]
    ) -> AsyncIterator[tuple[AggregateId, Event]]:
        """Go over the events of an environment's aggregates of these types, of commands complete by a position.

        They are of the past, which does not change within an epoch, and so are not part of the read set. This
        transaction's own are not among them. Raises NotReachedError for a position beyond the head.
        """
        end = await self._reader.read_command_end(until)
        if end is None:
            raise NotReachedError
        after = Position(0)
        while page := await self._reader.read_env(env_id, after, end, types):
            for _, aggregate_id, event in page:
                yield aggregate_id, event
            after = page[-1][0]

    def limit(self, scope: str, *, held: int | None = None, amount: int | None = None, refusal: Refusal) -> None:
        """Let a scope hold at most so many keys, and so much, as this command leaves it; else it is this refusal.

        It is held against the log in the append, with what others have taken by then; what was read says nothing of it.
        """
        self.limits.append(SetLimit(Limit(scope, held, amount), refusal, self.command_index))

    def mint(self, prefix: str) -> str:
        """Give a new id for a part of an aggregate: a member, a person, a credential."""
        return self._supply.mint(prefix)

    async def find_person(self, email: str) -> str | None:
        """Give the person who has an e-mail, in whichever case, as this transaction leaves it.

        Joins the read set of an append. Nothing compares it when nothing is appended.
        """
        return await self.vault.find_person(email)

    def keep_person(self, person_id: str, email: str, name: str | None) -> None:
        """Keep a person's e-mail and name. If another has the e-mail by the append, all is decided again."""
        self.vault.keep_person(person_id, email, name)

    def erase_person(self, person_id: str) -> None:
        """Erase a person's e-mail and name: nobody will find them, their id stays in events."""
        self.vault.erase_person(person_id)

    def issue_credential(self, credential_id: str, kind: CredentialKind, holder_id: str, actor_id: str) -> str:
        """Give a new token, to be shown once: what is kept is its hash."""
        token = self._supply.new_token()
        self.vault.issue_credential(credential_id, token, kind, holder_id, actor_id)
        return token

    def revoke_credential(self, credential_id: str) -> None:
        """Remove a credential's hash: its token finds nothing any more."""
        self.vault.revoke_credential(credential_id)

    async def open_secret(self, secret_id: str, version: int) -> dict[str, str] | None:
        """Give the values of a version of a secret; None if it was erased or never was."""
        return await self.vault.open_secret(secret_id, version)

    def seal_secret(self, secret_id: str, version: int, values: dict[str, str]) -> str:
        """Keep values as a new version of a secret, sealed; give their keyed digest."""
        return self.vault.seal_secret(secret_id, version, values)

    def erase_secret(self, secret_id: str) -> None:
        """Erase all versions of a secret."""
        self.vault.erase_secret(secret_id)

    async def new_id(self, state_type: type[State], chosen: str | None) -> AggregateId:
        """Give the id of an aggregate to be created. Raises Refusal `id_taken` for a chosen one that ever existed."""
        if chosen is not None:
            if await self.read(state_type, chosen) is not None:
                raise Refusal("id_taken", f"the id {chosen} is taken")
            return AggregateId(chosen)
        minted = AggregateId(self._supply.mint(state_type.aggregate_type))
        self._aggregates[minted] = None
        self.reads.aggregates[minted] = Seq(0)
        return minted

    def create(self, state_type: type[S], aggregate_id: AggregateId, ids: Ids, event: Event) -> Aggregate[S]:
        """Append the first event of an aggregate whose id came from `new_id`; `ids` are its ancestors' and its own."""
        return self._append(Aggregate(aggregate_id, Seq(1), ids, state_type.evolve(None, event)), event)

    def append(self, aggregate: Aggregate[S], event: Event) -> Aggregate[S]:
        """Append an event to an aggregate that was read; give the aggregate as it is afterwards."""
        current: Aggregate[S] = self._aggregates[aggregate.id] or aggregate
        state = type(current.state).evolve(current.state, event)
        return self._append(Aggregate(current.id, Seq(current.seq + 1), current.ids, state), event)

    def seq_before(self, aggregate_id: str, events: int) -> Seq | None:
        """Give an aggregate's seq as it was when this transaction had so many events; None if it was never read."""
        found = self._aggregates.get(AggregateId(aggregate_id))
        if found is None:
            return None
        return Seq(found.seq - sum(event.aggregate_id == aggregate_id for event in self.events[events:]))

    def changed(self) -> list[Aggregate[Any]]:
        """Give the aggregates that this transaction's events change, as they are afterwards."""
        changed_ids = {event.aggregate_id for event in self.events}
        return [found for found in self._aggregates.values() if found is not None and found.id in changed_ids]

    async def _read_cold(self, state_type: type[S], aggregate_id: AggregateId) -> Aggregate[S] | None:
        found = await self._reader.read_aggregate(state_type, aggregate_id, self._cache.read_outdated(aggregate_id))
        if found is not None:
            self._cache.keep(found, self.epoch)
        return found

    async def _read_scope(self, scope: str) -> ScopeState:
        """Give what a scope held before this transaction; its version joins the read set."""
        if scope not in self.scopes:
            state = self._cache.read_scope(scope) or await self._reader.read_scope(scope)
            self._cache.keep_scope(scope, state, self.epoch)
            self.scopes[scope] = state
            self.reads.scopes[scope] = state.version
        return self.scopes[scope]

    def _append(self, aggregate: Aggregate[S], event: Event) -> Aggregate[S]:
        for change in event.claims_of(aggregate.ids):
            if isinstance(change, Release):
                self._free(change.scope, aggregate.id)
            else:
                key = change.key_of(aggregate.id)
                self._take(TakenKey(change.scope, key, aggregate.id, change.amount, len(self.events)))
        self.events.append(NewEvent.of(aggregate.id, aggregate.seq, aggregate.ids, event))
        self._aggregates[aggregate.id] = aggregate
        return aggregate

    def _free(self, scope: str, aggregate_id: AggregateId) -> None:
        """Let go of what the aggregate holds in the log, and of what it took in this very transaction."""
        self.freed.setdefault((scope, aggregate_id), FreedScope(scope, aggregate_id, len(self.events)))
        own = [place for place, taken in self.taken.items() if taken.scope == scope]
        for place in own:
            if self.taken[place].aggregate_id == aggregate_id:
                self.passing.append(self.taken.pop(place)._replace(kept=False))

    def _take(self, taken: TakenKey) -> None:
        """Take a key; another holder in the log shows at the append, one in this transaction at once."""
        known = self.taken.setdefault((taken.scope, taken.key), taken)
        if known.aggregate_id != taken.aggregate_id:
            raise name_taken(taken.key)
