"""Events of environments."""

from typing import ClassVar

from keelson.events.base import ClaimChange, Event, Release, Take
from keelson.events.envelope import Ids
from keelson.events.release import Process


def names_in(app_id: str | None) -> str:
    """Give the scope of the names of an app's environments; it is empty when the app has none."""
    return f"env.name:{app_id}"


class EnvCreated(Event, frozen=True):
    """An environment exists from here on."""

    event_type: ClassVar[str] = "env.created"
    event_version: ClassVar[int] = 1

    name: str

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Take the name in the app."""
        return (Take(names_in(ids.app_id), self.name),)


class EnvRenamed(Event, frozen=True):
    """The environment has another name; its old one is free."""

    event_type: ClassVar[str] = "env.renamed"
    event_version: ClassVar[int] = 1

    name: str

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Exchange the name in the app."""
        scope = names_in(ids.app_id)
        return (Release(scope), Take(scope, self.name))


class EnvDeleted(Event, frozen=True):
    """The environment is gone: unknown to commands, its name free again."""

    event_type: ClassVar[str] = "env.deleted"
    event_version: ClassVar[int] = 1

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Free the name in the app."""
        return (Release(names_in(ids.app_id)),)


class EnvScaled(Event, frozen=True):
    """The environment wants other numbers of replicas; `replicas` is the whole resulting map, process to number."""

    event_type: ClassVar[str] = "env.scaled"
    event_version: ClassVar[int] = 1

    replicas: dict[str, int]


class EnvConfigSet(Event, frozen=True):
    """The environment's non-secret variables are exactly these."""

    event_type: ClassVar[str] = "env.config_set"
    event_version: ClassVar[int] = 1

    variables: dict[str, str]


class EnvProcess(Process, frozen=True, kw_only=True):
    """A process of the environment's release with the number of replicas that the environment wants of it."""

    replicas: int


class EnvReleaseSet(Event, frozen=True):
    """The environment wants this release; `processes` is all of it, so that nothing need be looked up."""

    event_type: ClassVar[str] = "env.release_set"
    event_version: ClassVar[int] = 1

    deploy_id: str
    release_id: str
    release_number: int
    processes: dict[str, EnvProcess]
