"""Chunks: all that matches after a place, told in one piece, and built once for all who are at the same place."""

from collections.abc import Iterable
from itertools import pairwise

import msgspec

from keelson.events.ids import Position
from keelson.query.feed.frames import write_id
from keelson.query.feed.interests import Interest
from keelson.query.feed.ring import Entry, Ring

# What is told at once, unless a single command has more; a slow reader holds no more than this.
MAX_CHUNK_BYTES = 256 * 1024
# How many events are looked at before others have their turn (`stream` sees to it): about two milliseconds.
MAX_SCANNED = 2000
# Chunks kept for each interest, by where they begin: those who keep up are at one or two places.
MAX_KEPT = 4


class Chunk(msgspec.Struct, frozen=True):
    """Frames of matching events, up to a position that was examined; `told` is the last id in it, 0 without one."""

    data: bytes
    examined: Position
    told: Position = Position(0)
    events: int = 0


def read_ring(ring: Ring, interest: Interest, after: Position, epoch: str) -> Chunk:
    """Give what matches after a position that is not before the ring's start; shared, if others want the same."""
    if interest.chunks_end != ring.end:
        interest.chunks.clear()
        interest.chunks_end = ring.end
    chunk = interest.chunks.get(after)
    if chunk is None:
        chunk = _scan(ring, interest, after, epoch)
        if interest.subscribers > 1 and len(interest.chunks) < MAX_KEPT:
            interest.chunks[after] = chunk
    return chunk


def _scan(ring: Ring, interest: Interest, after: Position, epoch: str) -> Chunk:
    scanned = ring.after(after, MAX_SCANNED)
    if len(scanned) == MAX_SCANNED and not scanned[-1].envelope.command_end:
        scanned = _to_command_end(ring, after, scanned)
    matching = [entry for entry in scanned if interest.matches(entry.envelope)]
    return tell(matching, scanned[-1].envelope.position if scanned else after, epoch)


def _to_command_end(ring: Ring, after: Position, scanned: Iterable[Entry]) -> list[Entry]:
    """Give the events with the rest of the last one's command: what arrives here always ends with a whole one."""
    entries = list(scanned)
    while not entries[-1].envelope.command_end:
        entries += ring.after(Position(after + len(entries)), 1)
    return entries


def tell(matching: list[Entry], examined: Position, epoch: str) -> Chunk:
    """Write events down, in order, of commands that are whole as far as they match; at most about MAX_CHUNK_BYTES.

    The last of each command gets its id, and no other: whoever resumes there has all of the command (F29). If not all
    are told, `examined` is the last that is.
    """
    parts: list[bytes] = []
    size = 0
    for number, (entry, following) in enumerate(pairwise([*matching, None]), start=1):
        assert entry is not None  # noqa: S101 - only the last of the list is None, and it has no pair of its own
        envelope = entry.envelope
        is_last = following is None or following.envelope.command_id != envelope.command_id
        if is_last:
            parts.append(write_id(epoch, envelope.position))
        parts.append(entry.frame)
        size += len(entry.frame)
        if is_last and size >= MAX_CHUNK_BYTES and following is not None:
            return Chunk(b"".join(parts), envelope.position, envelope.position, number)
    told = matching[-1].envelope.position if matching else Position(0)
    return Chunk(b"".join(parts), examined, told, len(matching))
