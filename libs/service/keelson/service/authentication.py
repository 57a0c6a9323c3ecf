"""Who asks: a bearer token is turned into a caller, by the vault or by the operator's token of the settings."""

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from keelson.access import Grants, Identity
from keelson.access.tokens import is_token
from keelson.events.envelope import Actor
from keelson.log.database import Database
from keelson.log.epochs import Epochs
from keelson.service.credentials import Caller, Credentials, UnauthenticatedError
from keelson.service.lifecycle import background
from keelson.service.limits import GuessLimit
from keelson.service.problems import unavailable

OPERATOR = Caller(Identity(Actor("system", "operator"), "operator"), Grants(operator=True))
NOBODY = Caller(Identity(Actor("system", "nobody"), "nobody"), Grants())


class Authenticator(Protocol):
    """Turns a credential into a caller; `credentials` are there while the service has its database."""

    credentials: Credentials | None

    async def authenticate(self, authorization: str | None) -> Caller:
        """Give the caller of an Authorization header (None if there is none).

        Raises UnauthenticatedError, after a time that does not depend on how nearly right the credential was.
        """


class BearerTokens:
    """Bearer tokens (RFC 6750): those of the vault, and the operator's of the settings if there is one."""

    def __init__(self, service: str, operator_token: str = "") -> None:
        self._guesses = GuessLimit(service)
        self._operator_token = operator_token.encode()
        self.credentials: Credentials | None = None

    async def authenticate(self, authorization: str | None) -> Caller:
        """Compare in constant time, or look up by hash, which tells nothing of the token by its time.

        What has not the form of our tokens is refused without asking the database, which is asked for unknown ones no
        more often than somebody who was set up wrongly would. Raises UnauthenticatedError, Problem `unavailable` or
        `rate_limited`, and what the database's failures raise.
        """
        scheme, _, credential = (authorization or "").partition(" ")
        token = credential.strip(" \t")
        if scheme.lower() == "bearer" and token:
            # Headers are bytes, given as Latin-1; so they compare as bytes. A body may hold any text.
            sent = token.encode("latin-1", "backslashreplace")
            if self._operator_token and hmac.compare_digest(sent, self._operator_token):
                return OPERATOR
            # What is warm is most of what comes: it costs one hash.
            asking = self.credentials if token.isascii() else None
            warm = asking.warm(token) if asking is not None else None
            if warm is not None:
                return warm
            if is_token(token):
                return await self._look_up(token)
        raise UnauthenticatedError

    async def _look_up(self, token: str) -> Caller:
        if self.credentials is None:
            raise unavailable("The service cannot tell yet who asks")
        if self.credentials.knows(token):
            return await self.credentials.get(token)
        with self._guesses.looking_up():
            return await self.credentials.get(token)


@asynccontextmanager
async def known_credentials(
    authenticator: Authenticator, db: Database, epochs: Epochs | None = None
) -> AsyncIterator[Credentials]:
    """Let the vault's credentials be known by an authenticator while the body runs, and note when they were used.

    In another epoch everything is asked for anew.
    """
    credentials = Credentials(db)
    if epochs is not None:
        epochs.on_change(lambda _: credentials.forget())
    async with background(credentials.run()):
        authenticator.credentials = credentials
        try:
            yield credentials
        finally:
            authenticator.credentials = None
            await credentials.flush()
