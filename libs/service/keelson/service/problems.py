"""Refusals as RFC 9457 problem details: a closed list of codes, each with its status and title in one table.

Nothing else in a service decides on an HTTP status. A service that has rules of its own adds their codes with
`declare_rule` when it is imported; all of them are 422.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from keelson.service.encoding import encode_anything

MEDIA_TYPE = b"application/problem+json"


class ProblemType(NamedTuple):
    """What all problems of one code have in common."""

    status: int
    title: str


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one place of the body; `pointer` is a JSON Pointer (RFC 6901)."""

    pointer: str
    detail: str


PROBLEMS: dict[str, ProblemType] = {
    "malformed": ProblemType(400, "The request is not well-formed"),
    "invalid": ProblemType(400, "The request does not fit its schema"),
    "reason_required": ProblemType(400, "This command needs a reason"),
    "not_supported": ProblemType(400, "This is not built yet"),
    "bad_cursor": ProblemType(400, "The cursor is not one of ours"),
    "unauthenticated": ProblemType(401, "No credential, or not a good one"),
    "forbidden": ProblemType(403, "The actor may not do this"),
    "unknown_command": ProblemType(404, "There is no such command"),
    "not_found": ProblemType(404, "There is nothing here"),
    "method_not_allowed": ProblemType(405, "The method is not allowed here"),
    "timeout": ProblemType(408, "The request came too slowly"),
    "name_taken": ProblemType(409, "The name is taken"),
    "id_taken": ProblemType(409, "The id is taken"),
    "in_use": ProblemType(409, "It is still in use"),
    "concurrent_change": ProblemType(409, "Others changed the same thing at the same time"),
    "idempotency_key_reuse": ProblemType(409, "The idempotency key belongs to another request"),
    "cursor_expired": ProblemType(410, "The cursor is of another epoch, or beyond the head"),
    "seq_mismatch": ProblemType(412, "The aggregate is at another seq"),
    "too_large": ProblemType(413, "The body is too large"),
    "unsupported_media_type": ProblemType(415, "The body must be application/json"),
    "rate_limited": ProblemType(429, "Too many requests"),
    "headers_too_large": ProblemType(431, "The headers are too many or too large"),
    "internal": ProblemType(500, "A defect of ours"),
    "unavailable": ProblemType(503, "The database cannot be reached or is too slow"),
    "not_yet": ProblemType(504, "The position was not reached in time"),
}


def declare_rule(code: str, title: str) -> str:
    """Add the code of a rule of state, which is 422, and give it back; ValueError if the code is taken."""
    if code in PROBLEMS:
        raise ValueError(f"the problem code {code} is declared twice")
    PROBLEMS[code] = ProblemType(422, title)
    return code


class Problem(Exception):  # noqa: N818 - the standard's name; it is an answer, not a failure
    """An answer that is a refusal. `code` must be one of PROBLEMS; `members` are further members of the body."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status, self.title = PROBLEMS[code]
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.members = members

    def body(self) -> bytes:
        """Encode the problem; text that UTF-8 cannot hold (lone surrogates) is replaced, never an error."""
        document: dict[str, Any] = {
            "type": f"urn:keelson:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.errors:
            document["errors"] = self.errors
        document |= self.members
        return encode_anything(document)


def unavailable(detail: str, *, retry_after_s: int = 1) -> Problem:
    """Give the 503 that says that nothing was promised and when to repeat."""
    return Problem("unavailable", detail, headers={"Retry-After": str(retry_after_s)})
