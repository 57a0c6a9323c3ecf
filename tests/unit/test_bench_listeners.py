"""The bench's listeners hear every event once, in whatever pieces it comes, and know when it was late or never came."""

from types import SimpleNamespace
from typing import Any

import pytest

from bench.listeners import Committed, Heard, _Room, _Stream

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(text: str) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text), text.encode())


def event(position: int) -> str:
    return f'id: e1-{position}\nevent: event\ndata: {{"position":{position}}}\n\n'


def bookmark(position: int) -> str:
    return f'id: e1-{position}\nevent: bookmark\ndata: {{"position":{position}}}\n\n'


BEGUN = [HEAD, chunk("retry: 900\n\n"), chunk(bookmark(7))]
# Of each the newest is at 100; what was committed when it is asked about is a hundredth of a second old.
COMMITTED = Committed(dict.fromkeys(range(8, 12), 99.99))


def heard(monkeypatch: pytest.MonkeyPatch, *pieces: bytes) -> Heard:
    monkeypatch.setattr("bench.listeners.time", lambda: 100.0)
    room = _Room(1)
    stream = _Stream(room, b"GET")
    wire: Any = SimpleNamespace(write=lambda _data: None)
    stream.connection_made(wire)
    for piece in pieces:
        stream.data_received(piece)
    assert room.begun == 1
    return room.result(COMMITTED)


@pytest.mark.parametrize("size", [1, 5, 64, 10_000])
def test_all_is_heard_in_pieces_of_any_size(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    said = b"".join([*BEGUN, chunk(event(8)), chunk(event(9) + event(10)), chunk(bookmark(10)), chunk(event(11))])
    found = heard(monkeypatch, *(said[at : at + size] for at in range(0, len(said), size)))
    assert (found.events, found.disordered) == (4, 0)
    assert found.share(4) == 100
    assert found.p50_ms == pytest.approx(10, abs=0.2)


def test_of_a_filtered_stream_only_what_it_says_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    found = heard(monkeypatch, *BEGUN, chunk(event(9)), chunk(event(11) + bookmark(12)))
    assert (found.events, found.disordered) == (2, 0)


def test_what_never_came_is_missing_and_what_was_not_asked_about_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert heard(monkeypatch, *BEGUN, chunk(event(8)), chunk(event(10))).events == 2
    assert heard(monkeypatch, *BEGUN, chunk(event(12))).events == 0


def test_what_comes_again_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert heard(monkeypatch, *BEGUN, chunk(event(8)), chunk(event(8))).disordered == 1
    assert heard(monkeypatch, *BEGUN, chunk(event(9)), chunk(event(8))).disordered == 1


def test_a_refusal_is_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="refused"):
        heard(monkeypatch, b'HTTP/1.1 503 Service Unavailable\r\n\r\n{"a":\n\n\r\n')
