"""`make demo`: two organisations on one platform, from nothing; then what the views say, and who did what and why."""

import asyncio
from collections.abc import Mapping

from keelson.client import ClientError
from keelson.local.demo import bakery, recovery, refusals, revocation, secrets, tenants
from keelson.local.demo.report import print_report
from keelson.local.demo.telling import Telling
from keelson.local.demo.terminal import heading, say
from keelson.local.errors import LocalError
from keelson.local.home import Home
from keelson.local.settings import Settings


def run_demo(environ: Mapping[str, str]) -> int:
    """Tell the story against the stack of KEELSON_HOME; it can be told again and again."""
    dev = Home(Settings.load(environ).home).read_dev()

    async def tell() -> None:
        async with Telling(dev.command_url, dev.query_url) as telling:
            operator = await telling.enter("operator", dev.operator_token)
            org_id = await _tell(telling)
            await print_report(operator.client, org_id, telling.position)
        _print_where_next(dev.query_url)

    try:
        asyncio.run(tell())
    except ClientError as error:
        raise LocalError(f"the demo cannot go on: {error}") from error
    return 0


async def _tell(telling: Telling) -> str:
    """Tell every chapter; return the id of the organisation that it is about."""
    company, neighbour = await tenants.found(telling)
    platform = await bakery.build(telling, company)
    await tenants.look_over_the_fence(telling, company, neighbour, platform)
    await secrets.run_with_secrets(telling, company, platform)
    release_id = await revocation.lose_a_token(telling, company, platform)
    await recovery.break_and_roll_back(telling, company, platform, release_id)
    await refusals.be_refused(telling, company, platform)
    return company.org_id


def _print_where_next(query_url: str) -> None:
    say(heading("Look around"))
    say("With the operator token, which is in dev.json and which `make run` printed:")
    say(f'  curl -H "Authorization: Bearer $TOKEN" "{query_url}/v1/deploys?status=succeeded"')
