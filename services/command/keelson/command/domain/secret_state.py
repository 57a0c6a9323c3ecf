"""Secrets as folded; apart from their commands, since an environment's end, or its rollback, is its secret's too."""

from typing import ClassVar

import msgspec

from keelson.command.refusal import Refusal
from keelson.command.state import Aggregate, State
from keelson.command.transaction import Transaction
from keelson.events import Event
from keelson.events.secret import (
    BUNDLE,
    SecretCreated,
    SecretDeleted,
    SecretRevealed,
    SecretVersionSet,
    bundles_of,
)


class Secret(State, frozen=True, kw_only=True):
    """A bundle of secret values, of which only the vault knows more; version 0 is between its first two events."""

    aggregate_type: ClassVar[str] = "secret"
    noun: ClassVar[str] = "secret"

    version: int = 0
    keys: tuple[str, ...] = ()
    digest: str = ""

    @classmethod
    def evolve(cls, state: "Secret | None", event: Event) -> "Secret":
        """Give the state after an event."""
        match state, event:
            case None, SecretCreated():
                return cls()
            case Secret(), SecretVersionSet(version=version, keys=keys, digest=digest):
                return msgspec.structs.replace(state, version=version, keys=keys, digest=digest)
            case Secret(), SecretRevealed():
                return state
            case Secret(), SecretDeleted():
                return msgspec.structs.replace(state, deleted=True)
            case _:
                raise TypeError(f"not an event of this secret: {event.event_type}")


async def read_bundle(tx: Transaction, env_id: str) -> Aggregate[Secret] | None:
    """Give an environment's bundle, if it has one; that it has none joins the read set too."""
    secret_id = await tx.holder(bundles_of(env_id), BUNDLE)
    found = await tx.read(Secret, secret_id) if secret_id else None
    return None if found is None or found.state.deleted else found


async def get_values(tx: Transaction, secret: Aggregate[Secret]) -> dict[str, str]:
    """Give the values of a live secret's present version. Raises Refusal if the vault has none.

    A secret that another replica has just deleted looks so; the refusal is then not confirmed.
    """
    values = await tx.open_secret(secret.id, secret.state.version)
    if values is None:
        raise Refusal("not_found", f"the vault does not hold version {secret.state.version} of secret {secret.id}")
    return values


def set_version(tx: Transaction, secret: Aggregate[Secret], values: dict[str, str]) -> Aggregate[Secret]:
    """Give a secret a new version with these values."""
    version = secret.state.version + 1
    digest = tx.seal_secret(secret.id, version, values)
    return tx.append(secret, SecretVersionSet(version=version, keys=tuple(sorted(values)), digest=digest))


def erase(tx: Transaction, secret: Aggregate[Secret]) -> None:
    """Delete a secret: all its versions are gone from the vault, for good."""
    tx.append(secret, SecretDeleted())
    tx.erase_secret(secret.id)
