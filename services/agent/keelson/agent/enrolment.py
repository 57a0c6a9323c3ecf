"""Enrolment: a machine becomes a node by a one-time token, once."""

import asyncio
import hashlib
import socket
import uuid

import structlog

from keelson.agent.settings import AgentSettings, read_labels
from keelson.agent.state import Attempt, NodeFile, StateFolder
from keelson.client import Client, ProblemError, UnreachableError

_AWAY = frozenset({408, 429, 500, 502, 503, 504})
_RETRY_S = 2.0
# Each attempt that is not answered is to be known: what comes of the next one depends on it.
_ONE_ATTEMPT_S = 0.001

_log = structlog.get_logger()


class EnrolmentError(Exception):
    """The machine cannot become a node by this token; the message says what it takes."""


async def enrol(settings: AgentSettings, folder: StateFolder) -> NodeFile:
    """Give who this node is: as it enrolled before, whatever token is given, or else by enrolling now.

    The credential is told once. What is sent is sent under a key that is on disk before, so that the enrolment is
    never made twice; but if its answer is lost, so is the credential, and another token is needed. While the command
    service is away this waits for it. Raises EnrolmentError.
    """
    node = folder.read_node()
    if node is not None:
        return node
    if not settings.enrollment_token:
        raise EnrolmentError("this node has not enrolled: KEELSON_ENROLLMENT_TOKEN must be set the first time")
    attempt, begun_before = _begin(settings, folder)
    node = await _enrol(settings, attempt, begun_before)
    folder.write_node(node)
    _log.info("node_enrolled", node_id=node.node_id, name=node.name)
    return node


def _begin(settings: AgentSettings, folder: StateFolder) -> tuple[Attempt, bool]:
    """Give the attempt of this token, and whether it was begun before."""
    digest = hashlib.sha256(settings.enrollment_token.encode()).hexdigest()
    attempt = folder.read_attempt()
    if attempt is not None and attempt.token_digest == digest:
        return attempt, True
    attempt = Attempt(idempotency_key=str(uuid.uuid4()), token_digest=digest)
    folder.write_attempt(attempt)
    return attempt, False


async def _enrol(settings: AgentSettings, attempt: Attempt, begun_before: bool) -> NodeFile:
    # The token is in the body; what is in the header is not looked at here.
    client = Client(settings.command_url, settings.query_url, settings.enrollment_token, retry_for_s=_ONE_ATTEMPT_S)
    async with client:
        lost = begun_before
        while True:
            try:
                return await _send(client, settings, attempt)
            except UnreachableError as error:
                lost = True
                _log.warning("enrolment_waits", why=str(error))
            except ProblemError as error:
                if error.status not in _AWAY:
                    raise _explain(error, lost) from None
                _log.warning("enrolment_waits", why=f"{error.status} {error.code}")
            await asyncio.sleep(_RETRY_S)


async def _send(client: Client, settings: AgentSettings, attempt: Attempt) -> NodeFile:
    name = settings.node_name or _machine_name()
    answer = await client.node.enroll(
        token=settings.enrollment_token,
        name=name,
        labels=read_labels(settings.labels),
        cpu_millis=settings.cpu_millis,
        memory_bytes=settings.memory_bytes,
        address=settings.address,
        reason="the node's agent enrols it",
        idempotency_key=attempt.idempotency_key,
    )
    if answer.result.credential is None:
        raise EnrolmentError(
            f"the node {answer.result.node_id} has enrolled, but the answer with its credential was lost: "
            "remove that node, and give this agent a new token"
        )
    return NodeFile(node_id=answer.result.node_id, credential=answer.result.credential, name=name)


def _explain(error: ProblemError, lost: bool) -> EnrolmentError:
    if error.code != "unauthenticated":
        return EnrolmentError(f"the enrolment was refused: {error}")
    if lost:
        return EnrolmentError(
            "the token is not good any more, and an earlier answer was lost: the node has probably enrolled, and its "
            "credential is lost; remove that node, and give this agent a new token"
        )
    return EnrolmentError("the enrolment token is not good: it was used, or has expired; give this agent a new one")


def _machine_name() -> str:
    return socket.gethostname().partition(".")[0].lower()
