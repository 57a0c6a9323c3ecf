"""What requests look like, for OpenAPI: what other modules read and refuse, said so that clients are made of it."""

from functools import cache
from typing import Annotated, Any, Union, cast

import msgspec
from msgspec import Meta

from keelson.command.handlers import Handler
from keelson.command.headers import MAX_REASON_CHARACTERS, MAX_SEQ
from keelson.command.registry import HANDLERS
from keelson.command.requests import MAX_COMMANDS
from keelson.service.headers import MAX_WAIT_S

Reason = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_REASON_CHARACTERS,
        pattern=r"\S",
        description="why; UTF-8",
        examples=["ticket SHOP-118"],
    ),
]
Key = Annotated[
    str,
    Meta(
        pattern=r"^[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?$",
        description="the same key makes the same command take effect once",
        examples=["deploy-42"],
    ),
]
IfMatch = Annotated[
    str,
    Meta(
        pattern=r'^"(0|[1-9][0-9]{0,17})(\.[0-9a-z]{1,26})?"$',
        description="act only at this seq, or at that of this entity tag",
        examples=['"7"'],
    ),
]
Wait = Annotated[str, Meta(description=f"wait=<seconds> for the views, at most {MAX_WAIT_S}", examples=["wait=5"])]
CorrelationId = Annotated[
    str, Meta(pattern="^[A-Za-z0-9._-]{1,128}$", description="what all events of one undertaking have in common")
]
Causation = Annotated[int, Meta(ge=1, le=MAX_SEQ, description="the position of the event that caused this")]


class BundleHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """The same headers as clients write them, for OpenAPI: those that go with anything."""

    reason: Reason | None = msgspec.field(default=None, name="Keelson-Reason")
    idempotency_key: Key | None = msgspec.field(default=None, name="Idempotency-Key")
    prefer: Wait | None = msgspec.field(default=None, name="Prefer")
    correlation_id: CorrelationId | None = msgspec.field(default=None, name="Keelson-Correlation-Id")
    causation: Causation | None = msgspec.field(default=None, name="Keelson-Causation")
    traceparent: str | None = None


@cache
def documented_headers(*, has_target: bool, needs_reason: bool) -> type[BundleHeaders]:
    """Give what goes with one command: If-Match where it acts on what exists, a reason that some need."""
    fields: list[tuple[str, Any, Any]] = []
    if has_target:
        fields.append(("if_match", IfMatch | None, msgspec.field(default=None, name="If-Match")))
    if needs_reason:
        fields.append(("reason", Reason, msgspec.field(name="Keelson-Reason")))
    name = f"{'Target' if has_target else 'Creating'}{'Reasoned' if needs_reason else ''}Headers"
    made = msgspec.defstruct(name, fields, bases=(BundleHeaders,), frozen=True, kw_only=True)
    return cast("type[BundleHeaders]", made)


def documented_bundle() -> type[msgspec.Struct]:
    """Give a bundle in which each command has its own fields; `requests.Bundle` is what reads it."""
    members = tuple(_bundled(handler) for handler in HANDLERS.values())
    command: Any = Union[members]  # noqa: UP007 - made at run time
    fields = [("commands", Annotated[list[command], Meta(min_length=1, max_length=MAX_COMMANDS)])]
    return msgspec.defstruct("Bundle", fields, namespace=_saying(_BUNDLE), forbid_unknown_fields=True)


_BUNDLE = "Commands that succeed or fail as one, in order, later ones seeing earlier ones."


def _bundled(handler: Handler) -> type[msgspec.Struct]:
    fields: list[Any] = [("data", handler.command)]
    if handler.target is not None:
        fields.append(("if_match", Annotated[int, Meta(ge=0, le=MAX_SEQ)] | None, None))
    return msgspec.defstruct(
        f"Bundled{handler.command.__name__}",
        fields,
        namespace=_saying(handler.summary),
        tag_field="name",
        tag=handler.name,
        forbid_unknown_fields=True,
    )


def _saying(text: str) -> dict[str, Any]:
    return {"__doc__": text}
