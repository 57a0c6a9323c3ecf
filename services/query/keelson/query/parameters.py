"""What reads may be asked, as structs: they validate, and OpenAPI is generated from them."""

import base64
import binascii
import re
from datetime import datetime
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from keelson.events.ids import read_aggregate_type
from keelson.query.places import PLACE_PATTERN
from keelson.service.headers import MAX_WAIT_S
from keelson.views import Relation

# What the API knows and this version has not built: answered 400 `not_supported`, never ignored.
NOT_BUILT = ("as_of",)
NOT_BUILT_OF_ACTIVITY = ("as_of", "since", "until", "order", "after", "correlation_id")

# The columns by which collections and the activity can be filtered, where a table has them.
COLLECTION_FILTERS = (
    *("org_id", "project_id", "app_id", "env_id", "node_id", "person_id"),
    *("name", "hostname", "role", "status", "state"),
)
ACTIVITY_FILTERS = (
    *("org_id", "project_id", "app_id", "env_id", "node_id"),
    *("aggregate_type", "aggregate_id", "type", "actor_id", "request_id"),
)

# Eighteen digits: what surely fits PostgreSQL's bigint.
_POSITION = re.compile(r"[1-9][0-9]{0,17}")

P = TypeVar("P", bound="PageParameters")

Limit = Annotated[int, Meta(ge=1, le=500, description="How many at most")]
MinPosition = Annotated[
    str,
    Meta(pattern=PLACE_PATTERN, description="Wait until what is read reflects this position, or `<epoch>-<position>`"),
]
After = Annotated[str, Meta(description="Go on after this place: a cursor `<epoch>-<position>`, or a position")]
Time = Annotated[datetime, Meta(tz=True, description="RFC 3339, with its offset")]


class ReadParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What every read takes."""

    min_position: MinPosition | None = None


class PageParameters(ReadParameters, frozen=True, kw_only=True):
    """What every page of a view takes; the filters of its table are added by `filtered_by`."""

    limit: Limit = 100
    cursor: Annotated[str, Meta(description="The `next` of the page before")] | None = None


class CollectionParameters(PageParameters, frozen=True, kw_only=True):
    """What every collection takes."""

    deleted: Annotated[bool, Meta(description="Whether deleted ones are listed too")] = False


class EventsParameters(ReadParameters, frozen=True, kw_only=True):
    """What the audit log takes. `after` is exclusive, and means below where the order is descending."""

    after: After | None = None
    wait: (
        Annotated[int, Meta(ge=1, le=MAX_WAIT_S, description="Wait so many seconds for something to match")] | None
    ) = None
    limit: Limit = 100
    order: Literal["asc", "desc"] = "asc"
    org_id: str | None = None
    project_id: str | None = None
    app_id: str | None = None
    env_id: str | None = None
    node_id: str | None = None
    aggregate_type: str | None = None
    aggregate_id: str | None = None
    type: str | None = None
    actor_id: str | None = None
    request_id: str | None = None
    correlation_id: str | None = None
    since: Time | None = None
    until: Time | None = None


class DesiredParameters(ReadParameters, frozen=True, kw_only=True):
    """What desired state takes."""

    after: Annotated[str, Meta(description="The version that is known: `<epoch>-<version>`, or a version")] | None = (
        None
    )
    wait: (
        Annotated[int, Meta(ge=1, le=MAX_WAIT_S, description="Wait so many seconds for a version greater than `after`")]
        | None
    ) = None


class EventsHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """What the change feed understands."""

    last_event_id: Annotated[str, Meta(description="Of a stream: the last `id` that the client has had")] | None = (
        msgspec.field(default=None, name="Last-Event-ID")
    )


class HistoryParameters(ReadParameters, frozen=True, kw_only=True):
    """What the history of an aggregate takes."""

    after: Annotated[int, Meta(ge=0, le=2**63 - 1, description="Go on after this seq")] = 0
    limit: Limit = 100


class NoParameters(msgspec.Struct, frozen=True):
    """What takes nothing."""


class ViewHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """What every read of a view understands."""

    prefer: (
        Annotated[str, Meta(description=f"wait=<seconds> for min_position, at most {MAX_WAIT_S}", examples=["wait=5"])]
        | None
    ) = msgspec.field(default=None, name="Prefer")


class DesiredHeaders(ViewHeaders, frozen=True, kw_only=True):
    """What desired state understands."""

    last_event_id: Annotated[str, Meta(description="Of a stream: the last `id` that the client has had")] | None = (
        msgspec.field(default=None, name="Last-Event-ID")
    )


class RowHeaders(ViewHeaders, frozen=True, kw_only=True):
    """What a read of one row understands."""

    if_none_match: Annotated[str, Meta(description="ETags that the client has", examples=['"3"'])] | None = (
        msgspec.field(default=None, name="If-None-Match")
    )


def filtered_by(base: type[P], table: Relation, names: tuple[str, ...]) -> type[P]:
    """Give the parameters of a table's pages: the base's, and a filter per column of these names that it has."""
    types = {field.name: field.type for field in msgspec.structs.fields(table.row)}
    fields = [(name, _without_none(types[name]) | UnsetType, UNSET) for name in names if name in types]
    title = f"{table.name.title().replace('_', '')}Parameters"
    return cast("type[P]", msgspec.defstruct(title, fields, bases=(base,), frozen=True, kw_only=True))


def _without_none(type_: Any) -> Any:
    """Leave None out of a union: msgspec would read the text "null" as it."""
    given = tuple(each for each in get_args(type_) if each is not NoneType)
    return Union[given] if NoneType in get_args(type_) else type_  # noqa: UP007 - made at run time


def read_filters(parameters: PageParameters, names: tuple[str, ...]) -> dict[str, Any]:
    """Give the filters that were asked for, and their values."""
    values = {name: getattr(parameters, name, UNSET) for name in names}
    return {name: value for name, value in values.items() if value is not UNSET}


def write_key_cursor(key: str) -> str:
    """Give the opaque cursor that goes on after a row."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def read_key_cursor(cursor: str) -> str | None:
    """Give the id that a cursor goes on after; None if it is not one of ours."""
    key = _decode_cursor(cursor)
    return key if key is not None and read_aggregate_type(key) is not None else None


def read_position_cursor(cursor: str) -> int | None:
    """Give the position that a cursor goes on below; None if it is not one of ours."""
    key = _decode_cursor(cursor)
    return int(key) if key is not None and _POSITION.fullmatch(key) else None


def _decode_cursor(cursor: str) -> str | None:
    try:
        key = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return key if write_key_cursor(key) == cursor else None
