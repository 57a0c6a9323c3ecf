"""What is to be looked at again and again, because the log does not tell it: heartbeats, the head, both services."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import aiohttp
import structlog

from keelson.client import Client
from keelson.client.reads.nodes import Node
from keelson.scheduler.heartbeats import Heartbeats

LOOK_EVERY_S = 1.0
LOOK_TIMEOUT_S = 2.0
# More than one look that fails, less than two: so long without an answer, agents may not have been answered either.
AWAY_AFTER_S = 5.0

_log = structlog.get_logger()


class Head(NamedTuple):
    """The end of the log."""

    epoch: str
    position: int


class Look(NamedTuple):
    """What one look saw: the end of the log before it, and when each node was last heard."""

    head: Head
    heartbeats: dict[str, datetime | None]


class Watcher:
    """Looks once a second, at both services.

    `trouble` says what does not answer; `good_since` is since when all does, but for less than AWAY_AFTER_S at a time.
    """

    def __init__(
        self,
        client: Client,
        command_url: str,
        *,
        heartbeats: Heartbeats,
        monotonic: Callable[[], float],
        on_look: Callable[[], None],
    ) -> None:
        self._client = client
        self._ready_url = f"{command_url.rstrip('/')}/readyz"
        self._heartbeats = heartbeats
        self._monotonic = monotonic
        self._on_look = on_look
        self.head: Head | None = None
        self.trouble: str | None = "neither service has answered yet"
        self.good_since: float | None = None
        self._answered_at: float | None = None

    async def run(self) -> None:
        """Look for ever."""
        timeout = aiohttp.ClientTimeout(total=LOOK_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                await self._look(session)
                self._on_look()
                await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self, session: aiohttp.ClientSession) -> None:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                look = await self._read(session)
        except Exception as error:  # noqa: BLE001 - a page of a proxy's, or whatever else is no answer of theirs
            self._miss(error)
            return
        now = self._answered_at = self._monotonic()
        if self.trouble is not None:
            _log.info("services_answer")
        if self.good_since is None:
            self.good_since = now
        self.trouble, self.head = None, look.head
        self._heartbeats.looked(now, look.heartbeats)

    def _miss(self, error: Exception) -> None:
        if self.trouble is None:
            _log.warning("services_away", error=str(error) or type(error).__name__)
        self.trouble = "the services do not answer"
        now = self._monotonic()
        if self._answered_at is None or now - self._answered_at >= AWAY_AFTER_S:
            self.good_since = None
        self._heartbeats.failed()

    async def _read(self, session: aiohttp.ClientSession) -> Look:
        async with session.get(self._ready_url) as response:
            response.raise_for_status()
        page = await self._client.get("/v1/events", order="desc", limit=1)
        nodes: list[Node] = [node async for node in self._client.nodes.list(limit=500)]
        return Look(_read_head(page.body["position"]), {node.id: node.heartbeat_at for node in nodes})


def _read_head(cursor: str) -> Head:
    epoch, _, position = cursor.partition("-")
    return Head(epoch, int(position))
