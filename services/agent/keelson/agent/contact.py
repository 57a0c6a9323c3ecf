"""Whether a service is there: said in the log when that changes, and not at each request."""

import asyncio

import structlog

from keelson.client import ClientError, ProblemError

# The credential is not good any more, or was not meant for this: an operator must do something.
_REFUSED = frozenset({401, 403})
# How soon a node that was turned away asks again: somebody must mend something, which takes longer.
REFUSED_PAUSE_S = 15.0

_log = structlog.get_logger()


# Services say something at least every 15 s, and the client begins anew after 45 s of silence.
_SILENCE_S = 60.0


class Silence:
    """Says in the log when nothing was heard of desired state for a while, and when it is heard again."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._noticed = False

    def listen(self) -> None:
        """Take note that listening begins, and goes on."""
        self.over()
        self._timer = asyncio.get_running_loop().call_later(_SILENCE_S, self._notice)

    def heard(self) -> None:
        """Take note that something was heard."""
        if self._noticed:
            _log.info("desired_state_heard")
        self._noticed = False
        self.listen()

    def over(self) -> None:
        """Wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _notice(self) -> None:
        self._noticed = True
        _log.warning("desired_state_silent", for_s=_SILENCE_S, consequence="instances go on as they are")


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
