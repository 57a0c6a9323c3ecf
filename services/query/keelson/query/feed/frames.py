"""What a stream says, as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import secrets
from typing import Any

import msgspec

from keelson.events import Envelope
from keelson.query.audit import EventItem
from keelson.query.places import write_cursor

MEDIA_TYPE = "text/event-stream"

# Said in silence, so that a client, and whatever stands between, knows that the stream is alive.
COMMENT = b": \n\n"

# When clients come back: spread, so that those of a replica that stops do not come to the others at once (F32).
RETRY_MS = (500, 3000)

_encode = msgspec.json.Encoder().encode


def write_retry() -> bytes:
    """Give the first frame: after how long to come back once the stream has ended."""
    first, last = RETRY_MS
    return b"retry: %d\n\n" % (first + secrets.randbelow(last - first + 1))


def write_id(epoch: str, position: int) -> bytes:
    """Give the line that says from where the stream can be resumed once the frame that it begins has come."""
    return b"id: %s\n" % write_cursor(epoch, position).encode("ascii")


def write_event(envelope: Envelope) -> bytes:
    """Give the frame of an event, without an id."""
    return write_frame("event", EventItem.of(envelope))


def write_bookmark(epoch: str, position: int) -> bytes:
    """Give the frame that says: up to this position, which is an end of a command, all that matches has been told."""
    return write_id(epoch, position) + write_frame("bookmark", {"position": position})


def write_resync(epoch: str, reason: str) -> bytes:
    """Give the last frame of a stream whose cursors mean nothing any more; it has no id."""
    return write_frame("resync", {"epoch": epoch, "reason": reason})


def write_frame(event: str, data: Any) -> bytes:
    """Give a frame: its data is one line of JSON."""
    line: bytes = _encode(data)
    # What was stored as it was written may be JSON on several lines; within strings there can be none.
    if b"\n" in line or b"\r" in line:
        line = line.replace(b"\n", b" ").replace(b"\r", b" ")
    return b"event: %s\ndata: %s\n\n" % (event.encode("ascii"), line)
