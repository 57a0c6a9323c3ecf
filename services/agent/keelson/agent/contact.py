"""Whether a service is there: said in the log when that changes, and not at each request."""

import structlog

from keelson.client import ClientError, ProblemError

# The credential is not good any more, or was not meant for this: an operator must do something.
_REFUSED = frozenset({401, 403})

_log = structlog.get_logger()


class Contact:
    """Knows whether a service answers. An agent that gets no answer, or is turned away, goes on with what it has."""

    def __init__(self, service: str) -> None:
        self._log = _log.bind(peer=service)
        self._state = "new"

    def made(self) -> None:
        """Take note that the service has answered."""
        if self._state in ("away", "refused"):
            self._log.info("control_plane_back")
        self._state = "there"

    def lost(self, error: ClientError) -> None:
        """Take note that it has not answered, or has turned the agent away."""
        state = "refused" if is_refusal(error) else "away"
        if state != self._state and state == "refused":
            self._log.error("credential_refused", why=describe(error), consequence="instances go on as they are")
        elif state != self._state:
            self._log.warning("control_plane_away", why=describe(error))
        self._state = state


def is_refusal(error: ClientError) -> bool:
    """Whether the agent's credential was refused."""
    return isinstance(error, ProblemError) and error.status in _REFUSED


def describe(error: ClientError) -> str:
    """Say what went wrong, without what the service quotes."""
    return f"{error.status} {error.code}" if isinstance(error, ProblemError) else str(error)
