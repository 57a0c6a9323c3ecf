"""Events of service principals: programs that act in an organisation, or on the whole platform."""

from datetime import datetime
from typing import ClassVar

from keelson.events.base import ClaimChange, Event, Release, Take
from keelson.events.envelope import Ids


def names_in(org_id: str | None) -> str:
    """Give the scope of the names of an organisation's principals, or of the platform's own."""
    return f"principal.name:{org_id or 'platform'}"


class PrincipalCreated(Event, frozen=True):
    """A principal exists from here on; without an organisation it is the platform's."""

    event_type: ClassVar[str] = "principal.created"
    event_version: ClassVar[int] = 1

    name: str
    scopes: tuple[str, ...]

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Take the name in the organisation."""
        return (Take(names_in(ids.org_id), self.name),)


class PrincipalScopesSet(Event, frozen=True):
    """The principal may do this, and nothing else."""

    event_type: ClassVar[str] = "principal.scopes_set"
    event_version: ClassVar[int] = 1

    scopes: tuple[str, ...]


class PrincipalCredentialIssued(Event, frozen=True):
    """The principal has one more credential; the hash of its token is in the vault."""

    event_type: ClassVar[str] = "principal.credential_issued"
    event_version: ClassVar[int] = 1

    credential_id: str
    expires_at: datetime | None = None


class PrincipalCredentialRevoked(Event, frozen=True):
    """A credential of the principal is good no more."""

    event_type: ClassVar[str] = "principal.credential_revoked"
    event_version: ClassVar[int] = 1

    credential_id: str


class PrincipalDeleted(Event, frozen=True):
    """The principal is gone, and all its credentials with it; its name is free again."""

    event_type: ClassVar[str] = "principal.deleted"
    event_version: ClassVar[int] = 1

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Free the name in the organisation."""
        return (Release(names_in(ids.org_id)),)
