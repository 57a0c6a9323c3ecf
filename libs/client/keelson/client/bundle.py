"""Bundles: commands that take effect together, and what each of them came to, in its own type."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from keelson.client.answers import CommandResult
from keelson.client.command import Command, Guarded
from keelson.events.ids import Position

R = TypeVar("R")

Part = Command[Any] | Guarded[Any] | Mapping[str, Any]


class BundleAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle came to: all of its commands, or none. `results` are in the order of the commands."""

    position: Position
    changed: bool
    projected: bool
    results: tuple[CommandResult[Any], ...]
    epoch: str | None = None
    parts: tuple[Part, ...] = ()

    def of(self, command: Command[R]) -> CommandResult[R]:
        """Give what one of the bundle's own commands came to; raises KeyError for another one, were it equal."""
        for part, result in zip(self.parts, self.results, strict=True):
            if _command_in(part) is command:
                return result
        raise KeyError(command.command_name)


def write_part(part: Part) -> Mapping[str, Any]:
    """Write a command of a bundle as it is sent."""
    match part:
        case Command():
            return {"name": part.command_name, "data": part}
        case Guarded():
            return {**write_part(part.command), "if_match": part.if_match}
        case _:
            return part


def read_answer(parts: Sequence[Part], body: Mapping[str, Any]) -> BundleAnswer:
    """Read the answer to a bundle of these parts, each result in its command's type where that is known."""
    results = [
        msgspec.convert(result, CommandResult[_result_type(part)])  # type: ignore[misc]  # a type made at run time
        for part, result in zip(parts, body["results"], strict=True)
    ]
    return BundleAnswer(
        position=body["position"],
        changed=body["changed"],
        projected=body["projected"],
        results=tuple(results),
        epoch=body["epoch"],
        parts=tuple(parts),
    )


def _command_in(part: Part) -> Part:
    return part.command if isinstance(part, Guarded) else part


def _result_type(part: Part) -> Any:
    command = _command_in(part)
    return command.result_type if isinstance(command, Command) else dict[str, Any]
