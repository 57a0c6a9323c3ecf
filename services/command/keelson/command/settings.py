"""What the command service can be told."""

from typing import Annotated

from msgspec import Meta

from keelson.service.settings import Port, Seconds, Settings, Token


class CommandSettings(Settings, frozen=True, kw_only=True):
    """The settings of the command service."""

    port: Port = 8081
    # Keys the hash of a request under its idempotency key; the same on all replicas.
    idempotency_secret: Token
    # A command is answered within that time, if need be by 503.
    command_timeout_s: Seconds = 10.0
    # How many folded aggregates and claim scopes stay warm.
    cache_entries: Annotated[int, Meta(ge=1)] = 10_000
