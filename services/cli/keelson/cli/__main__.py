"""`python -m keelson.cli`, also installed as `keelson`: what an operator does beside the HTTP APIs."""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import asyncpg

from keelson.cli.bootstrap import BootstrapError, OperatorExistsError, bootstrap, read_name
from keelson.cli.epochs import begin_epoch, read_reason
from keelson.cli.passwords import PasswordsError, prepare_roles, read_passwords
from keelson.cli.settings import CliSettings
from keelson.events.registry import UnknownEventError
from keelson.log.append import AppendUnavailableError
from keelson.log.claims import Claim, Difference, ScopeSum, rebuild_claims, verify_claims
from keelson.log.database import UNAVAILABLE, connect, connect_to_log
from keelson.log.migrate import migrate
from keelson.log.pooling import SharedSessionsError, shares_sessions
from keelson.log.prune import KEEP_DAYS, prune_keys
from keelson.settings import SettingsError

# Exit codes: 0 done, 1 found something wrong, 2 could not be done.
OK, WRONG, FAILED = 0, 1, 2
_MAX_DAYS = 36_500
_DATABASE = "KEELSON_DATABASE_URL"

# A string, since asyncpg's classes are generic for the type checker only.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
# A command gets what the command line said, and a connection of its own.
Command: TypeAlias = "Callable[[argparse.Namespace, Connection], Awaitable[int]]"

_UNUSABLE: tuple[type[BaseException], ...] = (
    *UNAVAILABLE,
    asyncpg.InterfaceError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


class _UrlError(Exception):
    """The URL cannot be read. What asyncpg says of it may hold the password, and is not shown."""


_EXPECTED: tuple[type[BaseException], ...] = (
    *_UNUSABLE,
    asyncpg.PostgresError,
    SharedSessionsError,
    PasswordsError,
    BootstrapError,
    UnknownEventError,
    AppendUnavailableError,
    _UrlError,
)


def main() -> int:
    """Run one command; give its exit code."""
    arguments = _parser().parse_args()
    try:
        settings = CliSettings.load(os.environ)
    except SettingsError as error:
        return _fail(str(error))
    arguments.settings = settings
    try:
        return asyncio.run(_run(settings.database_url, arguments))
    except OperatorExistsError as error:
        _complain(str(error))
        return WRONG
    except _EXPECTED as error:
        return _fail(_reason(error))


def _reason(error: BaseException) -> str:
    match error:
        case _UrlError():
            return f"{_DATABASE} is not the URL of a PostgreSQL database"
        case SharedSessionsError() | PasswordsError() | BootstrapError() | AppendUnavailableError():
            return str(error) or "the append did not end in time: whether it was done is not known"
        case UnknownEventError():
            return f"the log was written by a newer version: {error}"
        case asyncpg.InsufficientPrivilegeError():
            return f"the role of {_DATABASE} may not do this: {error}"
        case _ if isinstance(error, _UNUSABLE):
            return f"the database cannot be used: {str(error) or type(error).__name__}"
        case _:
            return f"the database refused: {error}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="keelson", description="Keelson's command line for operators.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    migrating = commands.add_parser("migrate", help="bring the database's schema up to date (as the log's owner)")
    migrating.add_argument(
        "--passwords",
        type=Path,
        metavar="FOLDER",
        help="before, create the services' roles and set their passwords, each from the file there named like it",
    )
    migrating.set_defaults(run=_migrate)
    booting = commands.add_parser(
        "bootstrap",
        help="make the first operator and show its token, once (as the log's owner or keelson_command)",
        description="Makes a principal of the platform with the scope operator, and a credential. The token is the one "
        "of KEELSON_OPERATOR_TOKEN, or a random one, which is printed and kept nowhere. Ends with 0 also if that token "
        "is a credential already, and with 1 if there is an operator, but not by it.",
    )
    booting.add_argument("--name", type=read_name, default="operator", help="the principal's name; operator")
    unless = booting.add_mutually_exclusive_group()
    unless.add_argument("--another", action="store_true", help="make one although there are some: against a lock-out")
    unless.add_argument(
        "--if-none", action="store_true", help="end with 0 also if there is one by another token: for each start"
    )
    booting.set_defaults(run=_bootstrap)
    claims = commands.add_parser("claims", help="compare the claims with the log, or derive them again")
    ways = claims.add_subparsers(required=True, metavar="WAY")
    ways.add_parser("verify", help="name every difference").set_defaults(run=_verify_claims)
    ways.add_parser("rebuild", help="mend every difference (as the log's owner)").set_defaults(run=_rebuild_claims)
    keys = commands.add_parser("keys", help="the answers that are kept under idempotency keys")
    pruning = keys.add_subparsers(required=True, metavar="WAY").add_parser(
        "prune", help="delete old ones; run it daily (as the log's owner or keelson_command)"
    )
    pruning.add_argument(
        "--older-than-days", type=_read_days, default=KEEP_DAYS, metavar="N", help=f"at least {KEEP_DAYS}, the default"
    )
    pruning.set_defaults(run=_prune_keys)
    epochs = commands.add_parser("epoch", help="the lineages of the log")
    beginning = epochs.add_subparsers(required=True, metavar="WAY").add_parser(
        "new", help="begin another: after a restore, before the log is served (as its owner or keelson_command)"
    )
    beginning.add_argument("--reason", required=True, type=read_reason, metavar="TEXT", help="why; kept on the event")
    beginning.set_defaults(run=_begin_epoch)
    return parser


async def _run(dsn: str, arguments: argparse.Namespace) -> int:
    run: Command = arguments.run
    try:
        if await shares_sessions(dsn):
            raise SharedSessionsError(_DATABASE)
        # These two begin an epoch themselves where one is due.
        entering = connect if run in (_migrate, _begin_epoch) else connect_to_log
        connection = await entering(dsn, application_name="keelson-cli")
    except ValueError as error:
        raise _UrlError from error
    try:
        return await run(arguments, connection)
    finally:
        connection.terminate()


async def _migrate(given: argparse.Namespace, connection: Connection) -> int:
    if given.passwords is not None:
        await prepare_roles(connection, read_passwords(given.passwords))
        _say("the services' roles have their passwords")
    for name in await migrate(connection):
        _say(f"applied {name}")
    _say("the schema is up to date")
    return OK


async def _bootstrap(given: argparse.Namespace, connection: Connection) -> int:
    try:
        made = await bootstrap(connection, given.settings, given)
    except OperatorExistsError as error:
        if not given.if_none:
            raise
        _say(str(error))
        return OK
    if made is None:
        _say("the token is a credential already")
        return OK
    _say(f"made the principal {made.principal_id}, an operator of the platform")
    if not given.settings.operator_token:
        _say(made.token)
    return OK


async def _verify_claims(_given: argparse.Namespace, connection: Connection) -> int:
    differences = await verify_claims(connection)
    _show(differences)
    _say(f"differences: {len(differences)}" if differences else "the claims are what the log says")
    return WRONG if differences else OK


async def _rebuild_claims(_given: argparse.Namespace, connection: Connection) -> int:
    differences = await rebuild_claims(connection)
    _show(differences)
    _say(f"differences mended: {len(differences)}" if differences else "the claims were what the log says")
    return OK


async def _prune_keys(given: argparse.Namespace, connection: Connection) -> int:
    before = datetime.now(tz=UTC) - timedelta(days=given.older_than_days)
    _say(f"keys deleted: {await prune_keys(connection, before)}")
    return OK


def _read_days(text: str) -> int:
    if not text.isdecimal() or not KEEP_DAYS <= int(text) <= _MAX_DAYS:
        raise argparse.ArgumentTypeError(f"keys are kept for {KEEP_DAYS} to {_MAX_DAYS} days")
    return int(text)


async def _begin_epoch(given: argparse.Namespace, connection: Connection) -> int:
    begun = await begin_epoch(connection, given.reason)
    _say(f"epoch {begun.previous} ended, epoch {begun.epoch} began at position {begun.position}")
    return OK


def _show(differences: list[Difference]) -> None:
    for each in differences:
        place = each.scope if each.key is None else f"{each.scope} {each.key}"
        _say(f"{place}: {_told(each.expected)} by the log, {_told(each.found)} by the table")


def _told(claim: Claim | ScopeSum | None) -> str:
    match claim:
        case Claim():
            return f"held by {claim.aggregate_id} for {claim.amount}"
        case ScopeSum():
            return f"{claim.held} keys for {claim.amount}"
        case None:
            return "nothing"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _fail(why: str) -> int:
    _complain(why)
    return FAILED


def _complain(why: str) -> None:
    sys.stderr.write(f"keelson: {why}\n")


if __name__ == "__main__":
    sys.exit(main())
