"""A connection of one's own that listens, and is replaced when it dies, also when it dies silently (F19, F20)."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import asyncpg
import structlog

from keelson.log.database import UNAVAILABLE, connect_unnamed
from keelson.log.epochs import Epochs
from keelson.log.queries import load

log = structlog.get_logger()

_PROBE = load(__file__, "probe")

Callback = Callable[[str], None]

# Whatever the server says to a connection, LISTEN or a probe, it is not listening: no password yet, no database.
_LOST: tuple[type[BaseException], ...] = (*UNAVAILABLE, asyncpg.InterfaceError, asyncpg.PostgresError)


class Listener:
    """Hears channels and tells their subscribers.

    A callback gets each notification's payload, and "" after every (re)connection, which means: look now, something
    may have been missed. It must not block. Notifications are hints: whoever needs more polls as well.

    asyncpg sets no TCP keep-alive, so that a black-holed connection looks open for ever: each `probe_interval_s` the
    connection must answer within `probe_timeout_s`, or is terminated (closing it politely would hang too) and replaced,
    after `reconnect_delay_s`. `on_lost` is called each time that one was lost, or could not be had.

    A server that was replaced and lives on would answer for ever too, and have nothing to tell: by `epochs`, what the
    process knows of them, it is left, and not listened to again (F26).
    """

    def __init__(
        self,
        dsn: str,
        *channels: str,
        application_name: str = "keelson-listener",
        epochs: Epochs | None = None,
        probe_interval_s: float = 5.0,
        probe_timeout_s: float = 2.0,
        reconnect_delay_s: float = 0.5,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._dsn = dsn
        self._channels = channels
        self._application_name = application_name
        self._probe_interval_s = probe_interval_s
        self._probe_timeout_s = probe_timeout_s
        self._reconnect_delay_s = reconnect_delay_s
        self._on_lost = on_lost
        self._epochs = epochs or Epochs()
        self._doubted = asyncio.Event()
        self._epochs.on_change(lambda _: self._doubted.set())
        self._subscribers: dict[str, list[Callback]] = {channel: [] for channel in channels}
        self.connected = False

    def subscribe(self, callback: Callback, channel: str | None = None) -> None:
        """Tell this callback too, from now on, of what comes by a channel: the first, unless another is named."""
        self._subscribers[channel or self._channels[0]].append(callback)

    async def run(self) -> None:
        """Listen until cancelled, whatever happens to the connection."""
        while True:
            try:
                await self._listen()
            except _LOST as error:
                log.warning("listener_lost", channels=self._channels, error=type(error).__name__)
                self._on_lost()
            await asyncio.sleep(self._reconnect_delay_s)

    async def _listen(self) -> None:
        """Listen on one connection until it fails; raises what it failed with."""
        # Behind a pooler that lends sessions LISTEN is lost, and so would be, or meet its like, what has a name (F21).
        connection = await connect_unnamed(self._dsn, application_name=self._application_name)
        try:
            connection.add_termination_listener(lambda _: self._doubted.set())
            async with asyncio.timeout(self._probe_timeout_s):
                await self._probe(connection)
                for channel in self._channels:
                    await connection.add_listener(channel, self._hear)
            self.connected = True
            # After LISTEN, and only then: what was appended before it would never be notified.
            for channel in self._channels:
                self._tell("", channel)
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._probe_interval_s):
                        await self._doubted.wait()
                self._doubted.clear()
                await self._probe(connection)
        finally:
            self.connected = False
            connection.terminate()

    async def _probe(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Have the connection answer, from a log in an epoch that has not ended; a closed one raises as well."""
        self._epochs.refuse_ended(await connection.fetchval(_PROBE, timeout=self._probe_timeout_s))

    def _hear(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        self._tell(str(payload), channel)

    def _tell(self, payload: str, channel: str | None = None) -> None:
        for callback in self._subscribers[channel or self._channels[0]]:
            callback(payload)
