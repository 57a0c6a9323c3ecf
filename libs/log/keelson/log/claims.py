"""Claims, derived from the log again: what anyone can compare with, and what an owner can put in their place.

The append and this fold take the same `claims_of` of each event; that they agree is a check of both.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec

from keelson.events import REGISTRY, Envelope, Take
from keelson.events.ids import Position
from keelson.log.database import Connection
from keelson.log.queries import load
from keelson.log.read import read_page

PAGE = 5000

# The number of the rules, which are every event's `claims_of`. Raise it when they give other claims of events that a
# log may hold already: the next migration makes that log's claims anew.
CLAIMS_VERSION = 2

_LOCK_HEAD = load(__file__, "lock_head")
_READ_CLAIMS = load(__file__, "read_claims")
_READ_SCOPES = load(__file__, "read_scopes")
_DELETE_CLAIMS = load(__file__, "delete_claims")
_INSERT_CLAIMS = load(__file__, "insert_claims")
_READ_CLAIMS_VERSION = load(__file__, "read_claims_version")
_KEEP_CLAIMS_VERSION = load(__file__, "keep_claims_version")
_REPLACE_SCOPES = load(__file__, "replace_scopes")


class Claim(msgspec.Struct, frozen=True):
    """Who holds a key, and for how much."""

    aggregate_id: str
    amount: int


class ScopeSum(msgspec.Struct, frozen=True):
    """How many keys a scope holds, and for how much in all."""

    held: int
    amount: int


class Difference(msgspec.Struct, frozen=True):
    """Where the tables and the log disagree; None where there is nothing. `key` is None for what a scope holds."""

    scope: str
    key: str | None
    expected: Claim | ScopeSum | None
    found: Claim | ScopeSum | None


class ClaimsFold:
    """The claims after the events that it was given, in order."""

    def __init__(self) -> None:
        self.position = Position(0)
        self._scopes: dict[str, dict[str, Claim]] = defaultdict(dict)

    def apply(self, envelope: Envelope) -> None:
        """Apply the next event. Raises UnknownEventError for one that a newer writer wrote."""
        event = REGISTRY.decode(envelope.type, envelope.version, envelope.payload)
        for change in event.claims_of(envelope.ids):
            held = self._scopes[change.scope]
            if isinstance(change, Take):
                held[change.key_of(envelope.aggregate_id)] = Claim(envelope.aggregate_id, change.amount)
            else:
                for key in [key for key, claim in held.items() if claim.aggregate_id == envelope.aggregate_id]:
                    del held[key]
        self.position = envelope.position

    @property
    def claims(self) -> dict[tuple[str, str], Claim]:
        """Every claim by scope and key."""
        return {(scope, key): claim for scope, held in self._scopes.items() for key, claim in held.items()}

    @property
    def scopes(self) -> dict[str, ScopeSum]:
        """What each scope that was ever used holds."""
        return {
            scope: ScopeSum(len(held), sum(claim.amount for claim in held.values()))
            for scope, held in self._scopes.items()
        }


async def verify_claims(connection: Connection) -> list[Difference]:
    """Compare the claims with the log, both of one snapshot; give every difference.

    The connection may be the command service's: reading is enough. Time and memory grow with the log and the claims.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return await _compare(connection, await _fold(connection, ClaimsFold()))


async def rebuild_claims(connection: "asyncpg.Connection[asyncpg.Record]") -> list[Difference]:
    """Replace the claims by what the log says, if they differ; give the differences that were mended.

    The connection is the log's owner's. Appends wait for the last part only, which follows what was appended while
    the log was read; the versions of all scopes rise, so that nothing decided on the claims before is appended.
    """
    fold = await _fold(connection, ClaimsFold())
    async with connection.transaction():
        await connection.execute(_LOCK_HEAD)
        differences = await _compare(connection, await _fold(connection, fold))
        if differences:
            await _mend(connection, fold, differences)
        await connection.execute(_KEEP_CLAIMS_VERSION, CLAIMS_VERSION)
    return differences


async def renew_claims(connection: "asyncpg.Connection[asyncpg.Record]") -> list[Difference]:
    """Rebuild the claims if they were made by older rules than this code's; give the differences that were mended.

    The connection is the log's owner's. Replicas of older code may run meanwhile, but what they append is claimed by
    their rules: once the last of them has ended, `rebuild_claims` mends what that left out.
    """
    version: int | None = await connection.fetchval(_READ_CLAIMS_VERSION)
    return [] if version is not None and version >= CLAIMS_VERSION else await rebuild_claims(connection)


async def _mend(
    connection: "asyncpg.Connection[asyncpg.Record]", fold: ClaimsFold, differences: list[Difference]
) -> None:
    places = [(each.scope, each.key) for each in differences if each.key is not None]
    claims = fold.claims
    right = [(*place, claims[place].aggregate_id, claims[place].amount) for place in places if place in claims]
    await connection.execute(_DELETE_CLAIMS, *_columns(places, 2))
    await connection.execute(_INSERT_CLAIMS, *_columns(right, 4))
    sums = [(scope, each.held, each.amount) for scope, each in fold.scopes.items()]
    await connection.execute(_REPLACE_SCOPES, *_columns(sums, 3))


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [[row[column] for row in rows] for column in range(width)]


async def _fold(connection: Connection, fold: ClaimsFold) -> ClaimsFold:
    while True:
        page = await read_page(connection, fold.position, PAGE)
        for envelope in page.envelopes:
            fold.apply(envelope)
        if fold.position >= page.head:
            return fold


async def _compare(connection: Connection, fold: ClaimsFold) -> list[Difference]:
    claims = {
        (row["scope"], row["key"]): Claim(row["aggregate_id"], row["amount"])
        for row in await connection.fetch(_READ_CLAIMS)
    }
    sums = {row["scope"]: ScopeSum(row["held"], row["amount"]) for row in await connection.fetch(_READ_SCOPES)}
    expected, expected_sums = fold.claims, fold.scopes
    nothing = ScopeSum(0, 0)
    differing = [place for place in expected.keys() | claims.keys() if expected.get(place) != claims.get(place)]
    differing_sums = [
        scope
        for scope in expected_sums.keys() | sums.keys()
        if expected_sums.get(scope, nothing) != sums.get(scope, nothing)
    ]
    return [
        Difference(scope, key, expected.get((scope, key)), claims.get((scope, key))) for scope, key in sorted(differing)
    ] + [Difference(scope, None, expected_sums.get(scope), sums.get(scope)) for scope in sorted(differing_sums)]
