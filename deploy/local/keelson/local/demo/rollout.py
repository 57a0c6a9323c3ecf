"""A second release: tried where nobody sees it, then rolled out while everybody asks."""

import time

from keelson.client.commands.deploy import CreateDeploy
from keelson.local.demo.asking import asked_meanwhile
from keelson.local.demo.bakery import Platform, shop_of
from keelson.local.demo.running import see_deployed
from keelson.local.demo.telling import Actor, Company, Telling

_TEXT = """
The new checkout is tried in staging, and goes live. One more replica than are wanted is started at a time, and an old
one finishes when a new one is ready: whoever asks meanwhile is answered, by the one release or by the other.
"""


async def roll_out(telling: Telling, company: Company, platform: Platform, release_id: str) -> None:
    """Deploy a release into staging, then into production, whose hostname is asked all the while."""
    telling.chapter("From one release to the next", _TEXT)
    owner = telling[company.owner]
    await _deploy(telling, owner, CreateDeploy(env_id=platform.staging, release_id=release_id), "staging")
    async with asked_meanwhile(telling, shop_of(company)):
        await _deploy(telling, owner, CreateDeploy(env_id=platform.production, release_id=release_id), "production")


async def _deploy(telling: Telling, owner: Actor, command: CreateDeploy, where: str) -> None:
    reason = {"staging": "try the new checkout"}.get(where, "new checkout for everyone")
    started = time.monotonic()
    made = await owner.do(command, where, reason)
    await see_deployed(telling, owner, made.deploy_id, where, since=started)
