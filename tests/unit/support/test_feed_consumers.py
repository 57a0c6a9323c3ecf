"""The consumers of the feed's model hear what was said, and nothing else."""

from random import Random
from typing import Any

import pytest

from support.feed_consumers import Answer, Ask, Streamer, told_by, told_by_page
from support.feed_judge import Consumer, Told
from support.frames import Frame, FrameError

HEAD = b"HTTP/1.1 200 OK\r\nKeelson-Epoch: e1\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
FRAMES = b'retry: 1\n\nid: e1-2\nevent: bookmark\ndata: {"position":2}\n\n: \n\n'
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(FRAMES), FRAMES)


def item(position: int, command: str) -> dict[str, Any]:
    return {"position": position, "command_id": command}


def test_a_page_is_heard_as_a_stream_would_be() -> None:
    page = {"items": [item(3, "a"), item(5, "a"), item(6, "b")], "next": "e1-9", "position": "e1-9"}
    assert told_by_page(page) == [
        Told("event", None, item(3, "a")),
        Told("event", "e1-5", item(5, "a")),
        Told("event", "e1-6", item(6, "b")),
        Told("bookmark", "e1-9", {"position": 9}),
    ]
    assert told_by_page({"items": [], "next": "e1-4"}) == [Told("bookmark", "e1-4", {"position": 4})]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_stream_is_heard_in_whatever_pieces_it_comes(size: int) -> None:
    heard: list[Frame] = []
    answer = Answer(heard.append)
    content = HEAD + CHUNKED
    for at in range(0, len(content), size):
        assert not answer.is_over
        answer.feed(content[at : at + size])
    assert (answer.status, answer.headers["keelson-epoch"], answer.is_over) == (200, "e1", True)
    assert [told_by(frame) for frame in heard] == [Told("bookmark", "e1-2", {"position": 2})]


def test_what_no_stream_says_is_not_taken() -> None:
    with pytest.raises(FrameError):
        Answer(lambda _frame: None).feed(HEAD + b"9\r\nhello\n\n\n\n\r\n")


def a_streamer() -> Streamer:
    ask = Ask(lambda: 1, lambda: 1, "token", Random(1), calm=lambda: True)
    return Streamer(Consumer("one"), ask)


def test_who_is_calm_goes_on_where_it_was() -> None:
    streamer = a_streamer()
    session = streamer.begin()
    assert session.start is None
    session.status = 200
    streamer.hear(session, Told("event", "e1-1", {}))
    streamer.hear(session, Told("event", None, {}))
    streamer.end(session)
    assert (streamer.cursor, streamer.begin().start) == ("e1-1", "e1-1")


def test_what_an_epoch_took_with_it_is_begun_anew() -> None:
    streamer = a_streamer()
    session = streamer.begin()
    session.status = 200
    streamer.hear(session, Told("event", "e1-1", {}))
    streamer.hear(session, Told("resync", None, {"epoch": "e2"}))
    streamer.end(session)
    assert (streamer.cursor, streamer.stale, streamer.begin().start) == (None, ["e1-1"], None)

    streamer.cursors.append("e2-4")
    refused = streamer.begin()
    refused.status = 410
    streamer.end(refused)
    assert (streamer.cursor, streamer.is_refused) == (None, False)
    refused.status = 401
    streamer.end(refused)
    assert streamer.is_refused
