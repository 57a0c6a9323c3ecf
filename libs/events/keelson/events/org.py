"""Events of organisations."""

from datetime import datetime
from typing import ClassVar, Literal

import msgspec

from keelson.events.base import ClaimChange, Event, Release, Take
from keelson.events.envelope import Ids

NAMES = "org.name"

Role = Literal["owner", "admin", "developer", "readonly"]


class Quota(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much an organisation may have at most; what is not said is not limited.

    `instances` and `memory_bytes` count what its environments want: replicas, and the memory that they need together.
    """

    projects: int | None = None
    apps: int | None = None
    envs: int | None = None
    instances: int | None = None
    memory_bytes: int | None = None


class OrgCreated(Event, frozen=True):
    """An organisation exists from here on."""

    event_type: ClassVar[str] = "org.created"
    event_version: ClassVar[int] = 1

    name: str

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:  # noqa: ARG002 - the platform has one scope of names
        """Take the name on the platform."""
        return (Take(NAMES, self.name),)


class OrgRenamed(Event, frozen=True):
    """The organisation has another name; its old one is free."""

    event_type: ClassVar[str] = "org.renamed"
    event_version: ClassVar[int] = 1

    name: str

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:  # noqa: ARG002 - the platform has one scope of names
        """Exchange the name on the platform."""
        return (Release(NAMES), Take(NAMES, self.name))


class OrgQuotaSet(Event, frozen=True):
    """The organisation may have so much from here on; `quota` is the whole of it."""

    event_type: ClassVar[str] = "org.quota_set"
    event_version: ClassVar[int] = 1

    quota: Quota


class OrgMemberAdded(Event, frozen=True):
    """A person is a member from here on; the e-mail and the name are in the vault, under `person_id`."""

    event_type: ClassVar[str] = "org.member_added"
    event_version: ClassVar[int] = 1

    member_id: str
    person_id: str
    role: Role


class OrgMemberRoleChanged(Event, frozen=True):
    """A member has another role."""

    event_type: ClassVar[str] = "org.member_role_changed"
    event_version: ClassVar[int] = 1

    member_id: str
    role: Role


class OrgMemberRemoved(Event, frozen=True):
    """A person is no member any more; all credentials of the membership end with it."""

    event_type: ClassVar[str] = "org.member_removed"
    event_version: ClassVar[int] = 1

    member_id: str


class OrgMemberErased(Event, frozen=True):
    """What was known of the person behind a member was erased from the vault, and the membership with it."""

    event_type: ClassVar[str] = "org.member_erased"
    event_version: ClassVar[int] = 1

    member_id: str


class OrgCredentialIssued(Event, frozen=True):
    """A member has one more credential, its token's hash in the vault; without `expires_at` it never expires."""

    event_type: ClassVar[str] = "org.credential_issued"
    event_version: ClassVar[int] = 1

    member_id: str
    credential_id: str
    expires_at: datetime | None = None


class OrgCredentialRevoked(Event, frozen=True):
    """A member's credential is good no more."""

    event_type: ClassVar[str] = "org.credential_revoked"
    event_version: ClassVar[int] = 1

    member_id: str
    credential_id: str
