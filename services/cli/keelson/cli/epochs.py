"""Beginning an epoch by hand: what an operator does to a log that was put back in time, before it is served."""

import argparse
import json
import secrets
from typing import NamedTuple

from keelson.events.ids import Position
from keelson.log.database import Connection
from keelson.log.queries import load
from keelson.log.read import read_page

MAX_REASON_LENGTH = 500

# Taking the head's lock waits behind the append groups in flight; each of them is bounded by less.
_TIMEOUT_S = 30.0

_BEGIN_EPOCH = load(__file__, "begin_epoch")


class Begun(NamedTuple):
    """The epoch that began, the one before it, and the position of the event that says so."""

    epoch: str
    previous: str
    position: int


async def begin_epoch(connection: Connection, reason: str) -> Begun:
    """Begin an epoch with a random name, in a transaction of its own; two round trips.

    Raises TimeoutError when the head stays locked; whether an epoch began is then unknown, and one more does no harm.
    """
    name, request_id = secrets.token_hex(8), secrets.token_hex(16)
    position: int = await connection.fetchval(_BEGIN_EPOCH, name, reason, request_id, timeout=_TIMEOUT_S)
    page = await read_page(connection, Position(position - 1), 1)
    return Begun(name, json.loads(page.envelopes[0].payload)["previous"], position)


def read_reason(text: str) -> str:
    """Read a reason from the command line; raises ArgumentTypeError for what no event may keep."""
    if not text.strip() or len(text) > MAX_REASON_LENGTH:
        raise argparse.ArgumentTypeError(f"a reason is required, of at most {MAX_REASON_LENGTH} characters")
    if not text.isprintable():
        raise argparse.ArgumentTypeError("a reason is one line of printable text")
    return text
