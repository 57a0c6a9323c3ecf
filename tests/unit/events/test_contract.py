"""What was released stays readable: every version has a schema that never changes and a sample that always decodes."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keelson.events import REGISTRY, Envelope, Event, schema
from keelson.events.ids import read_aggregate_type
from keelson.events.registry import encode
from keelson.events.schema import file_stem, schema_of

SCHEMAS = Path(schema.__file__).with_name("schemas")
SAMPLES = Path(schema.__file__).with_name("samples")

VERSIONS = [pytest.param(each, id=file_stem(each)) for each in REGISTRY.classes.values()]
SAMPLE_FILES = [pytest.param(each, id=each.stem) for each in sorted(SAMPLES.iterdir())]


def read_sample(path: Path) -> Envelope:
    """Give a sample's envelope, its payload as text, as the log keeps it."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    return msgspec.convert({**stored, "payload": json.dumps(stored["payload"])}, Envelope)


def test_every_version_has_a_schema_and_a_sample_and_nothing_else_has() -> None:
    expected = {f"{file_stem(each)}.json" for each in REGISTRY.classes.values()}

    assert {each.name for each in SCHEMAS.iterdir()} == expected
    assert {each.name for each in SAMPLES.iterdir()} == expected


@pytest.mark.parametrize("event_class", VERSIONS)
def test_a_released_schema_never_changes(event_class: type[Event]) -> None:
    committed = json.loads((SCHEMAS / f"{file_stem(event_class)}.json").read_text(encoding="utf-8"))

    assert schema_of(event_class) == committed, "a version's schema never changes; add a version with an upcast"


@pytest.mark.parametrize("path", SAMPLE_FILES)
def test_every_sample_decodes_forever_to_the_newest_version(path: Path) -> None:
    sample = read_sample(path)

    event = REGISTRY.decode(sample.type, sample.version, sample.payload)

    assert type(event) is REGISTRY.newest[sample.type]


@pytest.mark.parametrize("path", SAMPLE_FILES)
def test_a_sample_says_all_that_its_version_can_say(path: Path) -> None:
    sample = read_sample(path)
    committed: dict[str, Any] = json.loads((SCHEMAS / path.name).read_text(encoding="utf-8"))

    assert f"{sample.type}.v{sample.version}" == path.stem
    assert read_aggregate_type(sample.aggregate_id) == sample.type.partition(".")[0]
    assert set(json.loads(sample.payload)) == set(committed["properties"])


@pytest.mark.parametrize("path", SAMPLE_FILES)
def test_a_sample_in_the_newest_version_is_encoded_as_it_was(path: Path) -> None:
    sample = read_sample(path)
    event = REGISTRY.classes[sample.type, sample.version]
    decoded = msgspec.json.decode(sample.payload, type=event)

    assert json.loads(encode(decoded)) == json.loads(sample.payload)


@pytest.mark.parametrize("path", SAMPLE_FILES)
def test_fields_that_a_newer_minor_writer_added_are_tolerated(path: Path) -> None:
    sample = read_sample(path)
    payload = json.dumps({**json.loads(sample.payload), "added_later": {"deep": [1, 2]}})

    assert REGISTRY.decode(sample.type, sample.version, payload) == REGISTRY.decode(
        sample.type, sample.version, sample.payload
    )


class Note(Event, frozen=True):
    """A docstring that will be reworded."""

    event_type = "note.written"
    event_version = 1

    title: str
    description: str | None = None


def test_a_schema_holds_fields_alone() -> None:
    """Neither the class's name nor its docstring is promised; fields of the names that prose has are."""
    made = schema_of(Note)

    assert (made["$id"], "title" in made, "description" in made) == ("note.written.v1", False, False)
    assert set(made["properties"]) == {"title", "description"}
