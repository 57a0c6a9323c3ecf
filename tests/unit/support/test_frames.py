"""The reader of server-sent events: pieces of any size give the same frames, and it takes nothing that is not ours."""

import pytest

from support.frames import Frame, FrameError, FrameReader

TEXT = (
    b'retry: 1200\n\nevent: event\ndata: {"position":1}\n\nid: e1-2\nevent: event\ndata: {"position":2}\n\n: \n\n'
    b'id: e1-7\nevent: bookmark\ndata: {"position": 7}\n\n'
)
FRAMES = [
    Frame("retry", None, "1200"),
    Frame("event", None, '{"position":1}'),
    Frame("event", "e1-2", '{"position":2}'),
    Frame("comment", None, ""),
    Frame("bookmark", "e1-7", '{"position": 7}'),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_pieces_of_any_size_give_the_same_frames(size: int) -> None:
    reader = FrameReader()
    read = [frame for at in range(0, len(TEXT), size) for frame in reader.feed(TEXT[at : at + size])]
    assert read == FRAMES


@pytest.mark.parametrize("cut", range(len(TEXT)))
def test_what_was_cut_off_was_never_said(cut: int) -> None:
    assert list(FrameReader().feed(TEXT[:cut])) == FRAMES[: TEXT[:cut].count(b"\n\n")]


@pytest.mark.parametrize(
    "text",
    [
        b"hello\n\n",
        b"event: event\n\n",
        b"data: 1\n\n",
        b"id: 1\nid: 2\nevent: e\ndata: d\n\n",
        b": news\n\n",
        b"a: b\n\n",
    ],
)
def test_what_is_not_ours_is_an_error(text: bytes) -> None:
    with pytest.raises(FrameError):
        list(FrameReader().feed(text))
