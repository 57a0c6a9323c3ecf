"""Events of secrets: an environment's bundle of values, which are themselves encrypted in the vault."""

from typing import ClassVar

from keelson.events.base import ClaimChange, Event, Release, Take
from keelson.events.envelope import Ids

BUNDLE = "secret"


def bundles_of(env_id: str | None) -> str:
    """Give the scope in which an environment's one bundle of secrets is held, under the key `BUNDLE`."""
    return f"secret.of:{env_id}"


class SecretCreated(Event, frozen=True):
    """An environment has a bundle of secrets from here on; its first version follows in the same command."""

    event_type: ClassVar[str] = "secret.created"
    event_version: ClassVar[int] = 1

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Be the environment's one bundle."""
        return (Take(bundles_of(ids.env_id), BUNDLE),)


class SecretVersionSet(Event, frozen=True):
    """The bundle has a new version, which never changes; `digest` is keyed, and equal for equal values."""

    event_type: ClassVar[str] = "secret.version_set"
    event_version: ClassVar[int] = 1

    version: int
    keys: tuple[str, ...]
    digest: str


class SecretDeleted(Event, frozen=True):
    """The bundle is gone, and all its versions were erased from the vault."""

    event_type: ClassVar[str] = "secret.deleted"
    event_version: ClassVar[int] = 1

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Leave the environment without a bundle."""
        return (Release(bundles_of(ids.env_id)),)


class SecretRevealed(Event, frozen=True):
    """A node was told the values of a version, for an instance that it runs."""

    event_type: ClassVar[str] = "secret.revealed"
    event_version: ClassVar[int] = 1

    version: int
    node_id: str
    instance_id: str
