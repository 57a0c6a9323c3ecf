"""What the command service can be told."""

from typing import Annotated

from msgspec import Meta

from keelson.command.sealing import EXPECTED_KEYS, check_keys
from keelson.service.settings import Settings
from keelson.settings import DatabaseSettings, Port, Seconds, Token

SecretKeys = Annotated[
    str,
    Meta(
        extra={"secret": True, "expected": EXPECTED_KEYS, "check": check_keys},
        description="master keys of the secrets in the vault, the same on all replicas: the first seals, all of "
        "them open; without the key that sealed it, a secret is lost",
    ),
]


class RotationSettings(DatabaseSettings, frozen=True, kw_only=True):
    """What a rotation of the keys of secrets needs; `database_url` is of the role keelson_command."""

    secret_keys: SecretKeys


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
    secret_keys: SecretKeys
    digest_key: Annotated[
        Token,
        Meta(
            description="keys the digests by which events say whether secrets' values are equal; the same on all "
            "replicas, and for good: a rotation of the master keys changes no digest"
        ),
    ]
    command_timeout_s: Annotated[
        Seconds, Meta(description="a command is answered within that time, if need be by 503")
    ] = 10.0
    cache_entries: Annotated[int, Meta(ge=1, description="folded aggregates and claim scopes that stay warm")] = 10_000
