"""Asking what runs, over HTTP: each replica once, or a hostname all the while, by where an edge is told it leads."""

import asyncio
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from keelson.client import Client
from keelson.client.reads.instances import InstanceRow
from keelson.local.child import in_thread
from keelson.local.demo.running import live_instances
from keelson.local.demo.telling import Actor, Telling
from keelson.local.errors import LocalError

_TIMEOUT_S = 5.0
_PAUSE_S = 0.02


class Greeting(msgspec.Struct, frozen=True):
    """What a greeter answers."""

    greeting: str
    release: str
    instance: str
    signature: str | None = None


async def ask_each(telling: Telling, owner: Actor, env_id: str, process: str) -> list[Greeting]:
    """Ask every replica of a process, and tell what each says. Raises LocalError if one is another than was asked."""
    rows = await live_instances(owner.client, env_id, telling.position)
    return [await _ask_one(owner, row) for row in rows if row.process == process]


@asynccontextmanager
async def asked_meanwhile(telling: Telling, hostname: str) -> AsyncIterator[None]:
    """Ask for a hostname all the while that the block runs, one after the other, and tell how that went.

    Whoever is not answered by a backend tries the next, as an edge would. Raises LocalError if nobody answers one.
    """
    operator, stop = telling["operator"], asyncio.Event()
    asking = asyncio.create_task(_ask_until(stop, operator.client, hostname))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait([asking])
    answered = asking.result()
    releases = " and ".join(f"{count} by release {release}" for release, count in sorted(answered.items()))
    telling.step("anybody", "GET /", hostname, f"asked all the while: {releases}, none unanswered")


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


async def _ask_until(stop: asyncio.Event, operator: Client, hostname: str) -> Counter[str]:
    """Ask again and again; count the answers by release."""
    answered: Counter[str] = Counter()
    while not stop.is_set():
        answered[(await _ask_anyone(operator, hostname, answered.total())).release] += 1
        await asyncio.sleep(_PAUSE_S)
    return answered


async def _ask_anyone(operator: Client, hostname: str, turn: int) -> Greeting:
    """Ask the backend whose turn it is, and the next while that fails."""
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        routes = (await operator.edge.desired()).items
        backends = next((route.backends for route in routes if route.hostname == hostname), ())
        if backends:
            backend = backends[turn % len(backends)]
            try:
                return await _ask(backend.host, backend.port)
            except OSError:
                turn += 1
        await asyncio.sleep(_PAUSE_S)
    raise LocalError(f"nobody answers at {hostname}")


async def _ask(host: str, port: int) -> Greeting:
    return msgspec.json.decode(await in_thread(lambda: _get(f"http://{host}:{port}/")), type=Greeting)


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - what the platform says runs there
        return bytes(answer.read())
