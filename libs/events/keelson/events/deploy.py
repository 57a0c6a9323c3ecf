"""Events of deploys: a release on its way into an environment."""

from typing import ClassVar, Literal

from keelson.events.base import Event

DeployKind = Literal["deploy", "rollback"]
DeployStatus = Literal["queued", "rolling", "succeeded", "failed", "superseded"]


class DeployCreated(Event, frozen=True):
    """A deploy was queued; the same command set the environment's release."""

    event_type: ClassVar[str] = "deploy.created"
    event_version: ClassVar[int] = 1

    release_id: str
    release_number: int
    kind: DeployKind


class DeployStatusChanged(Event, frozen=True):
    """The deploy went on; `superseded` means that a newer deploy, or the environment's end, took its place."""

    event_type: ClassVar[str] = "deploy.status_changed"
    event_version: ClassVar[int] = 1

    status: DeployStatus
    message: str | None = None
