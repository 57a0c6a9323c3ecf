"""The client of both APIs."""

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self, TypeVar, Unpack

import msgspec

from keelson.client.answers import Answer, Response, understanding
from keelson.client.bundle import BundleAnswer, Part, read_answer, write_part
from keelson.client.command import Command, Options
from keelson.client.commands import Commands
from keelson.client.following import StreamTimes, follow
from keelson.client.listing import Param, segment, text_of
from keelson.client.reads import Reads
from keelson.client.stream import DesiredItem, DesiredReader, FeedFilters, FeedItem, FeedReader, Resync
from keelson.client.transport import Request, Transport

R = TypeVar("R")


class Client(Commands, Reads):
    """Sends commands and reads what became of them; use as an async context manager, shared by many tasks.

    Commands are methods by what they act on (`client.app.create(…)`), reads by collection (`client.apps.list(…)`).
    Whatever was not answered, or with 503, is sent again under the same key until `retry_for_s` have passed: a command
    takes effect at most once however often it is sent. Raises ProblemError and UnreachableError, and
    UnsendableError for a reason or another header that is no line of text.
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
        stream_times: StreamTimes | None = None,
    ) -> None:
        Commands.__init__(self, self)
        Reads.__init__(self, self)
        self._command_url = command_url.rstrip("/")
        self._query_url = query_url.rstrip("/")
        self._transport = Transport(token, timeout_s=timeout_s, retry_for_s=retry_for_s, connections=connections)
        self._stream_times = stream_times or StreamTimes()

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._transport.__aexit__(*exc_info)

    async def send(
        self,
        command: Command[R],
        *,
        reason: str | None = None,
        if_match: int | None = None,
        **options: Unpack[Options],
    ) -> Answer[R]:
        """Send a typed command: what the methods by name do."""
        response = await self._post(f"/v1/commands/{command.command_name}", command, reason, if_match, options)
        with understanding():
            answer: Answer[R] = msgspec.convert(_with_epoch(response), Answer[command.result_type])  # type: ignore[name-defined]
        return answer

    async def command(
        self,
        name: str,
        data: Mapping[str, Any],
        *,
        reason: str | None = None,
        if_match: int | None = None,
        **options: Unpack[Options],
    ) -> Answer[dict[str, Any]]:
        """Send a command by its name, untyped: for tools, and for commands that are newer than this client."""
        response = await self._post(f"/v1/commands/{name}", data, reason, if_match, options)
        with understanding():
            return msgspec.convert(_with_epoch(response), Answer[dict[str, Any]])

    async def bundle(
        self,
        commands: Sequence[Part],
        *,
        reason: str | None = None,
        **options: Unpack[Options],
    ) -> BundleAnswer:
        """Send commands that take effect together or not at all, later ones seeing earlier ones.

        Each is typed (with `.at(seq)` for an If-Match of its own), and then so is its result, or a mapping of `name`,
        `data` and, if wanted, `if_match`.
        """
        body = {"commands": [write_part(command) for command in commands]}
        response = await self._post("/v1/commands", body, reason, None, options)
        with understanding():
            return read_answer(commands, _with_epoch(response))

    async def get(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        wait_s: int | None = None,
        **params: Param,
    ) -> Response:
        """Get a path of the query service; parameters that are None are left out.

        `wait_s` bounds `min_position`; the parameter `wait` holds the answer back, where a path knows it. Both are
        waited for.
        """
        return await self.read_path(path, params, headers=headers, wait_s=wait_s)

    async def read_path(
        self,
        path: str,
        params: Mapping[str, Param],
        *,
        headers: Mapping[str, str] | None = None,
        wait_s: int | None = None,
    ) -> Response:
        """Do what `get` does, its parameters being a mapping."""
        request = Request(
            "GET",
            f"{self._query_url}{path}",
            headers={**_prefer(wait_s), **(headers or {})},
            params={name: text_of(value) for name, value in params.items() if value is not None},
            wait_s=(wait_s or 0) + _held_s(params),
        )
        return await self._transport.send(request)

    async def post_path(self, path: str, body: msgspec.Struct) -> Response:
        """Post to a path of the command service that is no command, such as a heartbeat: no key, no reason, no wait."""
        headers = {"Content-Type": "application/json"}
        request = Request("POST", f"{self._command_url}{path}", headers=headers, body=msgspec.json.encode(body))
        return await self._transport.send(request)

    async def read(self, collection: str, row_id: str, min_position: int | None = None) -> dict[str, Any]:
        """Give one row, untyped, with `min_position` as it is there or later; a deleted row has `deleted_at`."""
        response = await self.get(f"/v1/{collection}/{row_id}", min_position=min_position)
        with understanding():
            return msgspec.convert(response.body, dict[str, Any])

    async def list(self, collection: str, **filters: Param) -> AsyncIterator[dict[str, Any]]:
        """Give all rows that match, untyped, in the order of their ids, a page at a time."""
        cursor: Param = None
        while True:
            page = await self.read_path(f"/v1/{collection}", {**filters, "cursor": cursor})
            with understanding():
                rows, cursor = page.body["items"], page.body["next"]
            for row in rows:
                yield row
            if cursor is None:
                return

    async def follow_events(
        self, after: str | int | None = None, *, stop_on_resync: bool = False, **filters: Unpack[FeedFilters]
    ) -> AsyncGenerator[FeedItem, None]:
        """Follow the log for ever, after a cursor or a position or from the beginning: what matches, and bookmarks.

        Ordered, nothing twice, nothing left out, a command's events in one go, over as many connections as it takes. A
        Resync says that the log is another; then it begins anew, or ends with `stop_on_resync`. Raises ProblemError for
        a refusal that stands. Whoever does not read it to its end closes it (`contextlib.aclosing`); a time-out around
        one turn ends it.
        """
        reader = FeedReader(None if after is None else str(after))
        params = {name: str(value) for name, value in filters.items() if value is not None}
        url = f"{self._query_url}/v1/events"
        async with aclosing(follow(self._transport, url, params, reader, self._stream_times)) as items:
            async for item in items:
                yield item
                if stop_on_resync and isinstance(item, Resync):
                    return

    def follow_desired(
        self, node_id: str, known: str | None = None, digest: str | None = None
    ) -> AsyncGenerator[DesiredItem, None]:
        """Follow what a node should be doing, for ever: each version that is new, and that the last one still stands.

        `known` is the cursor of what the node has already, which is then not given again; with its `digest` it is if
        the version says something else by now, as after a rebuild of the view. A snapshot is all there is, its digest
        verified; versions grow, but in another epoch, whose first snapshot is always given. Raises as `follow_events`
        does, and is closed as it.
        """
        url = f"{self._query_url}/v1/nodes/{segment(node_id)}/desired"
        return follow(self._transport, url, {}, DesiredReader(known, digest), self._stream_times)

    async def _post(
        self, path: str, body: object, reason: str | None, if_match: int | None, options: Options
    ) -> Response:
        wait_s = options.get("wait_s")
        request = Request(
            "POST",
            f"{self._command_url}{path}",
            headers=_command_headers(reason, if_match, options) | _prefer(wait_s),
            body=msgspec.json.encode(body),
            wait_s=wait_s or 0,
        )
        return await self._transport.send(request)


def _command_headers(reason: str | None, if_match: int | None, options: Options) -> dict[str, str]:
    key = options.get("idempotency_key")
    given = {
        "Content-Type": "application/json",
        "Idempotency-Key": str(uuid.uuid4()) if key is None else key,
        "Keelson-Reason": reason,
        "If-Match": None if if_match is None else f'"{if_match}"',
        "Keelson-Correlation-Id": options.get("correlation_id"),
        "Keelson-Causation": options.get("causation"),
    }
    return {name: str(value) for name, value in given.items() if value is not None}


def _prefer(wait_s: int | None) -> dict[str, str]:
    return {} if wait_s is None else {"Prefer": f"wait={wait_s}"}


def _held_s(params: Mapping[str, Param]) -> int:
    """Give the seconds for which an answer is held back as its `wait` asks; what is no number the service refuses."""
    wait = text_of(params.get("wait"))
    return int(wait) if wait.isdecimal() else 0


def _with_epoch(response: Response) -> dict[str, Any]:
    return {**response.body, "epoch": response.headers.get("Keelson-Epoch")}
