"""From HTTP to a submission: what the published schemas and the headers' rules refuse never reaches a handler."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request

from keelson.access import Identity
from keelson.access.rights import ENROLLING
from keelson.command.handlers import Handler
from keelson.command.headers import MAX_SEQ, CommandHeaders, read_command_headers
from keelson.command.registry import HANDLERS
from keelson.command.submission import BUNDLE, Part, Submission
from keelson.log.decision import Context
from keelson.service.credentials import Caller
from keelson.service.json import decode_json, read_body, require_json
from keelson.service.problems import Problem
from keelson.service.validation import convert

MAX_COMMANDS = 100


class BundledCommand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One command of a bundle."""

    name: str
    data: dict[str, Any]
    if_match: Annotated[int, Meta(ge=0, le=MAX_SEQ)] | None = None


class Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Commands that succeed or fail as one, in order, later ones seeing earlier ones."""

    commands: Annotated[list[BundledCommand], Meta(min_length=1, max_length=MAX_COMMANDS)]


async def read_command(request: Request) -> tuple[Submission, CommandHeaders]:
    """Read the request for one command. Raises Problem."""
    handler = _handler_named(request.path_params["name"])
    headers = _read_headers(request)
    require_json(request.scope["headers"])
    command = convert(decode_json(await read_body(request)), handler.command)
    _require_reason(handler, headers)
    part = Part(handler, command, headers.if_match)
    _require_target(part, "If-Match")
    return await _submission(request, headers, handler.name, (part,)), headers


async def read_bundle(request: Request) -> tuple[Submission, CommandHeaders]:
    """Read the request for a bundle. Raises Problem, with the command's index where it is one command's."""
    headers = _read_headers(request)
    if headers.if_match is not None:
        raise Problem("invalid", "A bundle has an if_match in each command, and no header If-Match")
    require_json(request.scope["headers"])
    bundle = convert(decode_json(await read_body(request)), Bundle)
    parts = tuple(_read_part(index, bundled, headers) for index, bundled in enumerate(bundle.commands))
    return await _submission(request, headers, BUNDLE, parts), headers


def _read_part(index: int, bundled: BundledCommand, headers: CommandHeaders) -> Part:
    try:
        handler = _handler_named(bundled.name)
        command = convert(bundled.data, handler.command, at=f"/commands/{index}/data")
        _require_reason(handler, headers)
        part = Part(handler, command, bundled.if_match)
        _require_target(part, "if_match")
    except Problem as problem:
        problem.members["command_index"] = index
        raise
    return part


async def _find_sender(request: Request, parts: tuple[Part, ...]) -> Identity:
    """Give who sends it: the caller, or where a machine enrols, the one whose token is in the body.

    Raises UnauthenticatedError for a token that is not good.
    """
    caller: Caller = request.state.caller
    if len(parts) == 1 and parts[0].handler.name in ENROLLING:
        token = getattr(parts[0].command, "token", "")
        caller = await request.app.state.authenticator.authenticate(f"Bearer {token}")
    return caller.identity


async def _submission(request: Request, headers: CommandHeaders, name: str, parts: tuple[Part, ...]) -> Submission:
    sender = await _find_sender(request, parts)
    context = Context(
        actor=sender.actor,
        request_id=request.state.request_id,
        reason=headers.reason,
        correlation_id=headers.correlation_id,
        causation_id=headers.causation_id,
        traceparent=headers.traceparent,
    )
    return Submission(
        name=name,
        parts=parts,
        context=context,
        identity=sender,
        received_at=datetime.now(UTC),
        key=headers.idempotency_key,
    )


def require_no_parameters(request: Request) -> None:
    """Raise Problem `invalid` for a query string: nothing is ignored."""
    if request.scope["query_string"]:
        raise Problem("invalid", "There are no parameters here but headers and the body")


def _read_headers(request: Request) -> CommandHeaders:
    require_no_parameters(request)
    return read_command_headers(request.scope["headers"])


def _handler_named(name: str) -> Handler:
    handler = HANDLERS.get(name)
    if handler is None:
        raise Problem("unknown_command", f"There is no command {name}")
    return handler


def _require_reason(handler: Handler, headers: CommandHeaders) -> None:
    if handler.needs_reason and headers.reason is None:
        raise Problem("reason_required", f"{handler.name} needs the header Keelson-Reason")


def _require_target(part: Part, what: str) -> None:
    if part.if_match is not None and part.handler.target is None:
        raise Problem("invalid", f"{what} does not go with {part.handler.name}: what it creates has no seq yet")
