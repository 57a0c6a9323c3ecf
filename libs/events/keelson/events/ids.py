"""Identifiers: TypeIDs, a prefix and a UUIDv7 in base 32 (https://github.com/jetify-com/typeid, spec 0.3).

The prefix of an aggregate's id is its type. Minting needs a clock and randomness and so is the command service's.
"""

import re
from typing import NewType

AggregateId = NewType("AggregateId", str)
Position = NewType("Position", int)
Seq = NewType("Seq", int)

SUFFIX_PATTERN = "[0-7][0-9a-hjkmnp-tv-z]{25}"

# The platform is one aggregate; its id is the nil UUID.
PLATFORM_ID = AggregateId("platform_" + "0" * 26)

_TYPEID = re.compile(f"([a-z]+)_{SUFFIX_PATTERN}")


def id_pattern(prefix: str) -> str:
    r"""Give the pattern of ids with this prefix, for JSON Schema and Python alike.

    `$` alone would let Python accept a newline at the end, and JSON Schema has no `\Z`; the look-ahead closes that.
    """
    return f"^{prefix}_{SUFFIX_PATTERN}$(?!\\n)"


def read_aggregate_type(aggregate_id: str) -> str | None:
    """Give the type that an id names by its prefix; None if it is not a well-formed TypeID."""
    match = _TYPEID.fullmatch(aggregate_id)
    return match[1] if match else None
