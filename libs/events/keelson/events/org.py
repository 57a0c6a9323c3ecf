"""Events of organisations."""

from typing import ClassVar

from keelson.events.base import ClaimChange, Event, Release, Take
from keelson.events.envelope import Ids

NAMES = "org.name"


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
