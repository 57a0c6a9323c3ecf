"""A made-up projection whose events say outright what changes: for the engine, whatever real handlers do."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, ClassVar

import msgspec

from keelson.events import Envelope, Event
from keelson.events.ids import AggregateId, Position, Seq
from keelson.views.changes import Change, delete, patch, put, replace
from keelson.views.projection import Projection
from keelson.views.table import Row, Table

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


class Changed(Event, frozen=True):
    """Something changes, as said."""

    event_type: ClassVar[str] = "thing.changed"
    event_version: ClassVar[int] = 1

    changes: list[list[Any]]


class ThingRow(Row, frozen=True, kw_only=True):
    """A row with a key of one part, and a column of each kind."""

    id: str
    label: str | None = None
    size: int = 0
    data: dict[str, int] | None = None


class PartRow(Row, frozen=True, kw_only=True):
    """A row with a key of two parts."""

    thing: str
    part: str
    size: int = 0


THINGS = Table(name="things", row=ThingRow)
PARTS = Table(name="parts", row=PartRow, key=("thing", "part"))
TABLES = {"things": THINGS, "parts": PARTS}

MADE_UP = Projection("made_up", version=1, tables=(THINGS, PARTS))


@MADE_UP.on(Changed)
def changed(_envelope: Envelope, event: Changed) -> Iterable[Change]:
    """Give the changes that the event says."""
    for kind, name, *arguments in event.changes:
        table = TABLES[name]
        match kind:
            case "put":
                yield put(table, **arguments[0])
            case "patch":
                yield patch(table, *arguments[0], **arguments[1])
            case "delete":
                yield delete(table, *arguments[0])
            case _:
                yield replace(table, *arguments[0], rows=arguments[1])


Happened = tuple[Envelope, Event]


def history(all_changes: Sequence[list[list[Any]]]) -> list[Happened]:
    """Give one event, a command of its own, for each list of changes."""
    return [happened(position, changes) for position, changes in enumerate(all_changes, start=1)]


def happened(position: int, changes: list[list[Any]]) -> Happened:
    """Give an event and its envelope."""
    event = Changed(changes)
    envelope = Envelope(
        position=Position(position),
        aggregate_id=AggregateId("thing_" + "0" * 26),
        seq=Seq(position),
        type=event.event_type,
        version=event.event_version,
        actor_type="system",
        actor_id="operator",
        request_id="r",
        command_id=f"command_{position}",
        command_end=True,
        recorded_at=LONG_AGO + timedelta(seconds=position),
        payload=msgspec.json.encode(event).decode(),
    )
    return envelope, event


def random_changes(random: Random, count: int, *, keys: str = "abc") -> list[list[list[Any]]]:
    """Give that many lists of one to three changes over few keys, so that they meet."""
    return [[_random_change(random, keys) for _ in range(random.randint(1, 3))] for _ in range(count)]


def _random_change(random: Random, keys: str) -> list[Any]:
    thing, part = random.choice(keys), random.choice("xy")
    size = random.randrange(100)
    fields = random.choice(({"size": size}, {"label": f"l{size}"}, {"data": {"z": size, "a": 1}}, {}, {"label": None}))
    parts = [{"thing": thing, "part": each, "size": size} for each in random.sample("xy", k=random.randint(0, 2))]
    return random.choice(
        (
            ["put", "things", {"id": thing, **fields}],
            ["put", "things", {"id": thing, "size": size, "data": {"b": 2, "a": size}}],
            ["patch", "things", [thing], fields],
            ["delete", "things", [thing]],
            ["put", "parts", {"thing": thing, "part": part}],
            ["patch", "parts", [thing, part], {"size": size}],
            ["delete", "parts", [thing, part]],
            ["replace", "parts", [thing], parts],
            ["replace", "parts", [thing, part], [{"thing": thing, "part": part, "size": size}]],
        )
    )
