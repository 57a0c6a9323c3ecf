"""Server-sent events: bytes in whatever pieces they come, made into frames (WHATWG HTML, 9.2.6)."""

from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"
_ENDS = (b"\n", b"\r")


class Frame(NamedTuple):
    """A frame as it was sent. `id` is None where this frame has none: what an earlier one said does not carry over."""

    event: str
    data: bytes
    id: str | None


class Parser:
    """Reads one stream, by any of the three line ends; a frame is given when its empty line has come, and never before.

    The pieces may be cut anywhere, also within a letter or between CR and LF. `retry_ms` is what the stream said last
    of how long to wait before connecting again. Fields that the standard does not know are ignored, as it wants.
    """

    def __init__(self) -> None:
        self.retry_ms: int | None = None
        self._pieces: list[bytes] = []  # of a line that has not ended
        self._after_cr = False
        self._at_start = True
        self._begin()

    def feed(self, piece: bytes) -> list[Frame]:
        """Take the next bytes, and give the frames that they complete."""
        if not piece:
            return []
        after_cr, self._after_cr = self._after_cr, piece.endswith(b"\r")
        self._pieces.append(piece.removeprefix(b"\n") if after_cr else piece)
        if b"\n" not in piece and b"\r" not in piece:
            return []
        lines = b"".join(self._pieces).splitlines(keepends=True)
        self._pieces = [lines.pop()] if lines and not lines[-1].endswith(_ENDS) else []
        frames = (self._take(line.rstrip(b"\r\n")) for line in lines)
        return [frame for frame in frames if frame is not None]

    def _begin(self) -> None:
        self._event: str | None = None
        self._id: str | None = None
        self._data: list[bytes] = []

    def _take(self, line: bytes) -> Frame | None:
        """Take a line; an empty one ends a frame, which is none if it had no data."""
        if self._at_start:
            self._at_start, line = False, line.removeprefix(_BOM)
        if line:
            self._take_field(line)
            return None
        frame = Frame(self._event or "message", b"\n".join(self._data), self._id) if self._data else None
        self._begin()
        return frame

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self._data.append(value)
            case b"event":
                self._event = value.decode(errors="replace")
            case b"id" if b"\0" not in value:
                self._id = value.decode(errors="replace")
            case b"retry" if value.isdigit():
                self.retry_ms = int(value)
