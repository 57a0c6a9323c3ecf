"""What a command is to the service: its name, its schema, its handler."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from keelson.command.transaction import Transaction


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all commands: a field that is not declared is refused, never ignored.

    Fields left at their defaults are not encoded, so that a request hashes as before when a field was added since: a
    retry over a roll-out finds its answer.
    """


class Handler(msgspec.Struct, frozen=True, kw_only=True):
    """A command and what decides on it.

    `target` is the field that names the aggregate acted on, which If-Match speaks of; a command that creates has none.
    The summary for users is the first line of the command's docstring.
    """

    name: str
    command: type[Command]
    handle: Callable[[Transaction, Any], Awaitable[msgspec.Struct]]
    result: type[msgspec.Struct]
    target: str | None = None
    needs_reason: bool = False

    @property
    def summary(self) -> str:
        """One sentence on what the command does."""
        return (self.command.__doc__ or "").partition("\n")[0]
