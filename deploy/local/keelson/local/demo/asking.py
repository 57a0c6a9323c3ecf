"""Asking what runs, over HTTP: each replica once, or a hostname all the while, by where an edge is told it leads."""

import asyncio
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from http.client import HTTPException

import msgspec

from keelson.client import Client
from keelson.client.reads.edge import Backend
from keelson.client.reads.instances import InstanceRow
from keelson.local.child import in_thread
from keelson.local.demo.running import live_instances
from keelson.local.demo.telling import Actor, Telling
from keelson.local.errors import LocalError

_TIMEOUT_S = 5.0
_PAUSE_S = 0.02


class UnansweredError(LocalError):
    """Somebody was asked, and did not answer, or not in full."""


class Greeting(msgspec.Struct, frozen=True):
    """What a greeter answers."""

    greeting: str
    release: str
    instance: str
    signature: str | None = None


async def ask_each(telling: Telling, owner: Actor, env_id: str, process: str) -> list[Greeting]:
    """Ask every replica of a process, and tell what each says.

    Raises LocalError if one does not answer, or is another than was asked.
    """
    rows = await live_instances(owner.client, env_id, telling.position)
    return [await _ask_one(owner, row) for row in rows if row.process == process]


@asynccontextmanager
async def asked_meanwhile(telling: Telling, hostname: str) -> AsyncIterator[None]:
    """Ask for a hostname all the while that the block runs, one after the other, and tell how that went.

    Whoever is not answered by a backend tries the next, as an edge would, and how often that was so is told. Raises
    LocalError if nobody answers one.
    """
    operator, stop = telling["operator"], asyncio.Event()
    asking = asyncio.create_task(ask_until(stop, partial(_read_backends, operator.client, hostname), hostname))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait([asking])
    telling.step("anybody", "GET /", hostname, f"asked all the while: {asking.result().told()}")


class Asked:
    """What came of asking: answers by release, and how often there was none."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.unanswered = 0

    def told(self) -> str:
        """Say so in words."""
        releases = " and ".join(f"{count} by release {release}" for release, count in sorted(self.answered.items()))
        return f"{releases}, {self.unanswered or 'none'} unanswered"


async def ask_until(
    stop: asyncio.Event, read_backends: Callable[[], Awaitable[Sequence[Backend]]], hostname: str
) -> Asked:
    """Ask again and again, each time the backend whose turn it is, and the next while that does not answer.

    Raises LocalError if nobody does for long.
    """
    asked = Asked()
    while not stop.is_set():
        asked.answered[(await _ask_anyone(asked, read_backends, hostname)).release] += 1
        await asyncio.sleep(_PAUSE_S)
    return asked


async def _ask_anyone(
    asked: Asked, read_backends: Callable[[], Awaitable[Sequence[Backend]]], hostname: str
) -> Greeting:
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        if backends := await read_backends():
            backend = backends[(asked.answered.total() + asked.unanswered) % len(backends)]
            with suppress(UnansweredError):
                return await _ask(backend.host, backend.port)
        asked.unanswered += 1
        await asyncio.sleep(_PAUSE_S)
    raise LocalError(f"nobody answers at {hostname}")


async def _read_backends(operator: Client, hostname: str) -> Sequence[Backend]:
    routes = (await operator.edge.desired()).items
    return next((route.backends for route in routes if route.hostname == hostname), ())


async def _ask_one(owner: Actor, row: InstanceRow) -> Greeting:
    endpoint = (row.endpoints or {})["http"]
    answer = await _ask(endpoint.host, endpoint.port)
    if answer.instance != row.id:
        raise LocalError(f"{endpoint.host}:{endpoint.port} is {answer.instance}, and not {row.id}")
    signed = ", signed" if answer.signature else ""
    owner.tell(
        "GET /",
        f"{row.process} at {endpoint.host}:{endpoint.port}",
        f'"{answer.greeting}", release {answer.release}{signed}',
    )
    return answer


async def _ask(host: str, port: int) -> Greeting:
    """Ask one; raises UnansweredError."""
    try:
        return msgspec.json.decode(await in_thread(lambda: _get(f"http://{host}:{port}/")), type=Greeting)
    except (OSError, HTTPException, msgspec.DecodeError) as error:
        raise UnansweredError(f"{host}:{port} does not answer as a greeter does: {error!r}") from error


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - what the platform says runs there
            return bytes(answer.read())
    except urllib.error.HTTPError as refusal:
        refusal.close()
        raise
