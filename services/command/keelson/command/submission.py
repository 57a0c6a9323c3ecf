"""What was asked for, and what is answered: the two ends of a decision."""

import hmac
from datetime import datetime
from typing import Any

import msgspec

from keelson.access import Identity
from keelson.command.handlers import Command, Handler
from keelson.events.ids import AggregateId, Position, Seq
from keelson.log.decision import Context

BUNDLE = "bundle"


class Part(msgspec.Struct, frozen=True):
    """One command of a request; `if_match` is the seq that its target must be at."""

    handler: Handler
    command: Command
    if_match: int | None


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A request: one command, or the commands of a bundle, that succeed or fail as one. `received_at` is in UTC."""

    name: str
    parts: tuple[Part, ...]
    context: Context
    identity: Identity
    received_at: datetime
    key: str | None


class EventReference(msgspec.Struct, frozen=True):
    """An event that the command appended."""

    position: Position
    type: str
    version: int
    aggregate_id: AggregateId
    seq: Seq


class PartAnswer(msgspec.Struct, frozen=True):
    """What became of one command."""

    changed: bool
    result: Any
    events: list[EventReference]


class Answer(msgspec.Struct, frozen=True):
    """What became of a request; `position` is its last event's, or the one at which nothing had to change."""

    epoch: str
    position: Position
    parts: list[PartAnswer]

    @property
    def changed(self) -> bool:
        """Whether anything was appended."""
        return any(part.changed for part in self.parts)

    @property
    def events(self) -> list[EventReference]:
        """All its events, in order."""
        return [event for part in self.parts for event in part.events]


class StoredPart(msgspec.Struct, frozen=True):
    """One command's part of the answer that is kept under a key: positions and events are read from the log again."""

    result: Any
    events: int


def request_hash(secret: bytes, submission: Submission) -> bytes:
    """Give the keyed hash of a request: what makes two requests under one key the same (HMAC-SHA-256).

    Of the names, the decoded and canonically encoded bodies before any id is minted, and If-Match.
    """
    canonical = msgspec.json.encode(
        [[part.handler.name, part.command, part.if_match] for part in submission.parts], order="deterministic"
    )
    return hmac.digest(secret, canonical, "sha256")
