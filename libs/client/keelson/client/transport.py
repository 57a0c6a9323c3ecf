"""Requests over HTTP that are repeated, within bounds, while a service is away."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self

import aiohttp
import msgspec
import stamina

from keelson.client.answers import Response
from keelson.client.errors import ClientError, ProblemError, UnreachableError, UnsendableError

# Nothing was done and nothing promised: the same request may be sent again.
RETRYABLE = frozenset({429, 503})
# What no header may hold: all control characters but the tab (RFC 9110, 5.5), and half a character.
_NO_HEADER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
# What is no HTTP, or leads nowhere, is no answer either: something else is where the service was, or in between.
NO_ANSWER = (
    aiohttp.ClientConnectionError,
    aiohttp.ClientPayloadError,
    aiohttp.ClientResponseError,
    aiohttp.RedirectClientError,
    TimeoutError,
)


class Request(NamedTuple):
    """What to send; the same bytes at every attempt."""

    method: str
    url: str
    headers: dict[str, str]
    params: dict[str, str] | None = None
    body: bytes | None = None
    wait_s: int = 0


class Transport:
    """Sends requests with a bearer token; use as an async context manager.

    An attempt may take `timeout_s` beyond what its request asks the service to wait; attempts begin until
    `retry_for_s` have passed.
    """

    def __init__(self, token: str, *, timeout_s: float, retry_for_s: float, connections: int) -> None:
        self._headers = {"Authorization": f"Bearer {token}"}
        self._timeout_s = timeout_s
        self._retry_for_s = retry_for_s
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._streams: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = self._new_session(self._connections)
        # A stream has its connection to itself for as long as it lasts: it takes none of those that are shared.
        self._streams = self._new_session(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in (self._session, self._streams):
            if session is not None:
                await session.close()

    def _new_session(self, connections: int) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(limit=connections),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def send(self, request: Request) -> Response:
        """Send until answered.

        What is no HTTP or no JSON, such as a page of a proxy, is no answer. Raises ProblemError for a refusal,
        UnreachableError when no attempt was answered, and UnsendableError.
        """
        _require_headers(request.headers)
        attempts = stamina.retry_context(
            on=_backoff,
            attempts=None,
            timeout=self._retry_for_s,
            wait_initial=0.05,
            wait_max=2.0,
            wait_jitter=0.1,
        )
        async for attempt in attempts:
            with attempt:
                return await self._send_once(request)
        raise AssertionError("stamina raises the last error")

    @asynccontextmanager
    async def stream(self, request: Request, idle_timeout_s: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open an answer that need not end, once, and give its bytes as they come.

        Raises ProblemError for a refusal; UnreachableError, here and for whoever reads, when there is no answer, it is
        no stream, it breaks off, or nothing comes for `idle_timeout_s`.
        """
        if self._streams is None:
            raise RuntimeError("use `async with`")
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s, sock_read=idle_timeout_s)
        try:
            async with self._streams.request(
                request.method, request.url, headers=request.headers, params=request.params, timeout=timeout
            ) as response:
                if response.status >= 400:  # noqa: PLR2004 - from here on, problems
                    raise _problem(response, await response.read())
                if response.content_type != "text/event-stream":
                    raise UnreachableError(f"{request.url}: an answer of {response.content_type}, which is no stream")
                yield response.content.iter_any()
        except NO_ANSWER as error:
            raise _unreachable(request, error) from error

    async def _send_once(self, request: Request) -> Response:
        if self._session is None:
            raise RuntimeError("use `async with`")
        timeout = aiohttp.ClientTimeout(total=self._timeout_s + request.wait_s)
        try:
            async with self._session.request(
                request.method,
                request.url,
                headers=request.headers,
                params=request.params,
                data=request.body,
                timeout=timeout,
            ) as response:
                return _read(response, await response.read())
        except NO_ANSWER as error:
            raise _unreachable(request, error) from error


def _require_headers(headers: dict[str, str]) -> None:
    for name, value in headers.items():
        if _NO_HEADER.search(value):
            raise UnsendableError(f"{name} must be one line of text, without control characters")


def _unreachable(request: Request, error: Exception) -> UnreachableError:
    return UnreachableError(f"{request.method} {request.url}: {str(error) or type(error).__name__}")


def _read(response: aiohttp.ClientResponse, content: bytes) -> Response:
    if response.status >= 400:  # noqa: PLR2004 - from here on, problems
        raise _problem(response, content)
    try:
        body = msgspec.json.decode(content) if content else None
    except msgspec.MsgspecError as error:
        raise UnreachableError(f"{response.method} {response.url}: an answer that is no JSON") from error
    return Response(status=response.status, headers=response.headers, body=body)


def _problem(response: aiohttp.ClientResponse, content: bytes) -> ProblemError:
    """Read a problem; what is none (a proxy's page) is kept by its status alone."""
    try:
        body = msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.MsgspecError:
        body = {}
    return ProblemError(
        status=response.status,
        code=str(body.get("code", "")),
        detail=str(body.get("detail", response.reason)),
        body=body,
        retry_after_s=_read_retry_after(response.headers.get("Retry-After")),
        epoch=response.headers.get("Keelson-Epoch"),
    )


def _read_retry_after(header: str | None) -> float | None:
    return float(header) if header is not None and header.isdecimal() else None


def _backoff(error: Exception) -> bool | float:
    """Say whether to try again: as the service asks where it says when, else as stamina spaces it."""
    match error:
        case ProblemError(status=status, retry_after_s=retry_after_s) if status in RETRYABLE:
            return retry_after_s or True
        case ClientError():
            return isinstance(error, UnreachableError)
    return False
