"""Deploys as folded; apart from their commands, since the end of an environment ends its open deploy too."""

from typing import ClassVar

import msgspec

from keelson.command.state import State
from keelson.command.transaction import Transaction
from keelson.events import Event
from keelson.events.deploy import DeployCreated, DeployStatus, DeployStatusChanged

# What each status may become; a status that is not here is final.
TRANSITIONS: dict[DeployStatus, tuple[DeployStatus, ...]] = {
    "queued": ("rolling", "failed", "superseded"),
    "rolling": ("succeeded", "failed", "superseded"),
}


class Deploy(State, frozen=True, kw_only=True):
    """A deploy."""

    aggregate_type: ClassVar[str] = "deploy"
    noun: ClassVar[str] = "deploy"

    status: DeployStatus
    release_id: str

    @property
    def is_open(self) -> bool:
        """Whether it may still become something else."""
        return self.status in TRANSITIONS

    @classmethod
    def evolve(cls, state: "Deploy | None", event: Event) -> "Deploy":
        """Give the state after an event."""
        match state, event:
            case None, DeployCreated(release_id=release_id):
                return cls(status="queued", release_id=release_id)
            case Deploy(), DeployStatusChanged(status=status):
                return msgspec.structs.replace(state, status=status)
            case _:
                raise TypeError(f"not an event of this deploy: {event.event_type}")


async def supersede_open(tx: Transaction, deploy_id: str | None, message: str) -> None:
    """End the environment's last deploy if it is still open; no client can."""
    deploy = await tx.read(Deploy, deploy_id) if deploy_id else None
    if deploy is not None and deploy.state.is_open:
        tx.append(deploy, DeployStatusChanged(status="superseded", message=message))
