"""Events of environments."""

from typing import ClassVar

from keelson.events.base import ClaimChange, Event, Release, Take
from keelson.events.envelope import Ids
from keelson.events.release import Process


def names_in(app_id: str | None) -> str:
    """Give the scope of the names of an app's environments; it is empty when the app has none."""
    return f"env.name:{app_id}"


def envs_of(org_id: str | None) -> str:
    """Give the scope of all environments of an organisation, whatever their app."""
    return f"env.of:{org_id}"


def instances_wanted_in(org_id: str | None) -> str:
    """Give the scope of the replicas that an organisation's environments want: an amount for each environment."""
    return f"env.instances:{org_id}"


def memory_wanted_in(org_id: str | None) -> str:
    """Give the scope of the bytes that those replicas need: an amount for each environment."""
    return f"env.memory_bytes:{org_id}"


class EnvCreated(Event, frozen=True):
    """An environment exists from here on."""

    event_type: ClassVar[str] = "env.created"
    event_version: ClassVar[int] = 1

    name: str

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Take the name in the app, and count among the organisation's."""
        return (Take(names_in(ids.app_id), self.name), Take(envs_of(ids.org_id)))


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
        """Free the name in the app; count, and want, no more."""
        return (
            Release(names_in(ids.app_id)),
            Release(envs_of(ids.org_id)),
            Release(instances_wanted_in(ids.org_id)),
            Release(memory_wanted_in(ids.org_id)),
        )


class EnvScaledV1(Event, frozen=True):
    """As it was said first: without the memory that the replicas need."""

    event_type: ClassVar[str] = "env.scaled"
    event_version: ClassVar[int] = 1

    replicas: dict[str, int]

    def upcast(self) -> "EnvScaled":
        """Leave the memory unknown."""
        return EnvScaled(replicas=self.replicas)


class EnvScaled(Event, frozen=True):
    """The environment wants other numbers of replicas; `replicas` is the whole resulting map, process to number.

    `memory_bytes` is what all of them need together; None where nobody said, before version 2.
    """

    event_type: ClassVar[str] = "env.scaled"
    event_version: ClassVar[int] = 2

    replicas: dict[str, int]
    memory_bytes: int | None = None

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Want so many replicas, and so much memory; where that is not known, as much as before."""
        instances, memory = instances_wanted_in(ids.org_id), memory_wanted_in(ids.org_id)
        changes: tuple[ClaimChange, ...] = (Release(instances), Take(instances, amount=sum(self.replicas.values())))
        if self.memory_bytes is not None:
            changes = (*changes, Release(memory), Take(memory, amount=self.memory_bytes))
        return changes


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

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Want the replicas and the memory of the release."""
        instances, memory = instances_wanted_in(ids.org_id), memory_wanted_in(ids.org_id)
        processes = self.processes.values()
        return (
            Release(instances),
            Take(instances, amount=sum(process.replicas for process in processes)),
            Release(memory),
            Take(memory, amount=sum(process.replicas * process.memory_bytes for process in processes)),
        )
