"""Credentials, whoever holds them: what is answered when one is issued or revoked, and when one ends by itself."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec

from keelson.command.fields import ONCE
from keelson.command.refusal import Refusal
from keelson.command.transaction import Transaction

# Every time of these years can be told in UTC, by Python and by PostgreSQL.
_YEARS = range(2000, 9999)


class IssuedResult(msgspec.Struct, frozen=True):
    """Which credential, and its token."""

    credential_id: str
    token: Annotated[str | None, ONCE]


class CredentialResult(msgspec.Struct, frozen=True):
    """Which credential."""

    credential_id: str


def future_expiry(tx: Transaction, expires_at: datetime | None) -> datetime | None:
    """Give a time in UTC; refuses what is not after the request, and what no calendar reaches."""
    if expires_at is None:
        return None
    if expires_at.year not in _YEARS or expires_at <= tx.now:
        raise Refusal("bad_expiry", "expires_at must be in the future, and before the year 9999")
    return expires_at.astimezone(UTC)
