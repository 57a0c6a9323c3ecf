"""What runs, asked over HTTP and seen in the kernel's list of processes: neither the log nor a view is believed."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from keelson.client import Client, ClientError
from keelson.client.reads.instances import InstanceRow

_TIMEOUT = aiohttp.ClientTimeout(total=5, sock_connect=2)
_PAUSE_S = 0.1
_BEGUN_WITHIN_S = 30


async def greet(session: aiohttp.ClientSession, endpoint: Any) -> dict[str, str]:
    """Ask one greeter; raises OSError, TimeoutError or ClientError where it does not answer."""
    async with session.get(f"http://{endpoint['host']}:{endpoint['port']}/", timeout=_TIMEOUT) as answer:
        answer.raise_for_status()
        return msgspec.json.decode(await answer.read(), type=dict[str, str])


def processes_of(env_id: str) -> dict[int, dict[str, str]]:
    """Give the greeters of an environment that run on this machine, by their pids: what they were told."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            variables = _read_variables(folder)
            if variables.get("KEELSON_ENV_ID") == env_id:
                found[int(folder.name)] = variables
    return found


def _read_variables(folder: Path) -> dict[str, str]:
    try:
        if b"greeter.py" not in (folder / "cmdline").read_bytes():
            return {}
        pairs = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


class Watch:
    """Asks all that is said to be ready, again and again; `answered` has how many answered in each round.

    What is not answered by one that is not said to be ready any more just after says nothing of the platform, but of
    how old a view may be: such a round is left out, and counted as `stale`.
    """

    def __init__(self, client: Client, env_id: str) -> None:
        self._client = client
        self._env_id = env_id
        self.begun = asyncio.Event()
        self.answered: list[int] = []
        self.stale = 0
        self.releases: set[str] = set()

    async def run(self) -> None:
        """Ask until cancelled; while nobody says who is ready, those are asked who were."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            rows: list[InstanceRow] | None = None
            while True:
                listed = await self._read_ready()
                rows = rows if listed is None else listed
                if rows is not None:
                    self.begun.set()
                    await self._round(session, rows)
                await asyncio.sleep(_PAUSE_S)

    async def _round(self, session: aiohttp.ClientSession, rows: list[InstanceRow]) -> None:
        asked = [self._asks(session, row) for row in rows]
        silent = {row.id for row, answers in zip(rows, await asyncio.gather(*asked), strict=True) if not answers}
        if silent:
            still = await self._read_once_there()
            if not silent <= {row.id for row in still}:
                self.stale += 1
                return
        self.answered.append(len(rows) - len(silent))

    async def _asks(self, session: aiohttp.ClientSession, row: InstanceRow) -> bool:
        try:
            answer = await greet(session, msgspec.to_builtins((row.endpoints or {})["http"]))
        except (OSError, TimeoutError, aiohttp.ClientError):
            return False
        self.releases.add(answer["release"])
        return answer["instance"] == row.id

    async def _read_once_there(self) -> list[InstanceRow]:
        """Give what is said to be ready as soon as anybody says so."""
        while True:
            rows = await self._read_ready()
            if rows is not None:
                return rows
            await asyncio.sleep(_PAUSE_S)

    async def _read_ready(self) -> list[InstanceRow] | None:
        """Give what is said to be ready and to go on so; None where nobody says so just now."""
        try:
            async with asyncio.timeout(1):
                rows = [row async for row in self._client.instances.list(env_id=self._env_id, status="ready")]
        except (ClientError, TimeoutError):
            return None
        return [row for row in rows if row.desired_state == "running"]


@asynccontextmanager
async def watched(client: Client, env_id: str) -> AsyncIterator[Watch]:
    """Watch an environment while the block runs, which it does once it is known who is to be asked."""
    watch = Watch(client, env_id)
    watching = asyncio.create_task(watch.run())
    try:
        async with asyncio.timeout(_BEGUN_WITHIN_S):
            await watch.begun.wait()
        yield watch
    finally:
        watching.cancel()
        await asyncio.wait([watching])
    if not watching.cancelled() and (failure := watching.exception()):
        raise failure


async def all_answer(session: aiohttp.ClientSession, endpoints: Iterable[Any]) -> list[dict[str, str]]:
    """Ask all of these; raises what the first that does not answer raises."""
    return list(await asyncio.gather(*(greet(session, each) for each in endpoints)))
