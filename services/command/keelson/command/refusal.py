"""What a handler answers when a rule forbids the command: a code and a sentence, no HTTP."""

from collections.abc import Sequence
from typing import NamedTuple


class Reason(NamedTuple):
    """One of several reasons; `pointer` is the JSON Pointer of the field that it is about."""

    pointer: str
    detail: str


class Refusal(Exception):  # noqa: N818 - an answer, not a failure
    """The command is refused on the state that its transaction read; it is confirmed before anybody hears of it."""

    def __init__(self, code: str, detail: str, reasons: Sequence[Reason] = ()) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.reasons = tuple(reasons)
        # Which of a request's commands was refused, if it is one's; set by whoever runs them.
        self.command_index: int | None = None

    def told(self, found: int) -> "Refusal":  # noqa: ARG002 - for those that tell it
        """Give the refusal of a limit once the append has told what its scope would hold: keys, or an amount."""
        return self


class Denial(Refusal):
    """The command is refused to whoever sent it: confirmed too, but whatever its key's answer was, it is not given."""


def not_found(noun: str, aggregate_id: str) -> Refusal:
    """Refuse for what is not there, or not any more."""
    return Refusal("not_found", f"there is no {noun} {aggregate_id}")


def name_taken(name: str) -> Refusal:
    """Refuse a name that another holds."""
    return Refusal("name_taken", f"the name {name} is taken")
