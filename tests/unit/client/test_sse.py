"""Server-sent events are read whatever ends their lines, and wherever their bytes are cut."""

from collections.abc import Callable

import pytest

from keelson.client.sse import Frame, Parser

STREAM = (
    "\ufeffretry: 1500\n\n: a comment\n\n"
    'id: e1-7\nevent: event\ndata: {"name":"Grüße"}\n\n'
    "event:bookmark\ndata\ndata:  two\nunknown: field\nid: e1-8\n\n"
    "id: e1-9\n\n"  # no data: no frame, and its id is nobody's
    "data: last\nretry: soon\nid: nul\0\n\n"
    "data: never ended"
)
FRAMES = [
    Frame("event", '{"name":"Grüße"}'.encode(), "e1-7"),
    Frame("bookmark", b"\n two", "e1-8"),
    Frame("message", b"last", None),
]
ENDS = pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])


def read(parser: Parser, *pieces: bytes) -> list[Frame]:
    return [frame for piece in pieces for frame in parser.feed(piece)]


def is_read_wherever_it_is_cut(new_parser: Callable[[], Parser], end: str) -> bool:
    stream = STREAM.replace("\n", end).encode()
    whole = read(new_parser(), stream) == FRAMES
    in_two = all(read(new_parser(), stream[:at], stream[at:]) == FRAMES for at in range(len(stream)))
    by_bytes = read(new_parser(), *(stream[at : at + 1] for at in range(len(stream)))) == FRAMES
    return whole and in_two and by_bytes


@ENDS
def test_frames_are_the_same_wherever_the_bytes_are_cut(end: str) -> None:
    assert is_read_wherever_it_is_cut(Parser, end)


class ForgetsTheCarriageReturn(Parser):
    """Takes the LF of a CRLF that was cut for a line of its own."""

    def feed(self, piece: bytes) -> list[Frame]:
        """Do it wrongly."""
        self._after_cr = False
        return super().feed(piece)


class LosesWhatIsUnfinished(Parser):
    """Begins each piece anew."""

    def feed(self, piece: bytes) -> list[Frame]:
        """Do it wrongly."""
        self._pieces = []
        return super().feed(piece)


class CarriesTheIdOver(Parser):
    """Gives a frame without an id the one of the frame before."""

    def _begin(self) -> None:
        kept = getattr(self, "_id", None)
        super()._begin()
        self._id = kept


@pytest.mark.parametrize("planted", [ForgetsTheCarriageReturn, LosesWhatIsUnfinished, CarriesTheIdOver])
def test_a_parser_that_is_wrong_is_found(planted: Callable[[], Parser]) -> None:
    assert not is_read_wherever_it_is_cut(planted, "\r\n")


def test_how_long_to_wait_is_kept_and_what_is_no_number_ignored() -> None:
    parser = Parser()
    assert parser.retry_ms is None
    parser.feed(STREAM.encode())
    assert parser.retry_ms == 1500


def test_what_comes_in_many_pieces_costs_no_more_for_it() -> None:
    """A line is joined once, when it ends: pieces without an end are only kept."""
    parser = Parser()
    pieces = [b"data: ", *[b"x" * 1000] * 1000, b"\n\n"]
    assert read(parser, *pieces[:-1]) == []
    assert len(parser._pieces) == 1001
    assert read(parser, pieces[-1]) == [Frame("message", b"x" * 1_000_000, None)]
