"""The paths of the command service."""

from typing import Any, Generic, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from keelson.access.rights import ENROLLING
from keelson.command import heartbeats
from keelson.command.documents import BundleHeaders, documented_bundle, documented_headers
from keelson.command.handlers import Handler
from keelson.command.headers import CommandHeaders
from keelson.command.refusal import Refusal
from keelson.command.registry import HANDLERS
from keelson.command.requests import read_bundle, read_command, require_no_parameters
from keelson.command.submission import BUNDLE, Answer, EventReference, PartAnswer, Submission
from keelson.log.append import AppendUnavailableError
from keelson.service.credentials import UnauthenticatedError
from keelson.service.headers import require_known
from keelson.service.json import JsonResponse
from keelson.service.openapi import Operation
from keelson.service.problems import FieldError, Problem, declare_rule, unavailable
from keelson.service.routing import Route
from keelson.views import PROJECTIONS

RULES = (
    declare_rule("quota_exceeded", "It would be more than the quota allows"),
    declare_rule("invalid_transition", "It cannot go from its status to that one"),
    declare_rule("wrong_app", "The release and the environment are of different apps"),
    declare_rule("unknown_process", "The release has no such process"),
    declare_rule("unknown_port", "The process has no such port"),
    declare_rule("last_owner", "It is the only owner of its organisation"),
    declare_rule("bad_expiry", "The expiry is not in the future, or too far in it"),
    declare_rule("wrong_scope", "The scope is not one for this principal"),
    declare_rule("no_capacity", "The node has not so much memory left"),
    declare_rule("node_not_active", "The node does not take instances"),
    declare_rule("wrong_endpoints", "The endpoints are not those of exactly the instance's ports"),
    declare_rule("instance_stopped", "The instance has stopped, or should"),
    declare_rule("secret_too_large", "All values of the secret together would be too large"),
    declare_rule("cannot_restore", "What it was then cannot be had any more"),
    declare_rule("route_would_break", "The release lacks a process or a port that a route leads to"),
)

# What comes to these paths is from whom its body says: a machine enrols by a token for just that.
TOKENLESS = frozenset(f"/v1/commands/{name}" for name in ENROLLING)

_REFUSALS = (
    "forbidden",
    "malformed",
    "invalid",
    "reason_required",
    "not_supported",
    "unsupported_media_type",
    "timeout",
    "not_found",
    "name_taken",
    "id_taken",
    "in_use",
    "concurrent_change",
    "idempotency_key_reuse",
    "seq_mismatch",
    *RULES,
)

R = TypeVar("R")


class CommandAnswer(msgspec.Struct, Generic[R], frozen=True):
    """What became of a command; `projected` is true once the views have it, if that was waited for."""

    position: int
    changed: bool
    projected: bool
    result: R
    events: list[EventReference]


class BundleAnswer(msgspec.Struct, frozen=True):
    """What became of a bundle, command by command."""

    position: int
    changed: bool
    projected: bool
    results: list[PartAnswer]


class CommandSummary(msgspec.Struct, frozen=True):
    """A command that this service knows; `schema` is the JSON Schema of its body."""

    name: str
    summary: str
    schema: dict[str, Any]


class CommandList(msgspec.Struct, frozen=True):
    """All commands."""

    items: list[CommandSummary]


async def post_command(request: Request) -> Response:
    """Answer one command."""
    submission, headers = await read_command(request)
    answer, projected = await _decide(request, submission, headers)
    part = answer.parts[0]
    content = CommandAnswer(answer.position, part.changed, projected, part.result, part.events)
    return _respond(content, answer, headers)


async def post_bundle(request: Request) -> Response:
    """Answer a bundle."""
    submission, headers = await read_bundle(request)
    answer, projected = await _decide(request, submission, headers)
    return _respond(BundleAnswer(answer.position, answer.changed, projected, answer.parts), answer, headers)


async def list_commands(request: Request) -> Response:
    """Answer with all commands."""
    require_no_parameters(request)
    require_known(request.scope["headers"])
    return JsonResponse(_COMMANDS)


async def _decide(request: Request, submission: Submission, headers: CommandHeaders) -> tuple[Answer, bool]:
    try:
        answer = await request.app.state.decider.decide(submission)
    except Refusal as refusal:
        if refusal.code == "unauthenticated":
            raise UnauthenticatedError from None
        index = refusal.command_index if submission.name == BUNDLE else None
        members: dict[str, Any] = {} if index is None else {"command_index": index}
        errors = [FieldError(reason.pointer, reason.detail) for reason in refusal.reasons]
        raise Problem(refusal.code, refusal.detail, errors=errors, **members) from None
    except AppendUnavailableError:
        raise unavailable("The log could not be written in time; repeat with the same Idempotency-Key") from None
    return answer, await _wait(request, answer, headers.wait_s)


async def _wait(request: Request, answer: Answer, wait_s: int | None) -> bool:
    """Wait for every projection that listens to one of the events; for all of them if nothing had to change."""
    if wait_s is None:
        return False
    types = {event.type for event in answer.events}
    projections = [
        name for name, projection in PROJECTIONS.items() if not types or any(map(projection.listens_to, types))
    ]
    projected: bool = await request.app.state.checkpoints.wait_for(projections, answer.position, wait_s)
    return projected


def _respond(content: msgspec.Struct, answer: Answer, headers: CommandHeaders) -> Response:
    shown = {"Keelson-Position": str(answer.position)}
    if headers.wait_s is not None:
        shown["Preference-Applied"] = f"wait={headers.wait_s}"
    return JsonResponse(content, headers=shown)


def _summarise(handler: Handler) -> CommandSummary:
    return CommandSummary(handler.name, handler.summary, msgspec.json.schema(handler.command))


def _operation(handler: Handler) -> Operation:
    return Operation(
        method="POST",
        path=f"/v1/commands/{handler.name}",
        summary=handler.summary,
        headers=documented_headers(has_target=handler.target is not None, needs_reason=handler.needs_reason),
        request=handler.command,
        response=CommandAnswer[handler.result],  # type: ignore[name-defined] # msgspec reads it at run time
        gives=("Keelson-Position",),
        may_give=("Preference-Applied",),
        problems=_REFUSALS,
        tags=(handler.name.partition(".")[0],),
    )


_COMMANDS = CommandList([_summarise(handler) for handler in HANDLERS.values()])

ROUTES = (
    Route("/v1/commands/{name}", post_command, methods=["POST"]),
    Route("/v1/commands", post_bundle, methods=["POST"]),
    Route("/v1/commands", list_commands, methods=["GET"]),
    heartbeats.ROUTE,
)

OPERATIONS = (
    *map(_operation, HANDLERS.values()),
    Operation(
        method="POST",
        path="/v1/commands",
        summary="Several commands that succeed or fail as one",
        headers=BundleHeaders,
        request=documented_bundle(),
        response=BundleAnswer,
        gives=("Keelson-Position",),
        may_give=("Preference-Applied",),
        problems=("unknown_command", *_REFUSALS),
    ),
    Operation(
        method="GET",
        path="/v1/commands",
        summary="The commands",
        response=CommandList,
        problems=("invalid", "not_supported"),
    ),
    heartbeats.OPERATION,
)
