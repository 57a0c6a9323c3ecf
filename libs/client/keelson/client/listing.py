"""Reads as typed rows: one answer, or pages that are read on as they are iterated over."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from keelson.client.answers import Response, understanding
from keelson.events.ids import Position

T = TypeVar("T")

Param = str | int | bool | datetime | None


class Rows(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """All rows there are, and the position that they reflect."""

    items: tuple[T, ...]
    position: Position


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Some rows in order, and the position that they reflect; `next` is where to go on, None at the end."""

    items: tuple[T, ...]
    next: str | None
    position: Position


class Reader(Protocol):
    """Reads paths of the query service, and posts what is no command."""

    async def read_path(self, path: str, params: Mapping[str, Param], *, wait_s: int | None = None) -> Response:
        """Get a path; raises what `Client` says."""

    async def post_path(self, path: str, body: msgspec.Struct) -> Response:
        """Post to a path of the command service that is no command; raises what `Client` says."""


class Listing(Generic[T]):
    """Rows of a collection, each read once, in order: iterate over it for rows, over `pages()` for pages.

    Nothing is read before it is iterated over. Each page reads on where the one before ended, so that rows which come
    and go meanwhile neither repeat nor hide others; a page of the log may be empty and have others after it.
    """

    def __init__(
        self,
        reader: Reader,
        row_type: type[T],
        path: str,
        params: Mapping[str, Param],
        *,
        place: str,
        wait_s: int | None,
    ) -> None:
        self._reader = reader
        self._row_type = row_type
        self._path = path
        self._place = place
        self._wait_s = wait_s
        self._params = params

    async def __aiter__(self) -> AsyncIterator[T]:
        """Go over all rows."""
        async for page in self.pages():
            for row in page.items:
                yield row

    async def pages(self) -> AsyncIterator[Page[T]]:
        """Go over the pages."""
        place = self._params.get(self._place)
        while True:
            page = await self._read(place)
            yield page
            if page.next is None:
                return
            place = page.next

    async def _read(self, place: Param) -> Page[T]:
        response = await self._reader.read_path(self._path, {**self._params, self._place: place}, wait_s=self._wait_s)
        with understanding():
            following = response.body["next"]
            # The log has no last page: a reader has all of it for now when the next place is the head.
            ended = following is None or (isinstance(following, str) and following == response.body["position"])
            return Page(
                items=msgspec.convert(response.body["items"], tuple[self._row_type, ...]),  # type: ignore[name-defined]
                next=None if ended else str(following),
                position=response.position,
            )


async def read_one(
    reader: Reader, answer_type: type[T], path: str, params: Mapping[str, Param], *, wait_s: int | None = None
) -> T:
    """Read a path whose answer is one struct."""
    response = await reader.read_path(path, params, wait_s=wait_s)
    with understanding():
        return msgspec.convert(response.body, answer_type)


async def post_one(reader: Reader, answer_type: type[T], path: str, body: msgspec.Struct) -> T:
    """Post to a path whose answer is one struct."""
    response = await reader.post_path(path, body)
    with understanding():
        return msgspec.convert(response.body, answer_type)


def segment(text: str) -> str:
    """Write a text as one segment of a path, whatever is in it."""
    return quote(text, safe="")


def text_of(value: Any) -> str:
    """Write a parameter as it stands in a query string."""
    match value:
        case bool():
            return str(value).lower()
        case datetime():
            return value.isoformat()
        case _:
            return str(value)
