"""Events of apps."""

from typing import ClassVar

from keelson.events.base import ClaimChange, Event, Release, Take
from keelson.events.envelope import Ids


def names_in(project_id: str | None) -> str:
    """Give the scope of the names of a project's apps; it is empty when the project has none."""
    return f"app.name:{project_id}"


def apps_of(org_id: str | None) -> str:
    """Give the scope of all apps of an organisation, whatever their project."""
    return f"app.of:{org_id}"


class AppCreated(Event, frozen=True):
    """An app exists from here on."""

    event_type: ClassVar[str] = "app.created"
    event_version: ClassVar[int] = 1

    name: str

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Take the name in the project, and count among the organisation's."""
        return (Take(names_in(ids.project_id), self.name), Take(apps_of(ids.org_id)))


class AppRenamed(Event, frozen=True):
    """The app has another name; its old one is free."""

    event_type: ClassVar[str] = "app.renamed"
    event_version: ClassVar[int] = 1

    name: str

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Exchange the name in the project."""
        scope = names_in(ids.project_id)
        return (Release(scope), Take(scope, self.name))


class AppDeleted(Event, frozen=True):
    """The app is gone: unknown to commands, its name free again."""

    event_type: ClassVar[str] = "app.deleted"
    event_version: ClassVar[int] = 1

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Free the name in the project; count no more."""
        return (Release(names_in(ids.project_id)), Release(apps_of(ids.org_id)))
