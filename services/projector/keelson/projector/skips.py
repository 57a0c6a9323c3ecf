"""What an operator may do about a projection that has stopped: let it try again, or let it skip the event."""

from keelson.events import Actor
from keelson.log.database import Pool
from keelson.log.queries import load

MAX_REASON_LENGTH = 500

_RESUME = load(__file__, "resume_checkpoint")
_INSERT_SKIP = load(__file__, "insert_skip")


class NotStoppedError(Exception):
    """There is nothing to resume from, or the projection stopped at another event."""


async def skip(pool: Pool, projection: str, position: int, actor: Actor, reason: str) -> None:
    """Record that a projection skips the event that it stopped at, and let it go on, in one transaction.

    Only that event: one that is applied already, or not reached, would make a rebuild differ from the live views.
    Raises NotStoppedError, and ValueError without a reason.
    """
    if not reason.strip() or len(reason) > MAX_REASON_LENGTH:
        raise ValueError(f"a reason is required, of at most {MAX_REASON_LENGTH} characters")
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(_RESUME, projection, position) is None:
            raise NotStoppedError(f"{projection} has not stopped at {position}")
        await connection.execute(_INSERT_SKIP, projection, position, actor.type, actor.id, reason)


async def resume(pool: Pool, projection: str) -> int:
    """Let a stopped projection try again; give the position from which. Raises NotStoppedError."""
    position: int | None = await pool.fetchval(_RESUME, projection, None)
    if position is None:
        raise NotStoppedError(f"{projection} has not stopped")
    return position
