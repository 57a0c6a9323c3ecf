"""Heartbeats: the node says that it is there, how far it has seen the log, and how busy it is."""

import asyncio
import random
from collections.abc import Callable, Mapping

from keelson.agent.contact import REFUSED_PAUSE_S, Contact, is_refusal
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
        wait_s = interval_s
        try:
            await client.nodes.heartbeat(node_id, observed_position=position, load=load)
        except ClientError as error:
            contact.lost(error)
            if is_refusal(error):
                wait_s = max(interval_s, REFUSED_PAUSE_S)
        else:
            contact.made()
        await asyncio.sleep(wait_s * chance.uniform(0.9, 1.0))
