"""Health of a process: asked over HTTP or TCP, at the address by which others reach it."""

import asyncio
import contextlib
from collections.abc import Mapping

import aiohttp

from keelson.agent.driver import Address
from keelson.client.reads.nodes import InstanceSpec

# Until it is ready for the first time, an instance is asked often: others wait for it.
_BOOTING_INTERVAL_S = 0.2
# One that has not answered well is asked again soon: three times in a row, and it is unhealthy.
_MISSED_INTERVAL_S = 1.0
_MISSES = 3
_CONNECT_TIMEOUT_S = 2.0
# One without ports shows only by staying alive that it is ready.
_SETTLED_S = 0.5
_FIRST_ERROR = 400


class Health:
    """How to know whether an instance is well.

    It is ready once its health check succeeds; one without a check once all of its ports accept connections, and one
    without ports once it has lived for half a second. Afterwards only a health check can find it unhealthy.
    """

    def __init__(self, spec: InstanceSpec, endpoints: Mapping[str, Address]) -> None:
        self._check = spec.health
        self._endpoints = endpoints

    async def wait_until_ready(self) -> None:
        """Return when it is ready; as long as it is not, wait."""
        if not self._endpoints:
            await asyncio.sleep(_SETTLED_S)
            return
        while True:
            if await self._ask() is None:
                return
            await asyncio.sleep(_BOOTING_INTERVAL_S)

    async def wait_until_unhealthy(self) -> str:
        """Return what is wrong when it has not been well three times in a row; without a check, wait for ever."""
        if self._check is None:
            await asyncio.Event().wait()
            raise AssertionError("an event that nobody sets")
        misses, wait_s = 0, float(self._check.interval_s)
        while True:
            await asyncio.sleep(wait_s)
            wrong = await self._ask()
            misses = 0 if wrong is None else misses + 1
            if wrong is not None and misses >= _MISSES:
                return wrong
            wait_s = self._check.interval_s if wrong is None else min(self._check.interval_s, _MISSED_INTERVAL_S)

    async def _ask(self) -> str | None:
        """Ask once: None if it is well, else what is wrong."""
        check = self._check
        if check is None:
            asked = [await connect(address, _CONNECT_TIMEOUT_S) for address in self._endpoints.values()]
            return next((wrong for wrong in asked if wrong is not None), None)
        address = self._endpoints[check.port]
        if check.path is None:
            return await connect(address, check.timeout_s)
        return await get(address, check.path, check.timeout_s)


async def connect(address: Address, timeout_s: float) -> str | None:
    """Connect and part again; give what went wrong, if anything."""
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except TimeoutError:
        return f"port {address.port} did not accept a connection within {timeout_s:g} s"
    except OSError as error:
        return f"port {address.port} does not accept connections ({type(error).__name__})"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return None


async def get(address: Address, path: str, timeout_s: float) -> str | None:
    """Get a path, following nothing; 2xx and 3xx are well. Give what went wrong, if anything."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    connector = aiohttp.TCPConnector(force_close=True)
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(f"http://{host}:{address.port}{path}", allow_redirects=False) as response,
        ):
            return None if response.status < _FIRST_ERROR else f"the health check answered {response.status}"
    except TimeoutError:
        return f"the health check did not answer within {timeout_s:g} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"the health check failed ({type(error).__name__})"
