"""Secrets of instances: asked of the command service when an instance is started for the first time."""

import asyncio
import uuid
from collections.abc import Mapping

from keelson.agent.contact import describe
from keelson.agent.driver import Failure, StartError
from keelson.client import Client, ClientError

_TRIES = 3


class Secrets:
    """Asks for the values of the version that an instance names."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def reveal(self, instance_id: str) -> Mapping[str, str]:
        """Give the values. Raises StartError when they are not to be had, or not now.

        They are told once: if the answer was lost, so that it is a repeat that was answered, they are asked for anew.
        """
        for _ in range(_TRIES):
            try:
                answer = await self._client.secret.reveal(
                    instance_id=instance_id, reason="the node starts the instance", idempotency_key=str(uuid.uuid4())
                )
            except ClientError as error:
                raise _unavailable(describe(error)) from None
            if answer.result.values is not None:
                return answer.result.values
            await asyncio.sleep(0)
        raise _unavailable("each answer was lost")


def _unavailable(why: str) -> StartError:
    return StartError(Failure(reason_code="secrets_unavailable", message=why[:500]))
