"""The headers that only commands have: what accompanies a command, and is kept on its events.

Every one is checked; none is ignored but an unfit traceparent, as W3C wants. Raises Problem `invalid` that names the
header, or `not_supported` for a Keelson-… header that is not known: a misspelt reason must not be lost.
"""

import re
from typing import Any

import msgspec

from keelson.events.ids import Position, Seq
from keelson.service.headers import RawHeaders, read_wait_s, refuse_header, require_known

MAX_REASON_CHARACTERS = 500
# Eighteen digits: what surely fits PostgreSQL's bigint.
MAX_SEQ = 10**18 - 1

_KEY = re.compile(rb"[\x20-\x7e]{1,255}")
_CORRELATION_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# With the epoch that an entity tag may have: of the tag, the seq is what is held against the log.
_STRONG_SEQ = re.compile(rb'"(0|[1-9][0-9]{0,17})(?:\.[0-9a-z]{1,26})?"')
_POSITION = re.compile(rb"[1-9][0-9]{0,17}")
# Version 00 alone: later ones may mean something else. All zeros is no id. https://www.w3.org/TR/trace-context/
_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class CommandHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """What the headers of a command say; None for what they do not."""

    reason: str | None = None
    idempotency_key: str | None = None
    if_match: Seq | None = None
    wait_s: int | None = None
    correlation_id: str | None = None
    causation_id: Position | None = None
    traceparent: str | None = None


def read_command_headers(headers: RawHeaders) -> CommandHeaders:
    """Read all headers that accompany a command."""
    require_known(headers, _KNOWN)
    values: dict[str, Any] = {}
    for name, value in headers:
        if reader := _READERS.get(name):
            field, read = reader
            if field in values:
                refuse_header(name, "must not be repeated")
            values[field] = read(name, value)
    return CommandHeaders(wait_s=read_wait_s(headers), traceparent=_read_traceparent(headers), **values)


def _read_reason(name: bytes, value: bytes) -> str:
    try:
        reason = value.decode("utf-8")
    except UnicodeDecodeError:
        refuse_header(name, "must be UTF-8")
    if not reason.strip() or len(reason) > MAX_REASON_CHARACTERS or "\0" in reason:
        refuse_header(name, f"must hold 1 to {MAX_REASON_CHARACTERS} characters, not only blanks, and no NUL")
    return reason


def _read_key(name: bytes, value: bytes) -> str:
    if not _KEY.fullmatch(value):
        refuse_header(name, "must be 1 to 255 printable ASCII characters")
    return value.decode("ascii")


def _read_if_match(name: bytes, value: bytes) -> Seq:
    match = _STRONG_SEQ.fullmatch(value)
    if not match:
        refuse_header(name, 'must be one strong tag that holds a seq, like "7"')
    return Seq(int(match[1]))


def _read_correlation_id(name: bytes, value: bytes) -> str:
    if not _CORRELATION_ID.fullmatch(value):
        refuse_header(name, "must be 1 to 128 of A-Z a-z 0-9 . _ -")
    return value.decode("ascii")


def _read_causation(name: bytes, value: bytes) -> Position:
    if not _POSITION.fullmatch(value):
        refuse_header(name, "must be a position: a positive whole number")
    return Position(int(value))


def _read_traceparent(headers: RawHeaders) -> str | None:
    values = [value for name, value in headers if name == b"traceparent"]
    return values[0].decode("ascii") if len(values) == 1 and _TRACEPARENT.fullmatch(values[0]) else None


_READERS = {
    b"keelson-reason": ("reason", _read_reason),
    b"idempotency-key": ("idempotency_key", _read_key),
    b"if-match": ("if_match", _read_if_match),
    b"keelson-correlation-id": ("correlation_id", _read_correlation_id),
    b"keelson-causation": ("causation_id", _read_causation),
}
_KNOWN = frozenset(_READERS)
