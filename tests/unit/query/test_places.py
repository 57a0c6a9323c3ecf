"""Positions and cursors as clients write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keelson.events.ids import Position
from keelson.query.places import Place, read_place, write_cursor

_EPOCHS = st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=26)
_POSITIONS = st.integers(0, 10**18 - 1)


@given(_EPOCHS, _POSITIONS)
def test_a_cursor_is_read_as_it_was_written(epoch: str, position: int) -> None:
    assert read_place(write_cursor(epoch, position)) == Place(Position(position), epoch)


@given(_POSITIONS)
def test_a_bare_position_belongs_to_any_epoch(position: int) -> None:
    place = read_place(str(position))
    assert place == Place(Position(position))
    assert place.is_of("anyepoch")


def test_a_cursor_belongs_to_its_epoch_alone() -> None:
    place = Place(Position(1), "old")
    assert place.is_of("old")
    assert not place.is_of("new")


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        " 1",
        "1 ",
        "1\n",
        "-1",
        "+1",
        "01",
        "1.5",
        "x",
        "e-",
        "-",
        "E-1",
        "e--1",
        "a" * 27 + "-1",
        "1" * 19,
        "٣",
        "e-٣",
    ],
)
def test_garbage_is_no_place(garbage: str) -> None:
    assert read_place(garbage) is None
