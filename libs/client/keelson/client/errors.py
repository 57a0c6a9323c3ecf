"""Why a request came to nothing."""

from typing import Any


class ClientError(Exception):
    """A request failed; the subclass says whether the service answered."""


class ProblemError(ClientError):
    """The service refused: `code` is from the closed list of the API, `body` the whole problem.

    `epoch` is the log's, where the service knew it.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        body: dict[str, Any],
        retry_after_s: float | None,
        *,
        epoch: str | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.body = body
        self.retry_after_s = retry_after_s
        self.epoch = epoch


class UnreachableError(ClientError):
    """No answer, though it was asked for repeatedly, or none of the service's; a command may have taken effect or not.

    Sending the same command under the same key finds out, and never does it twice.
    """


class UnsendableError(ClientError):
    """Nothing was sent: a reason, a key or another header is no line of text, and can be no header."""
