"""Events of projects."""

from typing import ClassVar

from keelson.events.base import ClaimChange, Event, Release, Take
from keelson.events.envelope import Ids


def names_in(org_id: str | None) -> str:
    """Give the scope of the names of an organisation's projects; it is empty when the organisation has none."""
    return f"project.name:{org_id}"


class ProjectCreated(Event, frozen=True):
    """A project exists from here on."""

    event_type: ClassVar[str] = "project.created"
    event_version: ClassVar[int] = 1

    name: str

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Take the name in the organisation."""
        return (Take(names_in(ids.org_id), self.name),)


class ProjectRenamed(Event, frozen=True):
    """The project has another name; its old one is free."""

    event_type: ClassVar[str] = "project.renamed"
    event_version: ClassVar[int] = 1

    name: str

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Exchange the name in the organisation."""
        scope = names_in(ids.org_id)
        return (Release(scope), Take(scope, self.name))


class ProjectDeleted(Event, frozen=True):
    """The project is gone: unknown to commands, its name free again."""

    event_type: ClassVar[str] = "project.deleted"
    event_version: ClassVar[int] = 1

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Free the name in the organisation."""
        return (Release(names_in(ids.org_id)),)
