"""Places in the log as clients write them: a position, or a position of one lineage, `<epoch>-<position>`."""

import re

import msgspec

from keelson.events.ids import Position

# Eighteen digits: what surely fits PostgreSQL's bigint.
PLACE_PATTERN = r"^(?:([0-9a-z]{1,26})-)?(0|[1-9][0-9]{0,17})$(?!\n)"

_PLACE = re.compile(PLACE_PATTERN)


class Place(msgspec.Struct, frozen=True):
    """A position, and the epoch that it belongs to where the client said so."""

    position: Position
    epoch: str | None = None

    def is_of(self, epoch: str) -> bool:
        """Say whether it may be meant in this lineage: a bare position may."""
        return self.epoch in (None, epoch)


def read_place(text: str) -> Place | None:
    """Give the place that a text means; None for garbage."""
    match = _PLACE.fullmatch(text)
    return Place(Position(int(match[2])), match[1]) if match else None


def write_cursor(epoch: str, position: int) -> str:
    """Give the cursor of a position in a lineage."""
    return f"{epoch}-{position}"
