"""The principals of a local stack that act as operators: whoever has the home's token, and its scheduler."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from keelson.local.errors import LocalError
from keelson.local.once import run_once


async def make_operator(environ: Mapping[str, str], token: str, log: Path, *, called: str = "operator") -> None:
    """Let the token be an operator's, by the command line's own command; nothing changes if it is. Raises LocalError.

    The principal is named after the token, so that one which was revoked is not made good again: that is refused, since
    the name is taken.
    """
    name = f"{called}-{hashlib.sha256(token.encode()).hexdigest()[:8]}"
    if await run_once("keelson.cli", "bootstrap", "--another", "--name", name, environ=environ, log=log):
        raise LocalError(f"the {called}'s token in secrets.json is no operator's and cannot be made one's; see {log}")
