"""A server on a real socket that streams as each test says, cut at any byte; and what it streams."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from keelson.client import Client, StreamTimes

QUICK = StreamTimes(idle_timeout_s=5.0, retry_s=0.001, max_retry_s=0.004)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


class Asked(NamedTuple):
    """A request, as far as streams differ by it."""

    path: str
    headers: dict[str, str]

    @property
    def last_event_id(self) -> str | None:
        """The cursor that was asked for, if one was."""
        return self.headers.get("last-event-id")


class Reply(NamedTuple):
    """What to send, and whether the connection is then left open; otherwise it ends, or is reset."""

    content: bytes
    stalls: bool = False
    resets: bool = False


Answer = Callable[[Asked], Reply]


class StreamServer:
    """Gives the answers that it was told to, one a connection and the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[Asked] = []

    @asynccontextmanager
    async def client(self, times: StreamTimes = QUICK, **settings: Any) -> AsyncIterator[Client]:
        """Serve, and give a client of it as both services."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        url = "http://{}:{}".format(*server.sockets[0].getsockname())
        try:
            async with Client(url, url, "token-of-a-test", stream_times=times, **settings) as client:
                yield client
        finally:
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            asked = read_head(head)
            self.asked.append(asked)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            reply = answer(asked)
            writer.write(reply.content)
            await writer.drain()
            if reply.stalls:
                await reader.read()  # until the client goes away
            if reply.resets:
                writer.transport.abort()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def read_head(head: str) -> Asked:
    first, *lines = head.strip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Asked(first.split(" ")[1], {name.lower(): value for name, value in headers.items()})


def chunked(frames: Iterable[str]) -> bytes:
    """Give the frames, each a chunk of the body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(frame.encode()), frame.encode()) for frame in frames)


def streaming(*frames: str, ends: bool = False) -> Answer:
    """Give an answer that is these frames and stays open, or ends as it should."""
    return lambda _: Reply(HEAD + chunked(frames) + (END if ends else b""), stalls=not ends)


def refusing(status: int, code: str, **headers: str) -> Answer:
    """Give an answer that is a problem; names of headers have _ for -."""
    body = json.dumps({"title": code, "status": status, "detail": f"it is {code}", "code": code}).encode()
    named = {"Content-Type": "application/problem+json", "Content-Length": str(len(body)), "Connection": "close"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return lambda _: Reply(f"HTTP/1.1 {status} No\r\n{lines}\r\n".encode() + body)


def frame(kind: str, data: Any, id_: str | None = None) -> str:
    cursor = "" if id_ is None else f"id: {id_}\n"
    return f"{cursor}event: {kind}\ndata: {json.dumps(data)}\n\n"


def item(position: int, **fields: Any) -> dict[str, Any]:
    """Give an event as the feed shows it."""
    return {
        "position": position,
        "type": "app.renamed",
        "version": 1,
        "stored_version": 1,
        "aggregate_id": "app_1",
        "aggregate_type": "app",
        "seq": position,
        "actor_type": "system",
        "actor_id": "test",
        "request_id": "r",
        "command_id": "c",
        "command_end": False,
        "recorded_at": "2026-01-01T00:00:00Z",
        "payload": {"name": "ü"},
        **fields,
    }


class FakeLog:
    """A log of commands, each the positions of its events, and what a feed of it sends after a cursor."""

    def __init__(self, epoch: str, commands: Sequence[Sequence[int]]) -> None:
        self.epoch = epoch
        self.commands = commands

    @property
    def positions(self) -> list[int]:
        """Those of all events."""
        return [position for command in self.commands for position in command]

    def frames(self, after: int) -> list[str]:
        """Give the frames of what is after a position; the last of each command has the cursor."""
        frames = ["retry: 1\n\n", ": \n\n"]
        for command in self.commands:
            cursor = f"{self.epoch}-{command[-1]}"
            frames += [frame("event", item(each)) for each in command[:-1] if each > after]
            frames += [frame("event", item(each), cursor) for each in command[-1:] if each > after]
        head = self.positions[-1]
        return [*frames, frame("bookmark", {"position": head}, f"{self.epoch}-{head}")]

    def answer(self, asked: Asked) -> Reply:
        """Stream what is after the cursor that was asked for."""
        epoch, _, position = (asked.last_event_id or f"{self.epoch}-0").partition("-")
        if epoch != self.epoch:
            return refusing(410, "cursor_expired", Keelson_Epoch=self.epoch)(asked)
        return Reply(HEAD + chunked(self.frames(int(position))), stalls=True)


def cut(answer: Answer, size: int) -> Answer:
    """Give the answer's first bytes, and then nothing: every other cut is a reset, where the rest may be lost too."""
    return lambda asked: Reply(answer(asked).content[:size], resets=size % 2 == 1)


def snapshot(version: int, *instance_ids: str, epoch: str = "e1", **fields: Any) -> str:
    """Give the frame of what a node should be doing."""
    items = [instance(each) for each in instance_ids]
    said = {"version": version, "digest": digest_of(items), "items": items, "position": version + 1, **fields}
    return frame("event", said, f"{epoch}-{version}")


def confirmation(version: int, *instance_ids: str, position: int = 99) -> str:
    """Give the frame that says which version it still is."""
    digest = digest_of([instance(each) for each in instance_ids])
    return frame("bookmark", {"version": version, "digest": digest, "position": position}, f"e1-{version}")


def digest_of(items: list[dict[str, Any]]) -> str:
    text = json.dumps(items, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def instance(instance_id: str) -> dict[str, Any]:
    return {
        "instance_id": instance_id,
        "org_id": "org_1",
        "project_id": "project_1",
        "app_id": "app_1",
        "env_id": "env_1",
        "process": "web",
        "release_id": "release_1",
        "release_number": 1,
        "secret_version": None,
        "spec": {
            "image": "registry.example/web@sha256:00",
            "command": ["serve", "-ü"],
            "cpu_millis": 250,
            "memory_bytes": 268435456,
            "variables": {"B": "2", "A": "1"},
        },
        "spec_hash": "h",
        "desired_state": "running",
    }
