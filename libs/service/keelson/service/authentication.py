"""Who asks: the interface that every way of authentication fills, and the operator's token."""

import hmac
from typing import Protocol

from keelson.events.envelope import Actor


class UnauthenticatedError(Exception):
    """No credential, or not a good one; which of the two is not told."""


class Authenticator(Protocol):
    """Turns a credential into an actor."""

    async def authenticate(self, authorization: str | None) -> Actor:
        """Give the actor of an Authorization header (None if there is none).

        Raises UnauthenticatedError, after a time that does not depend on how nearly right the credential was.
        """


class OperatorToken:
    """One bearer token from the settings: whoever has it is the operator of the platform."""

    ACTOR = Actor("system", "operator")

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def authenticate(self, authorization: str | None) -> Actor:
        """Compare the token in constant time."""
        scheme, _, credential = (authorization or "").partition(" ")
        # Headers are bytes, given as Latin-1; so they compare as bytes.
        good = hmac.compare_digest(credential.strip().encode("latin-1"), self._token)
        if not (good and scheme.lower() == "bearer"):
            raise UnauthenticatedError
        return self.ACTOR
