"""Events of releases: immutable descriptions of what can run."""

from typing import ClassVar

import msgspec

from keelson.events.base import ClaimChange, Event, Take
from keelson.events.envelope import Ids


class Port(msgspec.Struct, frozen=True):
    """A port that a process listens on, known to routes by its name."""

    name: str
    port: int


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How to ask a process whether it is well: an HTTP GET of `path`, or a TCP connection where there is none."""

    path: str | None = None
    port: str
    interval_s: int = 10
    timeout_s: int = 5


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of process of a release, all defaults resolved."""

    command: tuple[str, ...]
    ports: tuple[Port, ...] = ()
    cpu_millis: int
    memory_bytes: int
    health: Health | None = None
    needs_secrets: bool = False


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where the image was built from."""

    repository: str | None = None
    commit: str | None = None


def numbers_in(app_id: str | None) -> str:
    """Give the scope of the release numbers of an app; it holds as many keys as the app has releases."""
    return f"release.number:{app_id}"


class ReleaseCreated(Event, frozen=True):
    """An app has a release from here on; `number` counts 1, 2, 3 … per app without gaps."""

    event_type: ClassVar[str] = "release.created"
    event_version: ClassVar[int] = 1

    number: int
    image: str
    processes: dict[str, Process]
    source: Source | None = None

    def claims_of(self, ids: Ids) -> tuple[ClaimChange, ...]:
        """Take the number in the app."""
        return (Take(numbers_in(ids.app_id), str(self.number)),)
