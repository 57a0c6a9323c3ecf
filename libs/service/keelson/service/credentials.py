"""Credentials of the vault, looked up by their hashes, with what they grant: never older than a second.

Which aggregate a credential belongs to never changes; whether it is good and what it may is folded from that
aggregate's events. Both are kept, and asked for again when they are old: one statement for the credential and its
holder's seq, and one more only if the holder has moved. A revocation is seen within a second on every replica, and no
request waits for it meanwhile (DESIGN: grants of reads). Commands hold the holder in their read sets besides.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from keelson.access import Grants, Identity, NodeAccess, OrgAccess, PrincipalAccess, expiry_of, grants_of
from keelson.access.grants import Kind
from keelson.access.holders import Access
from keelson.access.tokens import hash_token
from keelson.events import REGISTRY, Actor, ActorType, Ids
from keelson.events.ids import AggregateId, Seq
from keelson.log.database import Database
from keelson.log.queries import load
from keelson.log.read import read_aggregate

# What is as old as that is asked for again, so that with the statement's own time it stays under a second.
MAX_AGE_S = 0.8
MAX_ENTRIES = 10_000
FLUSH_INTERVAL_S = 10.0

_READ_CREDENTIAL = load(__file__, "read_credential")
_NOTE_USES = load(__file__, "note_uses")
_PAGE = 1000

_ACTORS: dict[str, ActorType] = {"member": "user", "principal": "principal", "node": "node", "enrollment": "node"}
_FOLDS: dict[str, type[Access]] = {
    "member": OrgAccess,
    "principal": PrincipalAccess,
    "node": NodeAccess,
    "enrollment": NodeAccess,
}


class UnauthenticatedError(Exception):
    """No credential, or not a good one; which of the two is not told."""


class Caller(msgspec.Struct, frozen=True):
    """Who asks, and what they may as far as is known: for commands the handler's own read set has the last word.

    `token_hash` is that of the vault's credential, empty for others, and `expires_at` its end, if it has one.
    """

    identity: Identity
    grants: Grants
    token_hash: bytes = b""
    expires_at: datetime | None = None


class _Holder(msgspec.Struct, frozen=True):
    """The fold of an aggregate that grants, up to a seq."""

    ids: Ids
    seq: Seq
    access: Access


class _Known(msgspec.Struct, frozen=True):
    """A credential as it was at a moment of the monotonic clock; no caller: it is not good."""

    caller: Caller | None
    asked_at: float


class Credentials:
    """Finds callers by their tokens. `clock` is monotonic, `now` the time by which credentials expire."""

    def __init__(
        self,
        db: Database,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self._db = db
        self._clock = clock
        self._now = now
        self._max_entries = max_entries
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._holders: OrderedDict[str, _Holder] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Caller | None]] = {}
        self._used: dict[str, datetime] = {}
        self._epoch = ""

    def warm(self, token: str) -> Caller | None:
        """Give the caller that a token stands for, if that is known as of less than a second ago; nobody is asked."""
        token_hash = hash_token(token)
        known = self._known.get(token_hash)
        if known is None or self._clock() - known.asked_at > MAX_AGE_S:
            return None
        self._known.move_to_end(token_hash)
        return self._noted(known.caller)

    async def find(self, token: str) -> Caller | None:
        """Give the caller that a token stands for, as of less than a second ago; None if it is not good.

        What is not good is not remembered: a credential works from the moment at which it was issued.
        """
        return self.warm(token) or self._noted(await self._ask_once(hash_token(token)))

    def _noted(self, caller: Caller | None) -> Caller | None:
        if caller is not None:
            self._used[caller.identity.credential_id] = self._now()
        return caller

    async def get(self, token: str) -> Caller:
        """Give the caller that a token stands for, likewise. Raises UnauthenticatedError."""
        caller = await self.find(token)
        if caller is None:
            raise UnauthenticatedError
        return caller

    async def ask(self, token_hash: bytes) -> Caller | None:
        """Give the caller of a token's hash as of now, by a question that is asked after this call; None likewise."""
        return await self._ask(token_hash)

    def seconds_left(self, caller: Caller) -> float | None:
        """Give how long a caller's credential is good yet, if nobody revokes it; None for one that does not expire."""
        return None if caller.expires_at is None else (caller.expires_at - self._now()).total_seconds()

    def forget(self) -> None:
        """Know nobody any more: in another lineage of the log a token may be nobody's, or may do other things."""
        self._known, self._holders = OrderedDict(), OrderedDict()

    def knows(self, token: str) -> bool:
        """Whether a token was good when it was last asked about."""
        return hash_token(token) in self._known

    async def run(self) -> None:
        """Write down when credentials were last used, every few seconds, until cancelled.

        An operator's help, not a promise: what was noted since the last time is lost with the process.
        """
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            await self.flush()

    async def flush(self) -> None:
        """Write down the uses that were noted; kept for the next time if the database is away."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._db.fetchval(_NOTE_USES, list(used), list(used.values()))
        except Exception:  # noqa: BLE001 - whatever the database's trouble is, others tell of it
            self._used = {**used, **self._used}

    async def _ask_once(self, token_hash: bytes) -> Caller | None:
        """Ask the database, once for all who want the same meanwhile; who gives up does not end it for the others."""
        asking = self._asking.get(token_hash)
        if asking is None:
            asking = self._asking[token_hash] = asyncio.create_task(self._ask(token_hash))
            asking.add_done_callback(lambda _: self._asking.pop(token_hash, None))
        return await asyncio.shield(asking)

    async def _ask(self, token_hash: bytes) -> Caller | None:
        known, holders, asked_at = self._known, self._holders, self._clock()
        row = await self._db.fetchrow(_READ_CREDENTIAL, token_hash)
        caller = await self._caller_of(row, token_hash, holders) if row is not None else None
        if known is not self._known:  # what was read may be of two lineages
            return await self._ask(token_hash)
        if caller is None:
            known.pop(token_hash, None)
        else:
            _keep(known, token_hash, _Known(caller, asked_at), self._max_entries)
        return caller

    async def _caller_of(self, row: Any, token_hash: bytes, holders: OrderedDict[str, _Holder]) -> Caller | None:
        if row["epoch"] != self._epoch:  # in another lineage the same seq may mean something else
            holders.clear()
            self._epoch = row["epoch"]
        kind: Kind = row["kind"]
        identity = Identity(
            Actor(_ACTORS[kind], row["actor_id"]), kind, row["credential_id"], AggregateId(row["holder_id"])
        )
        holder = await self._holder(holders, row["holder_id"], _FOLDS[kind], row["seq"])
        access, ids = (holder.access, holder.ids) if holder is not None else (None, None)
        grants = grants_of(identity, access, ids, self._now())
        return Caller(identity, grants, token_hash, expiry_of(identity, access)) if grants is not None else None

    async def _holder(
        self, holders: OrderedDict[str, _Holder], holder_id: str, fold: type[Access], seq: int | None
    ) -> _Holder | None:
        """Give the fold of an aggregate at this seq or later; it is read on from what is known of it."""
        holder = holders.get(holder_id)
        while seq is not None and (holder is None or holder.seq < seq):
            page = await read_aggregate(self._db, holder_id, holder.seq if holder else 0, _PAGE)
            if not page:
                return None
            access = holder.access if holder else fold()
            for envelope in page:
                access = access.evolve(REGISTRY.decode(envelope.type, envelope.version, envelope.payload))
            holder = _Holder(page[0].ids, page[-1].seq, access)
        if holder is not None:
            _keep(holders, holder_id, holder, self._max_entries)
        return holder


def _keep(entries: OrderedDict[Any, Any], key: Any, value: Any, max_entries: int) -> None:
    entries[key] = value
    entries.move_to_end(key)
    if len(entries) > max_entries:
        entries.popitem(last=False)
