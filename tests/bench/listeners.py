"""`python -m bench.listeners`: many streams read in a process of its own, at so little cost that it is not measured.

What to listen to comes in on stdin, then when each event was committed; what was heard of them goes out. A stream is
read off its socket as it comes: of each piece that ends where a frame ends, only the ids are looked at.
"""

import asyncio
import gc
import os
import re
import resource
import sys
from array import array
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import time
from typing import cast

import msgspec
import uvloop

from bench.figures import Figure
from bench.wire import request

READY = b"ready\n"
PATIENCE_S = 120.0
# How many connections are opened at once: a listen queue is a hundred or so.
_AT_ONCE = 50
# Files that are open beside the connections.
_SPARE_FILES = 200
_FRAMES_END = b"\n\n\r\n"
_ID = b"\nid: "
_EVENT = b"\nevent: event\n"
_IDS_OF_EVENTS = re.compile(rb"\nid: [0-9a-z]+-(\d+)\nevent: event\n")
_BUCKETS_PER_S = 10_000


class Spec(msgspec.Struct, frozen=True):
    """To what to listen: connection n to path n, counted around."""

    port: int
    connections: int
    paths: list[str]
    token: str


class Committed(msgspec.Struct, frozen=True):
    """When events were committed, by their positions, in seconds since 1970; of others nothing is told."""

    at: dict[int, float]


class Heard(msgspec.Struct, frozen=True):
    """What was heard of the events that were asked about: how many, by how many, how late; and what went wrong."""

    events: int
    p50_ms: float
    p99_ms: float
    most_ms: float
    # Streams that ended or were refused, and those whose positions went back.
    lost: int
    disordered: int

    def share(self, expected: int) -> float:
        """Give how much of what should have been heard was, in per cent."""
        return 100 * self.events / expected

    def figure(self, part: str, what: str, *, most: float | None = None) -> Figure:
        """Give the latency that 99 of 100 did not exceed."""
        return Figure(
            part=part, what=what, value=self.p99_ms, unit="ms", p50_ms=self.p50_ms, p99_ms=self.p99_ms, most=most
        )


class _Stream(asyncio.Protocol):
    def __init__(self, room: "_Room", head: bytes) -> None:
        self._room = room
        self._head = head
        self._rest = b""
        self._position = 0
        self._is_answered = self._is_begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.WriteTransport", transport).write(self._head)

    def connection_lost(self, _error: Exception | None) -> None:
        self._room.lost += 1

    def data_received(self, data: bytes) -> None:
        now = time()
        if self._rest:
            data, self._rest = self._rest + data, b""
        if not data.endswith(_FRAMES_END):
            self._rest = data
        elif not self._is_begun:
            self._begin(data)
        if self._is_begun and not self._rest:
            self._hear(data, now)

    def _begin(self, data: bytes) -> None:
        if not self._is_answered and not data.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"a stream was refused: {data[:300]!r}")
        self._is_answered = True
        # Where a stream stands is said by its first id, of a bookmark if there is nothing else.
        if _ID in data:
            self._is_begun = True
            self._position = _last_id(data) - data.count(_EVENT)
            self._room.begun += 1
            if self._room.begun == self._room.awaited:
                self._room.all_begun.set()

    def _hear(self, data: bytes, now: float) -> None:
        if _ID not in data:
            return
        count, last = data.count(_EVENT), _last_id(data)
        if count and last - self._position == count:
            self._room.note(self._position + 1, last, now)
        elif count:
            for position in map(int, _IDS_OF_EVENTS.findall(data)):
                self._room.note(position, position, now)
        if last < self._position or (count and last == self._position):
            self._room.disordered += 1
        self._position = last


def _last_id(data: bytes) -> int:
    at = data.rfind(_ID) + len(_ID)
    line = data[at : data.index(b"\n", at)]
    return int(line[line.rindex(b"-") + 1 :])


class _Room:
    """All who listen, and what they heard: from one position to another, all at one time."""

    def __init__(self, awaited: int) -> None:
        self.awaited = awaited
        self.begun = self.lost = self.disordered = 0
        self.all_begun = asyncio.Event()
        self._firsts, self._lasts, self._times = array("q"), array("q"), array("d")

    def note(self, first: int, last: int, now: float) -> None:
        """Keep that somebody heard these."""
        self._firsts.append(first)
        self._lasts.append(last)
        self._times.append(now)

    def result(self, committed: Committed) -> Heard:
        """Tell what was heard of these events."""
        buckets: Counter[int] = Counter()
        for first, last, now in zip(self._firsts, self._lasts, self._times, strict=True):
            for position in range(first, last + 1):
                if (at := committed.at.get(position)) is not None:
                    buckets[int((now - at) * _BUCKETS_PER_S)] += 1
        return Heard(
            events=buckets.total(),
            p50_ms=_percentile_ms(buckets, 0.5),
            p99_ms=_percentile_ms(buckets, 0.99),
            most_ms=_percentile_ms(buckets, 1.0),
            lost=self.lost,
            disordered=self.disordered,
        )


def _percentile_ms(buckets: Counter[int], share: float) -> float:
    """Give the latency that this share did not exceed, to a tenth of a millisecond."""
    left = share * buckets.total()
    for bucket, count in sorted(buckets.items()):
        left -= count
        if left <= 0:
            return bucket * 1000 / _BUCKETS_PER_S
    return 0.0


async def _listen(spec: Spec, stdin: asyncio.StreamReader) -> Heard:
    room = _Room(spec.connections)
    heads = [request("GET", path, spec.token).replace("\r\n\r\n", _ACCEPT, 1).encode() for path in spec.paths]
    for first in range(0, spec.connections, _AT_ONCE):
        numbers = range(first, min(first + _AT_ONCE, spec.connections))
        streams = [_Stream(room, heads[number % len(heads)]) for number in numbers]
        await asyncio.gather(*(_connect(stream, spec.port) for stream in streams))
    await room.all_begun.wait()
    gc.freeze()
    os.write(1, READY)
    line = await stdin.readline()
    lost = room.lost
    result = await asyncio.to_thread(room.result, msgspec.json.decode(line, type=Committed))
    return msgspec.structs.replace(result, lost=lost)


async def _connect(stream: _Stream, port: int) -> None:
    await asyncio.get_running_loop().create_connection(lambda: stream, "127.0.0.1", port)


_ACCEPT = "\r\nAccept: text/event-stream\r\n\r\n"


def allow_files(connections: int) -> None:
    """Raise the limit of open files of this process, and of those that it starts, as far as it must and may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE_FILES
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


class Audience:
    """The process that listens."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def begin(self, spec: Spec) -> None:
        """Have everybody listen; return when each has been told where it stands."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(spec) + b"\n")
        async with asyncio.timeout(PATIENCE_S):
            said = await self._process.stdout.readline()
        if said != READY:
            raise RuntimeError(f"those who listen say {said!r}")

    async def tell(self, committed: Committed) -> Heard:
        """End; give what was heard of these."""
        async with asyncio.timeout(PATIENCE_S):
            answer, _ = await self._process.communicate(msgspec.json.encode(committed) + b"\n")
        return msgspec.json.decode(answer, type=Heard)


@asynccontextmanager
async def listening(spec: Spec) -> AsyncIterator[Audience]:
    """Lend an audience that listens; ended afterwards."""
    allow_files(spec.connections)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.listeners"), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        audience = Audience(process)
        await audience.begin(spec)
        yield audience
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _main() -> None:
    stdin = asyncio.StreamReader(limit=2**26)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    spec = msgspec.json.decode(await stdin.readline(), type=Spec)
    os.write(1, msgspec.json.encode(await _listen(spec, stdin)))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main())
