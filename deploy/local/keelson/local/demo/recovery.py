"""A release that fails, and the way back: a rollback to a position, which says first what it would change."""

from keelson.client.commands.deploy import CreateDeploy
from keelson.client.commands.env import Change, RollBackEnv, ScaleEnv, SetEnvConfig
from keelson.local.demo.bakery import Platform, deploy, succeed
from keelson.local.demo.telling import Company, Telling
from keelson.local.demo.terminal import say, table
from keelson.local.errors import LocalError

_TEXT = """
The new checkout goes live, with other variables and fewer workers, and fails. The environment goes back to all that it
was at the position before: a dry run says what that would change, and the rollback changes just that, by new events.
"""


async def break_and_roll_back(telling: Telling, company: Company, platform: Platform, release_id: str) -> None:
    """Deploy what fails, ask what a rollback would change, and do it. Raises LocalError if it changes anything else."""
    telling.chapter("A rollback, with its dry run", _TEXT)
    owner, operator, env_id = telling[company.owner], telling["operator"], platform.production
    before = telling.position
    trial = CreateDeploy(env_id=platform.staging, release_id=release_id)
    await deploy(owner, operator, trial, "staging", "try the new checkout")
    launch = CreateDeploy(env_id=env_id, release_id=release_id)
    await deploy(owner, operator, launch, "production", "new checkout for everyone")
    variables = {"ORDERS_URL": "http://orders.internal:9000", "CHECKOUT": "express"}
    await owner.do(SetEnvConfig(env_id=env_id, variables=variables), "production", "the checkout's switch")
    await owner.do(ScaleEnv(env_id=env_id, replicas={"worker": 1}), "production", "the new checkout needs one")
    reason = "checkout fails for one customer in ten, incident INC-7"
    ask = RollBackEnv(env_id=env_id, position=before, dry_run=True)
    asked = await owner.do(ask, f"production, to {before}, dry run", "what would it change?")
    say("", _changes_table(asked.changes), "")
    done = await owner.do(RollBackEnv(env_id=env_id, position=before), f"production, to {before}", reason)
    if done.changes != asked.changes:
        raise LocalError("the rollback changed something else than its dry run said")
    await succeed(operator, str(done.deploy_id), "production")


def _changes_table(changes: tuple[Change, ...]) -> str:
    rows = [(each.what, _shown(each.from_), _shown(each.to)) for each in changes]
    return table(("what it would change", "from", "to"), rows)


def _shown(value: object) -> object:
    """Give a value as people say it: a release by its number."""
    return value.get("release_number", value) if isinstance(value, dict) else value
