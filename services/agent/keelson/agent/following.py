"""Following what the node should be doing."""

import asyncio
from collections.abc import AsyncGenerator

import msgspec

from keelson.client import Client, Confirmed, Desired, ProblemError, UnreachableError


async def follow_desired(client: Client, node_id: str, known: str | None) -> AsyncGenerator[Desired | Confirmed, None]:
    """Ask once a second, as long as services do not stream desired state."""
    while True:
        try:
            response = await client.get(f"/v1/nodes/{node_id}/desired")
        except UnreachableError:
            await asyncio.sleep(1.0)
            continue
        except ProblemError as error:
            if error.status in {401, 403, 404}:
                raise
            await asyncio.sleep(1.0)
            continue
        body = response.body
        cursor = f"{response.headers['Keelson-Epoch']}-{body['version']}"
        if cursor == known:
            yield Confirmed(body["version"], body["digest"], body["position"])
        else:
            known = cursor
            yield msgspec.convert({**body, "cursor": cursor}, Desired)
        await asyncio.sleep(1.0)
