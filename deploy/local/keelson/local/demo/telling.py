"""How the demo tells its story: who is in it, and a line for everything that they do, printed as it is answered."""

import re
from contextlib import AsyncExitStack
from typing import Any, NamedTuple, Self, TypeVar

from keelson.client import Client, Command, ProblemError
from keelson.local.demo.terminal import heading, paragraph, row_lines, say
from keelson.local.errors import LocalError

_ID = re.compile(r"\b[a-z]+_[0-7][0-9a-z]{25}\b")
# A position, who, the command and of what (which share their room), and why or what came of it.
_WIDTHS = (5, 8, 52, 29)
_NAME_WIDTH = 22

R = TypeVar("R")


class Company(NamedTuple):
    """An organisation of the demo; `number` is of this telling, the owner is who is called so in it."""

    org_id: str
    name: str
    number: int
    owner: str
    member_id: str


class Telling:
    """One telling: its actors, how far the log has come by them, and what people call its ids."""

    def __init__(self, command_url: str, query_url: str) -> None:
        self._urls = (command_url, query_url)
        self._clients = AsyncExitStack()
        self._actors: dict[str, Actor] = {}
        self.position = 0
        self._names: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        await self._clients.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._clients.aclose()

    def __getitem__(self, name: str) -> "Actor":
        return self._actors[name]

    async def enter(self, name: str, token: str) -> "Actor":
        """Let somebody enter, with a token of their own."""
        client = await self._clients.enter_async_context(Client(*self._urls, token))
        self._actors[name] = Actor(self, name, client)
        return self._actors[name]

    def chapter(self, title: str, text: str) -> None:
        """Begin a chapter."""
        say(heading(title))
        say(paragraph(text) + "\n")
        say(*row_lines(("at", "who", f"{'command':<{_NAME_WIDTH}}  of", "why"), _WIDTHS))

    def step(self, who: str, name: str, what: str, why: str, *, at: int | None = None) -> None:
        """Print one line."""
        say(*row_lines((str(at or ""), who, f"{name:<{_NAME_WIDTH}}  {what}", why), _WIDTHS))

    def named(self, text: str) -> str:
        """Give a text with what people say in the place of ids."""
        return _ID.sub(lambda match: self._names.get(match[0], match[0]), text)

    def call(self, an_id: str, name: str) -> None:
        """Call an id so from now on."""
        self._names[an_id] = name


class Actor:
    """Somebody who acts by a token: what they do is printed, and what is refused them."""

    def __init__(self, telling: Telling, name: str, client: Client) -> None:
        self._telling = telling
        self.name = name
        self.client = client

    async def do(self, command: Command[R], what: str, reason: str) -> R:
        """Send a command that must succeed; what it is of is what its id is called from then on."""
        answer = await self.client.send(command, reason=reason)
        self._telling.position = answer.position
        made = getattr(answer.result, f"{command.command_name.partition('.')[0]}_id", None)
        if isinstance(made, str):
            self._telling.call(made, what)
        self._telling.step(
            self.name, command.command_name, what, reason, at=answer.position if answer.changed else None
        )
        return answer.result

    async def refused(self, command: Command[Any], what: str, reason: str, code: str) -> None:
        """Send a command that must be refused so. Raises LocalError if it is not."""
        try:
            await self.client.send(command, reason=reason)
        except ProblemError as problem:
            self._tell_refusal(problem, command.command_name, what, code)
        else:
            raise LocalError(f"{command.command_name} of {what} should have been refused")

    async def shown(self, path: str, what: str) -> None:
        """Read a path that must be shown, as it is where the story has come to."""
        body = (await self.client.get(path, min_position=self._telling.position)).body
        shown = f"{len(body['items'])} of them" if "items" in body else body["name"]
        self.tell(f"GET {_ID.sub('{id}', path)}", what, f"shown: {shown}")

    async def not_shown(self, path: str, what: str, code: str) -> None:
        """Read a path that must not be shown. Raises LocalError if it is."""
        try:
            await self.client.get(path, min_position=self._telling.position)
        except ProblemError as problem:
            self._tell_refusal(problem, f"GET {_ID.sub('{id}', path)}", what, code)
        else:
            raise LocalError(f"{self.name} should not have been shown {what}")

    def tell(self, name: str, what: str, why: str) -> None:
        """Print a line of something that is no command."""
        self._telling.step(self.name, name, what, why)

    def _tell_refusal(self, problem: ProblemError, name: str, what: str, code: str) -> None:
        if problem.code != code:
            raise problem
        # Who may not see a thing is told no name of it either.
        detail = _ID.sub("{id}", problem.detail) if code == "not_found" else self._telling.named(problem.detail)
        self.tell(name, what, f"refused, {problem.status} {code}: {detail}")
