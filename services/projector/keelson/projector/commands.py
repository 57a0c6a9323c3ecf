"""The operator's command line: rebuild, verify, skip, resume. Plain lines to a terminal, and an exit code.

0: done, and no drift; 1: drift, or it could not be done; 2: the command or the settings are wrong.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import asyncpg

from keelson.log.database import UNAVAILABLE, NotDurableError, Pool
from keelson.log.pooling import SharedSessionsError
from keelson.projector.database import open_operators
from keelson.projector.leases import Leases, mint_holder
from keelson.projector.rebuild import LEASE_DURATION_S, RebuildError, rebuild
from keelson.projector.settings import ProjectorSettings
from keelson.projector.skips import NotStoppedError, resume, skip
from keelson.projector.verify import TableVerdict, VerifyError, verify
from keelson.service.authentication import OPERATOR
from keelson.service.health import require_database
from keelson.service.lifecycle import NotReadyError
from keelson.service.sessions import require_sessions
from keelson.views import PROJECTIONS

_REFUSALS = (RebuildError, VerifyError, NotStoppedError, NotReadyError, NotDurableError, SharedSessionsError)
_AWAY: tuple[type[BaseException], ...] = (*UNAVAILABLE, asyncpg.InvalidAuthorizationSpecificationError)

Command = Callable[[argparse.Namespace, Pool], Awaitable[bool]]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; without arguments the service is to be run (`command` is None)."""
    parser = argparse.ArgumentParser(prog="python -m keelson.projector", description=__doc__)
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(metavar="COMMAND")
    rebuilding = commands.add_parser("rebuild", help="derive a projection's views afresh, swap, and compare")
    rebuilding.set_defaults(command=_rebuild)
    verifying = commands.add_parser("verify", help="compare views with the log; of all projections if none is named")
    verifying.add_argument("projection", nargs="?", choices=sorted(PROJECTIONS))
    verifying.set_defaults(command=_verify)
    skipping = commands.add_parser("skip", help="let a projection skip the event that it stopped at")
    skipping.set_defaults(command=_skip)
    resuming = commands.add_parser("resume", help="let a stopped projection try again")
    resuming.set_defaults(command=_resume)
    for each in (rebuilding, skipping, resuming):
        each.add_argument("projection", choices=sorted(PROJECTIONS))
    skipping.add_argument("position", type=int)
    skipping.add_argument("--reason", required=True, help="why; kept with the skip")
    return parser.parse_args(arguments)


def perform(command: Command, given: argparse.Namespace, settings: ProjectorSettings) -> int:
    """Perform a command; give the process's exit code."""
    try:
        return 0 if asyncio.run(_perform(command, given, settings)) else 1
    except _REFUSALS as error:
        return _fail(str(error))
    except _AWAY as error:
        return _fail(f"the database cannot be reached, or is too slow ({type(error).__name__})")


async def _perform(command: Command, given: argparse.Namespace, settings: ProjectorSettings) -> bool:
    async with _opened(settings) as pool:
        return await command(given, pool)


@asynccontextmanager
async def _opened(settings: ProjectorSettings) -> AsyncIterator[Pool]:
    pool = await open_operators(settings)
    try:
        await require_sessions(settings)
        await require_database(pool)
        yield pool
    finally:
        await pool.close()


async def _rebuild(given: argparse.Namespace, pool: Pool) -> bool:
    leases = Leases(pool, mint_holder(), duration_s=LEASE_DURATION_S)
    await rebuild(PROJECTIONS[given.projection], pool, leases, _say)
    return await _verify(given, pool)


async def _verify(given: argparse.Namespace, pool: Pool) -> bool:
    good = True
    for name in [given.projection] if given.projection else PROJECTIONS:
        verdict = await verify(PROJECTIONS[name], pool)
        _say(f"{name} at position {verdict.checkpoint:,}: {'as the log says' if verdict.is_good else 'DRIFT'}")
        for table in verdict.tables:
            _say_table(table)
        good = good and verdict.is_good
    return good


async def _skip(given: argparse.Namespace, pool: Pool) -> bool:
    try:
        await skip(pool, given.projection, given.position, OPERATOR.identity.actor, given.reason)
    except ValueError as error:
        raise NotStoppedError(str(error)) from None
    _say(f"{given.projection} skips event {given.position:,} and goes on")
    return True


async def _resume(given: argparse.Namespace, pool: Pool) -> bool:
    position = await resume(pool, given.projection)
    _say(f"{given.projection} tries again after position {position:,}")
    return True


def _say_table(table: TableVerdict) -> None:
    digests = (
        table.live_digest[:16] if table.is_good else f"live {table.live_digest[:16]}, log {table.folded_digest[:16]}"
    )
    _say(f"  {table.table:<14} {table.rows:>12,} rows  {'ok   ' if table.is_good else 'DRIFT'}  {digests}")
    for drift in table.drifts:
        _say(f"    {'/'.join(map(str, drift.key))}: {drift.what}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _fail(why: str) -> int:
    sys.stderr.write(f"keelson: {why}\n")
    return 1
