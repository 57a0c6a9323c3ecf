"""A release that fails, and the way back: a rollback to a position, which says first what it would change."""

import time

from keelson.client.commands.env import Change, RollBackEnv, ScaleEnv, SetEnvConfig
from keelson.local.demo.asking import asked_meanwhile
from keelson.local.demo.bakery import Platform, shop_of
from keelson.local.demo.running import see_deployed
from keelson.local.demo.telling import Company, Telling
from keelson.local.demo.terminal import say, table
from keelson.local.errors import LocalError

_TEXT = """
The new checkout gets other variables and fewer workers, and fails. The environment goes back to all that it was at the
position before it: a dry run says what that would change, and the rollback changes just that, by new events. It is
rolled out as any deploy is.
"""


async def break_and_roll_back(telling: Telling, company: Company, platform: Platform, before: int) -> None:
    """Let it fail, ask what a rollback would change, and do it. Raises LocalError if it changes anything else."""
    telling.chapter("A rollback, with its dry run", _TEXT)
    owner, env_id = telling[company.owner], platform.production
    variables = {"ORDERS_URL": "http://orders.internal:9000", "CHECKOUT": "express"}
    await owner.do(SetEnvConfig(env_id=env_id, variables=variables), "production", "the checkout's switch")
    await owner.do(ScaleEnv(env_id=env_id, replicas={"worker": 1}), "production", "the new checkout needs one")
    reason = "checkout fails for one customer in ten, incident INC-7"
    ask = RollBackEnv(env_id=env_id, position=before, dry_run=True)
    asked = await owner.do(ask, f"production, to {before}, dry run", "what would it change?")
    say("", _changes_table(asked.changes), "")
    async with asked_meanwhile(telling, shop_of(company)):
        started = time.monotonic()
        done = await owner.do(RollBackEnv(env_id=env_id, position=before), f"production, to {before}", reason)
        if done.changes != asked.changes:
            raise LocalError("the rollback changed something else than its dry run said")
        await see_deployed(telling, owner, str(done.deploy_id), "production", since=started)


def _changes_table(changes: tuple[Change, ...]) -> str:
    rows = [(each.what, _shown(each.from_), _shown(each.to)) for each in changes]
    return table(("what it would change", "from", "to"), rows)


def _shown(value: object) -> object:
    """Give a value as people say it: a release by its number."""
    return value.get("release_number", value) if isinstance(value, dict) else value
