"""What the command service can be told."""

from typing import Annotated

from msgspec import Meta

from keelson.service.settings import Settings
from keelson.settings import Port, Seconds, Token


class CommandSettings(Settings, frozen=True, kw_only=True):
    """What the command service needs; `database_url` is of the role keelson_command."""

    port: Annotated[Port, Meta(description="port to listen on")] = 8081
    idempotency_secret: Annotated[
        Token,
        Meta(
            description="keys the hashes of requests under their idempotency keys; the same on all replicas, and for "
            "good: another makes repeats 409"
        ),
    ]
    command_timeout_s: Annotated[
        Seconds, Meta(description="a command is answered within that time, if need be by 503")
    ] = 10.0
    cache_entries: Annotated[int, Meta(ge=1, description="folded aggregates and claim scopes that stay warm")] = 10_000
