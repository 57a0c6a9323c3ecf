"""Whatever an event may hold, it is the same after being stored and read."""

from datetime import UTC
from typing import ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect as types

from keelson.events import REGISTRY, Event, Registry
from keelson.events.registry import encode
from keelson.events.schema import file_stem

PLAIN: dict[type[types.Type], st.SearchStrategy[object]] = {
    types.StrType: st.text(max_size=20),
    types.IntType: st.integers(-(2**63), 2**63 - 1),
    types.BoolType: st.booleans(),
    types.NoneType: st.none(),
    types.DateTimeType: st.datetimes(timezones=st.just(UTC)),
}


def values(kind: types.Type) -> st.SearchStrategy[object]:
    """Give a strategy for the values of a type; a kind that no event has used yet fails here."""
    match kind:
        case types.LiteralType():
            return st.sampled_from(kind.values)
        case types.DictType():
            return st.dictionaries(values(kind.key_type), values(kind.value_type), max_size=4)
        case types.VarTupleType():
            return st.lists(values(kind.item_type), max_size=4).map(tuple)
        case types.UnionType():
            return st.one_of([values(each) for each in kind.types])
        case types.StructType():
            return st.builds(kind.cls, **{field.name: values(field.type) for field in kind.fields})
    return PLAIN[type(kind)]


def assert_survives(registry: Registry, event: Event) -> None:
    """Fail unless an event is read as it was written."""
    assert registry.decode(event.event_type, event.event_version, encode(event)) == event


@pytest.mark.parametrize("event_class", [pytest.param(each, id=file_stem(each)) for each in REGISTRY.newest.values()])
@given(data=st.data())
def test_every_event_is_read_as_it_was_written(event_class: type[Event], data: st.DataObject) -> None:
    event = data.draw(values(types.type_info(event_class)))
    assert isinstance(event, event_class)

    assert_survives(REGISTRY, event)


class NoteTrimmed(Event, frozen=True):
    """A planted bug: what is tidied when it is made is tidied again when it is read."""

    event_type: ClassVar[str] = "note.trimmed"
    event_version: ClassVar[int] = 1

    text: str

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "text", self.text[1:])


def test_an_event_that_is_read_otherwise_is_noticed() -> None:
    @settings(database=None)
    @given(event=st.builds(NoteTrimmed, text=st.text()))
    def every_note_survives(event: NoteTrimmed) -> None:
        assert_survives(Registry([NoteTrimmed]), event)

    with pytest.raises(AssertionError):
        every_note_survives()
