"""Events as the audit log shows them."""

from datetime import UTC, datetime
from typing import ClassVar

import msgspec
import pytest

from keelson.events import Envelope, Event, Registry
from keelson.events.ids import AggregateId, Position, Seq
from keelson.query.audit import EventItem, upcast


class ThingCreatedV1(Event, frozen=True):
    """Made up: the first version."""

    event_type: ClassVar[str] = "thing.created"
    event_version: ClassVar[int] = 1

    size: int

    def upcast(self) -> Event:
        """Sizes have a unit from version 2 on."""
        return ThingCreated(size_bytes=self.size)


class ThingCreated(Event, frozen=True):
    """Made up: the newest version."""

    event_type: ClassVar[str] = "thing.created"
    event_version: ClassVar[int] = 2

    size_bytes: int


THINGS = Registry([ThingCreatedV1, ThingCreated])


def envelope(event_type: str = "thing.created", version: int = 1, payload: str = '{"size": 3}') -> Envelope:
    return Envelope(
        position=Position(7),
        aggregate_id=AggregateId("thing_01j00000000000000000000000"),
        seq=Seq(1),
        type=event_type,
        version=version,
        actor_type="system",
        actor_id="operator",
        request_id="r",
        command_id="command_1",
        command_end=True,
        recorded_at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        payload=payload,
    )


def test_an_older_version_is_shown_as_the_newest() -> None:
    assert upcast(envelope(), THINGS) == (2, '{"size_bytes":3}')


@pytest.mark.parametrize(
    "odd",
    [
        envelope(version=2, payload='{"size_bytes": 3, "new": 1}'),  # the newest, with a newer minor writer's field
        envelope(version=3, payload='{"bits": 3}'),  # a newer writer's version
        envelope("thing.sung", payload='{"aria": 1}'),  # a newer writer's type
        envelope(payload='{"size": "many"}'),  # not what it says that it is
    ],
)
def test_everything_else_is_shown_as_it_is_stored(odd: Envelope) -> None:
    assert upcast(odd, THINGS) == (odd.version, odd.payload)


def test_an_item_has_what_the_envelope_has_and_leaves_out_what_does_not_apply() -> None:
    shown = msgspec.json.decode(msgspec.json.encode(EventItem.of(envelope("thing.sung", 4, '{"aria":1}'))))
    assert shown == {
        "position": 7,
        "type": "thing.sung",
        "version": 4,
        "stored_version": 4,
        "aggregate_id": "thing_01j00000000000000000000000",
        "aggregate_type": "thing",
        "seq": 1,
        "actor_type": "system",
        "actor_id": "operator",
        "request_id": "r",
        "command_id": "command_1",
        "command_end": True,
        "recorded_at": "2026-01-02T03:04:05.000006Z",
        "payload": {"aria": 1},
    }
