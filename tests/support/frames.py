"""Server-sent events read by code that shares nothing with Keelson's, as strictly as our contract is written.

The grammar is the HTML standard's, 9.2.5; whatever a sound stream of ours never says is an error here, not ignored.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_FIELDS = frozenset({"id", "event", "data", "retry"})
_LINE = re.compile(r"([a-z]+): (.+)")


class Frame(NamedTuple):
    """What a blank line ended: an event of some kind, a hint when to come back (`retry`), or a `comment`."""

    kind: str
    id: str | None
    data: str


class FrameError(Exception):
    """The stream says what no stream of ours may."""


class FrameReader:
    """Takes bytes in whatever pieces they come; what the end cuts off was never said."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Give the frames that are whole now. Raises FrameError."""
        *whole, self._rest = (self._rest + data).split(b"\n\n")
        for each in whole:
            yield _read_frame(each.decode())


def _read_frame(text: str) -> Frame:
    if text.startswith(":"):
        if text.strip(": "):
            raise FrameError(f"a comment that says something: {text!r}")
        return Frame("comment", None, "")
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        match = _LINE.fullmatch(line)
        if match is None or match[1] not in _FIELDS or match[1] in fields:
            raise FrameError(f"no line of ours: {line!r} in {text!r}")
        fields[match[1]] = match[2]
    if fields.keys() == {"retry"}:
        return Frame("retry", None, fields["retry"])
    if not {"event", "data"} <= fields.keys() or "retry" in fields:
        raise FrameError(f"neither an event nor a hint: {text!r}")
    return Frame(fields["event"], fields.get("id"), fields["data"])
