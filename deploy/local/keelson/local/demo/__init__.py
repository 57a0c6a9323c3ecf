"""`make demo`: two organisations on one platform, from nothing; then what the views say, and who did what and why."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from keelson.client import Client, ClientError
from keelson.local.child import in_thread
from keelson.local.demo import bakery, recovery, refusals, revocation, rollout, secrets, tenants
from keelson.local.demo.report import print_report
from keelson.local.demo.running import lights_out
from keelson.local.demo.telling import Telling
from keelson.local.demo.terminal import heading, row_lines, say
from keelson.local.errors import LocalError
from keelson.local.home import Dev, Home
from keelson.local.keeper import kept_alive
from keelson.local.nodes import Machine
from keelson.local.orphans import end_orphans
from keelson.local.process import Identity
from keelson.local.readiness import wait_until_ready
from keelson.local.settings import Settings
from keelson.local.signals import until_signal
from keelson.local.supervisor import ORDER_OF_STOP

# Whose line it is, and what it says.
_WIDTHS = (10, 88)


def run_demo(environ: Mapping[str, str]) -> int:
    """Tell the story against the stack of KEELSON_HOME; it can be told again and again.

    Give the exit code: 128 and the signal, if one ended it. Nothing that it has started runs then either.
    """
    home = Home(Settings.load(environ).home)
    dev = home.read_dev()

    async def tell() -> None:
        async with Telling(dev.command_url, dev.query_url) as telling:
            operator = await telling.enter("operator", dev.operator_token)
            async with _some_nodes(home, dev, environ, operator.client), lights_out(telling) as env_ids:
                org_id = await _tell(telling, env_ids)
                await print_report(operator.client, org_id, telling.position)
        _print_where_next(dev.query_url)

    asked = None
    try:
        asked = asyncio.run(until_signal(tell(), lambda: say("", "Stopping.")))
    except* ClientError as errors:
        raise LocalError(f"the demo cannot go on: {_first_of(errors)}") from errors
    return 0 if asked is None else 128 + asked


@asynccontextmanager
async def _some_nodes(home: Home, dev: Dev, environ: Mapping[str, str], operator: Client) -> AsyncIterator[None]:
    """Let this machine be nodes while the block runs, where the stack runs in containers, which are none, and has none.

    The home is this telling's own meanwhile, as it is a supervisor's: what a telling that was killed has left running
    is ended first. What the end leaves is two nodes that are offline; the next telling goes on as them.
    """
    machine = Machine(home, environ, operator, (dev.command_url, dev.query_url))
    if dev.database_url is not None or await machine.has_peers():
        yield
        return
    say(heading("The stack has no nodes"), "This machine is two of them for as long as the story is told.", "")
    with home.locked():
        await in_thread(lambda: end_orphans(home, ORDER_OF_STOP, _say_of))
        home.note_running("supervisor", Identity.read(os.getpid()))
        agents = await machine.make_agents()
        try:
            async with kept_alive(agents, _say_of, home.note_running):
                await wait_until_ready(agents, _say_of)
                yield
        finally:
            await machine.leave()


def _first_of(error: BaseException) -> BaseException:
    return _first_of(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _say_of(name: str, line: str) -> None:
    say(*row_lines((name, line), _WIDTHS))


async def _tell(telling: Telling, env_ids: list[str]) -> str:
    """Tell every chapter; return the id of the organisation that it is about, and note its environments in a list."""
    company, neighbour = await tenants.found(telling)
    platform = await bakery.build(telling, company, env_ids)
    await tenants.look_over_the_fence(telling, company, neighbour, platform)
    await secrets.run_with_secrets(telling, company, platform)
    release_id = await revocation.lose_a_token(telling, company, platform)
    before = telling.position
    await rollout.roll_out(telling, company, platform, release_id)
    await recovery.break_and_roll_back(telling, company, platform, before)
    await refusals.be_refused(telling, company, platform)
    return company.org_id


def _print_where_next(query_url: str) -> None:
    say(heading("Look around"))
    say("With the operator token, which is in dev.json and which `make run` printed:")
    say(f'  curl -H "Authorization: Bearer $TOKEN" "{query_url}/v1/deploys?status=succeeded"')
