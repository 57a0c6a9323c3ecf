"""The boundary between HTTP and handlers: one pure ASGI middleware around all routes.

It mints request ids, refuses large bodies, what is not authenticated and who asks too often, turns exceptions into
problems, counts and logs. One class instead of one per concern, because every layer of ASGI costs each request;
Starlette's own error layers are replaced by it. It never cancels a handler when its client goes away: a commit may be
under way (F40).
"""

import asyncio
import re
import secrets
import time
from collections.abc import Collection

import structlog
from starlette.requests import ClientDisconnect
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from keelson.service.authentication import NOBODY, Authenticator
from keelson.service.credentials import Caller
from keelson.service.epoch import Epoch
from keelson.service.exchange import Exchange, require_body_size
from keelson.service.headers import read_header
from keelson.service.lifecycle import Lifecycle
from keelson.service.limits import RateLimits
from keelson.service.metrics import HttpMetrics
from keelson.service.problems import Problem, unavailable
from keelson.service.refusal import problem_of

# The label of paths that no route matches: their number is the client's choice.
UNMATCHED = "unmatched"

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class Boundary:
    """The middleware. Paths in `public` need no credential, and are answered even while the service cannot work.

    What comes to paths in `tokenless` comes from nobody: they find out by themselves from whom it is.
    """

    def __init__(
        self,
        router: Router,
        *,
        authenticator: Authenticator,
        limits: RateLimits,
        lifecycle: Lifecycle,
        epoch: Epoch,
        metrics: HttpMetrics,
        public: Collection[str],
        tokenless: Collection[str],
        body_deadline_s: float,
    ) -> None:
        self._router = router
        self._authenticator = authenticator
        self._limits = limits
        self._lifecycle = lifecycle
        self._epoch = epoch
        self._metrics = metrics
        self._public = frozenset(public)
        self._tokenless = frozenset(tokenless)
        self._body_deadline_s = body_deadline_s
        self._log = structlog.get_logger().bind()  # bound once: a lazy logger costs each line a third more

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; the lifespan's messages pass through."""
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        started = time.perf_counter()
        found: dict[bytes, bytes] = dict(scope["headers"])
        request_id = _read_request_id(found)
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.bind_contextvars(request_id=request_id)
        exchange = Exchange(
            scope, receive, send, request_id=request_id, epoch=self._epoch, body_deadline_s=self._body_deadline_s
        )
        self._metrics.in_flight += 1
        try:
            await self._answer(scope, found, exchange)
        finally:
            self._metrics.in_flight -= 1
            self._record(scope, exchange.status, time.perf_counter() - started)

    async def _answer(self, scope: Scope, found: dict[bytes, bytes], exchange: Exchange) -> None:
        try:
            await self._admit(scope, found)
            await self._router(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            return
        except asyncio.CancelledError:
            if not exchange.begun:
                await self._refuse(exchange, unavailable("The service stopped before it could answer"))
            raise
        except Exception as error:
            if exchange.begun:
                raise
            await self._refuse(exchange, problem_of(error, self._router, scope))

    async def _refuse(self, exchange: Exchange, problem: Problem) -> None:
        self._metrics.refuse(problem.code)
        await exchange.refuse(problem)

    async def _admit(self, scope: Scope, found: dict[bytes, bytes]) -> None:
        """Let a request in, with its caller in its state; raises Problem or UnauthenticatedError."""
        require_body_size(int(found.get(b"content-length", 0)))
        if scope["path"] in self._public:
            return
        scope["state"]["caller"] = (
            NOBODY if scope["path"] in self._tokenless else await self._authenticate(scope, found)
        )
        if not self._lifecycle.answers:
            raise unavailable(f"The service cannot answer now: {self._lifecycle.waits_for}")

    async def _authenticate(self, scope: Scope, found: dict[bytes, bytes]) -> Caller:
        headers = scope["headers"]
        is_repeated = len(found) < len(headers)  # whatever it is
        credential = found.pop(b"authorization", None)  # nobody keeps it for as long as the answer takes
        if is_repeated:
            credential = read_header(headers, b"authorization")
        authorization = None if credential is None else credential.decode("latin-1")
        caller = await self._authenticator.authenticate(authorization)
        self._limits.spend(caller.identity.actor, is_operator=caller.grants.operator)
        return caller

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        template: str = getattr(route, "path", UNMATCHED)
        method: str = scope["method"]
        self._metrics.record(template, method, status, None if "held" in scope["state"] else seconds)
        log = self._log.debug if template in self._public else self._log.info
        log("request_served", method=method, route=template, status=status, duration_ms=round(seconds * 1000, 3))


def _read_request_id(found: dict[bytes, bytes]) -> str:
    """Give the request's id, minted if it is missing or unfit."""
    given = found.get(b"x-request-id")
    return given.decode("ascii") if given and _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
