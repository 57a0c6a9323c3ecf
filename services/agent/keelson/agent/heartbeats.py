"""Heartbeats: the node says that it is there, how far it has seen the log, and how busy it is."""

import asyncio
import random
from collections.abc import Callable, Mapping

from keelson.agent.contact import Contact
from keelson.client import Client, ClientError


async def beat(
    client: Client,
    contact: Contact,
    node_id: str,
    look: Callable[[], tuple[int, Mapping[str, int | float]]],
    interval_s: float,
) -> None:
    """Send a heartbeat each interval, until cancelled; `look` gives the position that was seen, and the load.

    One that fails is not sent again: the next one says the same, and more recently. A tenth of the interval is left to
    chance, so that nodes that began together do not go on so.
    """
    chance = random.SystemRandom()
    while True:
        position, load = look()
        try:
            await client.nodes.heartbeat(node_id, observed_position=position, load=load)
        except ClientError as error:
            contact.lost(error)
        else:
            contact.made()
        await asyncio.sleep(interval_s * chance.uniform(0.9, 1.0))
