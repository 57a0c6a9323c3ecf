"""Which exception becomes which problem: decided here, for all services and nowhere else."""

import structlog
from starlette.exceptions import HTTPException
from starlette.routing import Match, Router
from starlette.types import Scope

from keelson.events.registry import UnknownEventError
from keelson.log.database import UNAVAILABLE
from keelson.service.credentials import UnauthenticatedError
from keelson.service.lifecycle import leaves_of
from keelson.service.problems import Problem, unavailable

_log = structlog.get_logger()


def problem_of(error: Exception, router: Router, scope: Scope) -> Problem:
    """Give the problem to answer with; what no case names is a defect of ours, and is logged with its traceback."""
    leaves = list(leaves_of(error))
    if all(isinstance(each, UNAVAILABLE) for each in leaves):
        _log.warning("database_unavailable", error=repr(leaves[0]))
        return unavailable("The database cannot be reached or is too slow; nothing was promised")
    match leaves[0]:
        case Problem() as problem:
            pass
        case UnauthenticatedError():
            challenge = {"WWW-Authenticate": "Bearer"}
            problem = Problem("unauthenticated", "A good credential is needed", headers=challenge)
        case HTTPException(status_code=404):
            problem = Problem("not_found", "There is nothing at this path")
        case HTTPException(status_code=405):
            allowed = ", ".join(sorted(_methods_at(router, scope)))
            problem = Problem("method_not_allowed", f"Allowed here: {allowed}", headers={"Allow": allowed})
        case UnknownEventError() as unknown:
            _log.warning("event_unknown", error=str(unknown))
            problem = unavailable("This replica is older than an event that it would need to know")
        case _:
            _log.error("request_failed", exc_info=error)
            problem = Problem("internal", "The request met a defect of ours; its id is in X-Request-Id")
    return problem


def _methods_at(router: Router, scope: Scope) -> set[str]:
    """Give the methods that the routes at this path know; Starlette names those of the first one only."""
    return {
        method
        for route in router.routes
        if route.matches(scope)[0] is Match.PARTIAL
        for method in getattr(route, "methods", None) or ()
    }
