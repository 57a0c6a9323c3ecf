"""The operator's command line: `secrets rotate`. Plain lines to a terminal, and an exit code.

It is here and not in `keelson`, since the keys of secrets are known to the command service alone: it runs with the
service's own settings, in its container. 0: done; 1: something could not be done; 2: the settings are wrong.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence

import asyncpg

from keelson.command.rotation import rotate
from keelson.command.sealing import Sealer, read_keys
from keelson.command.settings import RotationSettings
from keelson.log.database import UNAVAILABLE, connect_to_log
from keelson.log.epochs import LineageError

_AWAY: tuple[type[BaseException], ...] = (*UNAVAILABLE, asyncpg.InvalidAuthorizationSpecificationError)
# Digests are of values, and these stay: rotation makes none.
_NO_DIGESTS = "no digest is made"


def parse(arguments: Sequence[str]) -> bool:
    """Read the command line; whether secrets are to be rotated, else the service is to be run."""
    parser = argparse.ArgumentParser(prog="python -m keelson.command", description=__doc__)
    parser.set_defaults(rotate=False)
    secrets = parser.add_subparsers(metavar="COMMAND").add_parser("secrets", help="the keys of secrets in the vault")
    ways = secrets.add_subparsers(required=True, metavar="WAY")
    ways.add_parser("rotate", help="bring all under the first of KEELSON_SECRET_KEYS").set_defaults(rotate=True)
    return bool(parser.parse_args(arguments).rotate)


def perform(settings: RotationSettings) -> int:
    """Rotate, and say what came of it; give the process's exit code."""
    try:
        return 0 if asyncio.run(_rotate(settings)) else 1
    except LineageError as error:
        return _fail(f"the database cannot be used: {error}")
    except _AWAY as error:
        return _fail(f"the database cannot be reached, or is too slow ({type(error).__name__})")
    except asyncpg.InsufficientPrivilegeError as error:
        return _fail(f"the role may not do this: {error}")


async def _rotate(settings: RotationSettings) -> bool:
    sealer = Sealer(read_keys(settings.secret_keys), _NO_DIGESTS)
    connection = await connect_to_log(settings.database_url, application_name="keelson-rotation")
    try:
        rotated = await rotate(connection, sealer)
    finally:
        connection.terminate()
    for fault in rotated.faults:
        _say(fault)
    _say(f"versions of secrets that were wrapped anew: {rotated.rewrapped}")
    left = {key_id: versions for key_id, versions in rotated.under.items() if key_id != sealer.key_id}
    for key_id, versions in left.items():
        _say(f"still under {key_id}: {versions}")
    if not left:
        _say(f"all are under {sealer.key_id}")
    return not left


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _fail(why: str) -> int:
    sys.stderr.write(f"keelson: {why}\n")
    return 1
