"""Telling whether sessions are one's own, or lent by a pooler from one transaction or statement to the next (F21)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import asyncpg

from keelson.log.queries import load

_Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_READ_SESSION = load(__file__, "read_session")

# A pooler may be several processes, and only connections to the same one share sessions.
_ROUNDS = 4
# Turns of the two connections, in an order that neither kind of pooler keeps apart: the last used session comes to
# whoever is next, and sessions in turn come to one connection twice in a row. The pooler's other clients may take a
# session in between; with each connection's turns in a row, they hid it in up to every tenth round.
_TURNS = 4
_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 1.0


class SharedSessionsError(Exception):
    """A pooler lends sessions by transaction or statement; settings, plans and LISTEN would be lost or another's."""

    def __init__(self, setting: str) -> None:
        super().__init__(
            f"{setting} leads through a pooler that lends sessions by transaction or statement; "
            "Keelson needs sessions of its own: connect directly, or pool by session"
        )


async def shares_sessions(dsn: str) -> bool:
    """Whether what this URL leads to lends one server session to several connections in turn.

    Then one connection soon finds itself in two sessions, or two find themselves in one: poolers give out the session
    that was used last, or in turn, and open no other while one is free. With sessions of one's own neither can be.
    Connects _ROUNDS + 1 times, never more than twice at once. Raises what connecting raises, and TimeoutError.
    """
    async with asyncio.timeout(_TIMEOUT_S), _connected(dsn) as first:
        for _ in range(_ROUNDS):
            async with _connected(dsn) as second:
                seen: dict[_Connection, set[int]] = {first: set(), second: set()}
                for each in (first, second, second, first) * _TURNS:
                    seen[each].add(await each.fetchval(_READ_SESSION))
            if not are_own(*seen.values()):
                return True
    return False


def are_own(one: set[int], other: set[int]) -> bool:
    """Whether the sessions that two connections saw, open at once, may be their own: one for each, always the same."""
    return len(one) == len(other) == 1 and one.isdisjoint(other)


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[_Connection]:
    """Lend a connection that works, and leaves nothing behind, in whatever session each statement gets.

    No settings; and unnamed statements, which asyncpg prepares and runs without a gap in which a session could change.
    """
    connection = await asyncpg.connect(
        dsn, statement_cache_size=0, server_settings={"application_name": "keelson-pooling"}
    )
    try:
        yield connection
    finally:
        await connection.close(timeout=_CLOSE_TIMEOUT_S)
