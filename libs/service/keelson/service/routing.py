"""Routes to handlers, which take a request and give an answer."""

from collections.abc import Awaitable, Callable, Collection

from starlette import routing
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Handle = Callable[[Request], Awaitable[Response]]


class Route(routing.Route):
    """Starlette's route, without its two layers that turn exceptions into answers: the boundary does it for all."""

    def __init__(self, path: str, handle: Handle, *, methods: Collection[str] = ("GET",)) -> None:
        super().__init__(path, handle, methods=methods)
        self._handle = handle

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request to this path; raises HTTPException 405 for a method that the route does not have."""
        if scope["method"] not in (self.methods or ()):
            raise HTTPException(405)
        response = await self._handle(Request(scope, receive, send))
        await response(scope, receive, send)
