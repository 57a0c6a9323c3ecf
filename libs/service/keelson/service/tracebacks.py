"""Tracebacks for logs: what failed and where, and of what an exception says only what cannot be anybody's data.

The text of an exception often quotes the value at fault: a KeyError, whatever does not parse, PostgreSQL's DETAIL. So
it is left out, but where it is known to name types, places and states (F43).
"""

import traceback
from collections.abc import Iterator

import asyncpg

WITHHELD = "(what it says may quote data)"

# Their texts name types, code, files and states.
_TELLING = (
    OSError,
    RuntimeError,
    TypeError,
    AttributeError,
    NameError,
    ImportError,
    AssertionError,
    asyncpg.InterfaceError,
)
# Lookups name the key, and a ValueError what does not fit: asyncpg's complaint of an argument is one as well.
_QUOTING = (LookupError, ValueError)
# PostgreSQL's class of errors whose messages quote what does not fit its type.
_DATA_EXCEPTION = "22"


def describe(error: BaseException) -> str:
    """Give the traceback of an exception, of what it came from and of a group's parts, as Python writes them."""
    return "\n".join(_lines(error, set()))


def message_of(error: BaseException) -> str:
    """Give what an exception says, without what may quote data; of a server's error never the DETAIL."""
    match error:
        case asyncpg.PostgresError():
            sqlstate = error.sqlstate or ""
            return f"{sqlstate} {WITHHELD if sqlstate.startswith(_DATA_EXCEPTION) else error.args[0]}"
        case BaseExceptionGroup():
            return error.message
        case _ if isinstance(error, _TELLING) and not isinstance(error, _QUOTING):
            return str(error)
        case _:
            return WITHHELD if str(error) else ""


def _lines(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        yield from _lines(before, seen)
        yield "which led to:"
    yield "Traceback (most recent call last):"
    yield from (each.rstrip("\n") for each in traceback.format_tb(error.__traceback__))
    yield f"{type(error).__module__}.{type(error).__qualname__}: {message_of(error)}".removeprefix("builtins.")
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            if id(each) not in seen:
                yield "of which one part is:"
                yield from _lines(each, seen)
