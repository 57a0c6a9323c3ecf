"""The tail: waits until the log may hold more, woken by NOTIFY, with a poll as a net."""

import asyncio
from contextlib import suppress

from keelson.log.listen import Listener

LOG_CHANNEL = "keelson_log"


class Tail:
    """Waits for positions, for one reader of the log.

    Any number of notifications sets one flag (F22); a lost one costs at most `poll_interval_s` (F19). The reader reads
    until it is caught up and only then waits: what is appended meanwhile ends the wait at once.
    """

    def __init__(self, listener: Listener, *, poll_interval_s: float = 1.0) -> None:
        self._poll_interval_s = poll_interval_s
        self._notified = asyncio.Event()
        self._heard = 0
        self._look_now = False
        listener.subscribe(self._hear, LOG_CHANNEL)

    async def wait_beyond(self, position: int) -> None:
        """Return when the log may hold more than `position`: notified, listening anew, or the interval has passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._poll_interval_s):
                while self._heard <= position and not self._look_now:
                    self._notified.clear()
                    await self._notified.wait()
        # Forgotten once used: after a restore the log may stand below what was heard.
        self._heard, self._look_now = 0, False

    def _hear(self, payload: str) -> None:
        # Any role may notify any channel: what is no position says no more than "look".
        if payload.isdecimal():
            self._heard = max(self._heard, int(payload))
        else:
            self._look_now = True
        self._notified.set()
