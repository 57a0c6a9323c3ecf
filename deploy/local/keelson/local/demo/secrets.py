"""A secret that only the node can read which runs what needs it."""

import hashlib
import hmac
import time

from keelson.client.commands.secret import RevealSecret, SetSecret
from keelson.local.demo.asking import Greeting, ask_each
from keelson.local.demo.bakery import Platform
from keelson.local.demo.running import live_instances, see_running
from keelson.local.demo.telling import Company, Telling
from keelson.local.errors import LocalError

_TEXT = """
Values of secrets are encrypted beside the log, never in it: who set them is not told them again, and an operator
neither, but the node that runs what needs them is. What needs them is rolled, as by a release, and finds each value in
a file: the orders' API signs its greeting by one.
"""
VALUES = {"SIGNING_KEY": "a key of the bakery's", "LEDGER_URL": "postgresql://orders:of-no-use@ledger/orders"}


async def run_with_secrets(telling: Telling, company: Company, platform: Platform) -> None:
    """Set a secret, see who is told it, and that what needs it has it. Raises LocalError if it has another."""
    telling.chapter("A secret that only its node can read", _TEXT)
    owner, env_id = telling[company.owner], platform.back_office
    started = time.monotonic()
    await owner.do(SetSecret(env_id=env_id, values=VALUES), "orders production", "what orders must know")
    await see_running(telling, owner, env_id, "orders production", since=started)
    needing = next(row for row in await live_instances(owner.client, env_id) if row.process == "api")
    reveal = RevealSecret(instance_id=needing.id)
    telling.call(needing.id, "orders api")
    await telling["operator"].refused(reveal, "orders api", "curious", "forbidden")
    await owner.refused(reveal, "orders api", "forgot them", "forbidden")
    for answer in await ask_each(telling, owner, env_id, "api"):
        _check(answer)


def _check(answer: Greeting) -> None:
    key = VALUES["SIGNING_KEY"].encode()
    if answer.signature != hmac.new(key, answer.greeting.encode(), hashlib.sha256).hexdigest():
        raise LocalError(f"{answer.instance} was told another secret than was set")
