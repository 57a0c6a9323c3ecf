"""Reading request headers: strict about what is repeated or unfit, and never silent about what is not known."""

import re
from collections.abc import Collection
from typing import NoReturn

from keelson.service.problems import Problem

RawHeaders = list[tuple[bytes, bytes]]

MAX_WAIT_S = 30

_WAIT = re.compile(r'wait\s*=\s*(?:(\d{1,9})|"(\d{1,9})")', re.IGNORECASE)


def read_header(headers: RawHeaders, name: bytes) -> bytes | None:
    """Give the value of a header, named in lower case, that may stand once; raises Problem `invalid` if repeated."""
    values = [value for each, value in headers if each == name]
    if len(values) > 1:
        refuse_header(name, "must not be repeated")
    return values[0] if values else None


def read_wait_s(headers: RawHeaders, *, max_s: int = MAX_WAIT_S) -> int | None:
    """Give the seconds of `Prefer: wait=N`, clamped to `max_s`; None if the client prefers nothing of the kind.

    Other preferences are ignored, as RFC 7240 wants; `Preference-Applied` says what was applied.
    """
    waits = [
        part.strip()
        for name, value in headers
        if name == b"prefer"
        for part in value.decode("latin-1").split(",")
        if re.match(r"\s*wait\b", part, re.IGNORECASE)
    ]
    if not waits:
        return None
    match = _WAIT.fullmatch(waits[0])
    if len(waits) > 1 or not match:
        refuse_header(b"prefer", "must hold one wait=<seconds>, a whole number")
    return min(int(match[1] or match[2]), max_s)


def require_known(headers: RawHeaders, known: Collection[bytes] = ()) -> None:
    """Raise Problem `not_supported` for a Keelson-… header that is not among the known ones: nothing is ignored."""
    for name, _ in headers:
        if name.startswith(b"keelson-") and name not in known:
            raise Problem("not_supported", f"The header {_shown(name)} is not known here")


def refuse_header(name: bytes, why: str) -> NoReturn:
    """Raise Problem `invalid` that names the header; its value is not repeated."""
    raise Problem("invalid", f"The header {_shown(name)} {why}")


def _shown(name: bytes) -> str:
    return name.decode("latin-1").title()
