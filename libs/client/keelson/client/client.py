"""The client of both APIs."""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

import msgspec

from keelson.client.answers import Answer, BundleAnswer, Response
from keelson.client.transport import Request, Transport

Param = str | int | bool | None


class Client:
    """Sends commands and reads what became of them; use as an async context manager, shared by many tasks.

    Whatever was not answered, or with 503, is sent again under the same key until `retry_for_s` have passed: a command
    takes effect at most once however often it is sent. Raises ProblemError and UnreachableError.
    """

    def __init__(
        self,
        command_url: str,
        query_url: str,
        token: str,
        *,
        timeout_s: float = 15.0,
        retry_for_s: float = 30.0,
        connections: int = 100,
    ) -> None:
        self._command_url = command_url.rstrip("/")
        self._query_url = query_url.rstrip("/")
        self._transport = Transport(token, timeout_s=timeout_s, retry_for_s=retry_for_s, connections=connections)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._transport.__aexit__(*exc_info)

    async def command(
        self,
        name: str,
        data: Mapping[str, Any],
        *,
        reason: str | None = None,
        key: str | None = None,
        if_match: int | None = None,
        wait_s: int | None = None,
    ) -> Answer:
        """Send a command; with `wait_s`, wait that long at most for the views to have it (see `Answer.projected`).

        Without a `key` one is minted, so that the repeats of this call are safe; give one to repeat the call itself.
        """
        headers = _command_headers(reason, key, wait_s)
        if if_match is not None:
            headers["If-Match"] = f'"{if_match}"'
        response = await self._post(f"/v1/commands/{name}", data, headers, wait_s)
        return msgspec.convert({**response.body, "epoch": response.headers.get("Keelson-Epoch")}, Answer)

    async def bundle(
        self,
        commands: Sequence[Mapping[str, Any]],
        *,
        reason: str | None = None,
        key: str | None = None,
        wait_s: int | None = None,
    ) -> BundleAnswer:
        """Send commands, each `{"name", "data", "if_match"?}`, that take effect together or not at all."""
        headers = _command_headers(reason, key, wait_s)
        response = await self._post("/v1/commands", {"commands": commands}, headers, wait_s)
        return msgspec.convert({**response.body, "epoch": response.headers.get("Keelson-Epoch")}, BundleAnswer)

    async def get(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        wait_s: int | None = None,
        **params: Param,
    ) -> Response:
        """Get a path of the query service; parameters that are None are left out, `wait_s` bounds `min_position`."""
        return await self._get(path, params, headers=headers or {}, wait_s=wait_s)

    async def read(self, collection: str, row_id: str, min_position: int | None = None) -> dict[str, Any]:
        """Give one row, with `min_position` as it is there or later; a deleted row has `deleted_at`."""
        response = await self.get(f"/v1/{collection}/{row_id}", min_position=min_position)
        return msgspec.convert(response.body, dict[str, Any])

    async def list(self, collection: str, **filters: Param) -> AsyncIterator[dict[str, Any]]:
        """Give all rows that match, in the order of their ids, a page at a time."""
        cursor: str | None = None
        while True:
            page = (await self._get(f"/v1/{collection}", {**filters, "cursor": cursor})).body
            for row in page["items"]:
                yield row
            cursor = page["next"]
            if cursor is None:
                return

    async def events(self, after: str | int | None = None, **filters: Param) -> AsyncIterator[dict[str, Any]]:
        """Give the events that match, from `after` (exclusive) to the log's present end; with `order="desc"` downwards.

        Each page reads on where the one before ended, found or not.
        """
        while True:
            page = (await self._get("/v1/events", {**filters, "after": after})).body
            for event in page["items"]:
                yield event
            after = page["next"]
            if after in (None, page["position"]):
                return

    async def _get(
        self,
        path: str,
        params: Mapping[str, Param],
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
        wait_s: int | None = None,
    ) -> Response:
        request = Request(
            "GET",
            f"{self._query_url}{path}",
            headers={**_prefer(wait_s), **headers},
            params={name: _text(value) for name, value in params.items() if value is not None},
            wait_s=wait_s or 0,
        )
        return await self._transport.send(request)

    async def _post(self, path: str, body: Mapping[str, Any], headers: dict[str, str], wait_s: int | None) -> Response:
        content = msgspec.json.encode(body)
        request = Request("POST", f"{self._command_url}{path}", headers=headers, body=content, wait_s=wait_s or 0)
        return await self._transport.send(request)


def _command_headers(reason: str | None, key: str | None, wait_s: int | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4()) if key is None else key}
    if reason is not None:
        headers["Keelson-Reason"] = reason
    return headers | _prefer(wait_s)


def _prefer(wait_s: int | None) -> dict[str, str]:
    return {} if wait_s is None else {"Prefer": f"wait={wait_s}"}


def _text(value: str | int) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
