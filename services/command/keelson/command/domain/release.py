"""Releases: what an app can run, immutable and numbered."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, TypeVar

import msgspec
from msgspec import Meta

from keelson.command.domain.app import App
from keelson.command.fields import AppId, Image, PortName, ProcessName, ReleaseId, Text
from keelson.command.handlers import Command, Handler
from keelson.command.state import State
from keelson.command.transaction import Transaction
from keelson.events import Event
from keelson.events import release as events
from keelson.events.release import ReleaseCreated, numbers_in

T = TypeVar("T", bound=msgspec.Struct)

DEFAULT_CPU_MILLIS = 250
DEFAULT_MEMORY_BYTES = 256 * 1024 * 1024


class Release(State, frozen=True, kw_only=True):
    """A release."""

    aggregate_type: ClassVar[str] = "release"
    noun: ClassVar[str] = "release"

    number: int
    image: str
    processes: dict[str, events.Process]

    @classmethod
    def evolve(cls, state: "Release | None", event: Event) -> "Release":
        """Give the state after its one event."""
        match state, event:
            case None, ReleaseCreated(number=number, image=image, processes=processes):
                return cls(number=number, image=image, processes=processes)
            case _:
                raise TypeError(f"not an event of a release: {event.event_type}")


class Port(Command, frozen=True, kw_only=True):
    """A port that a process listens on."""

    name: PortName
    port: Annotated[int, Meta(ge=1, le=65535)]


class Health(Command, frozen=True, kw_only=True):
    """How to ask a process whether it is well: an HTTP GET of `path`, or a TCP connection where there is none."""

    port: PortName
    path: Annotated[str, Meta(pattern=r"^/[^\x00]*$", max_length=500)] | None = None
    interval_s: Annotated[int, Meta(ge=1, le=3600)] = 10
    timeout_s: Annotated[int, Meta(ge=1, le=3600)] = 5


class Process(Command, frozen=True, kw_only=True):
    """One kind of process; ports have names of their own, and health names one of them."""

    command: Annotated[list[Text], Meta(min_length=1, max_length=100)]
    ports: Annotated[list[Port], Meta(max_length=100)] = []
    cpu_millis: Annotated[int, Meta(ge=1, le=1_000_000)] = DEFAULT_CPU_MILLIS
    memory_bytes: Annotated[int, Meta(ge=1, le=2**53)] = DEFAULT_MEMORY_BYTES
    health: Health | None = None
    needs_secrets: bool = False

    def __post_init__(self) -> None:
        names = [port.name for port in self.ports]
        if len(set(names)) < len(names):
            raise ValueError("two ports have the same name")
        if self.health is not None and self.health.port not in names:
            raise ValueError("health names a port that the process does not have")


class Source(Command, frozen=True, kw_only=True):
    """Where the image was built from."""

    repository: Text | None = None
    commit: Text | None = None


class CreateRelease(Command, frozen=True, kw_only=True):
    """Create a release of an app: an image pinned by digest and the processes to run of it."""

    app_id: AppId
    image: Image
    processes: Annotated[dict[ProcessName, Process], Meta(min_length=1, max_length=100)]
    source: Source | None = None
    release_id: ReleaseId | None = None


class ReleaseResult(msgspec.Struct, frozen=True):
    """Which release, and its number in the app."""

    release_id: str
    number: int


async def create_release(tx: Transaction, command: CreateRelease) -> ReleaseResult:
    """Create it under the next number, all defaults resolved."""
    app = await tx.get(App, command.app_id)
    release_id = await tx.new_id(Release, command.release_id)
    number = await tx.held(numbers_in(app.id)) + 1
    created = ReleaseCreated(
        number=number,
        image=command.image,
        processes={name: _as_event(process, events.Process) for name, process in command.processes.items()},
        source=_as_event(command.source, events.Source) if command.source else None,
    )
    tx.create(Release, release_id, app.ids, created)
    return ReleaseResult(release_id, number)


def ports_of(processes: Mapping[str, events.Process]) -> dict[str, tuple[str, ...]]:
    """Give the names of each process's ports: where routes may lead."""
    return {name: tuple(port.name for port in process.ports) for name, process in processes.items()}


def _as_event(part: Command, type_: type[T]) -> T:
    """Give a part of the command as events have it: the same fields, none of them left to a default."""
    return msgspec.convert(part, type_, from_attributes=True)


HANDLERS = (Handler(name="release.create", command=CreateRelease, handle=create_release, result=ReleaseResult),)
