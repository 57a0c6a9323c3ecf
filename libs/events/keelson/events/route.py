"""Events of routes: hostnames that lead to a port of an environment's process."""

from typing import ClassVar

from keelson.events.base import ClaimChange, Event, Release, Take
from keelson.events.envelope import Ids

HOSTNAMES = "route.hostname"


def hostnames_in(env_id: str | None) -> str:
    """Give the scope of the hostnames that lead to an environment; it is empty when the environment has no routes."""
    return f"route.hostname:{env_id}"


class RouteCreated(Event, frozen=True):
    """A hostname, in lower case, leads to a port of a process from here on."""

    event_type: ClassVar[str] = "route.created"
    event_version: ClassVar[int] = 1

    hostname: str
    process: str
    port: str

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Take the hostname on the platform, and count among the environment's."""
        return (Take(HOSTNAMES, self.hostname), Take(hostnames_in(ids.env_id), self.hostname))


class RouteUpdated(Event, frozen=True):
    """The route is another; all of it is said, and a hostname that it had before is free."""

    event_type: ClassVar[str] = "route.updated"
    event_version: ClassVar[int] = 1

    hostname: str
    process: str
    port: str

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Exchange the hostname, on the platform and in the environment."""
        own = hostnames_in(ids.env_id)
        return (Release(HOSTNAMES), Take(HOSTNAMES, self.hostname), Release(own), Take(own, self.hostname))


class RouteDeleted(Event, frozen=True):
    """The route is gone: unknown to commands, its hostname free again."""

    event_type: ClassVar[str] = "route.deleted"
    event_version: ClassVar[int] = 1

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Free the hostname, on the platform and in the environment."""
        return (Release(HOSTNAMES), Release(hostnames_in(ids.env_id)))
