"""A secret that only the node can read which runs what needs it."""

from keelson.client import ProblemError
from keelson.client.commands.instance import AllocateInstance, Endpoint, ReportStatus
from keelson.client.commands.node import CreateEnrollmentToken, EnrollNode
from keelson.client.commands.secret import RevealSecret, SetSecret
from keelson.local.demo.bakery import MIB, Platform
from keelson.local.demo.telling import Actor, Company, Telling
from keelson.local.errors import LocalError

_TEXT = """
A machine enrols by a token that is good once, and is a node from then on, with a credential of its own. An instance of
the orders' API is placed on it. Values of secrets are encrypted beside the log, never in it: who set them is not told
them again, and an operator neither, but the node that runs what needs them is.
"""
VALUES = {"CARD_KEY": "a key of the card processor's", "LEDGER_URL": "postgresql://orders:of-no-use@ledger/orders"}


async def run_with_secrets(telling: Telling, company: Company, platform: Platform) -> None:
    """Set a secret, let a machine enrol, run an instance on it that needs the secret, and see who is told it."""
    telling.chapter("A secret that only its node can read", _TEXT)
    owner, operator = telling[company.owner], telling["operator"]
    await owner.do(SetSecret(env_id=platform.back_office, values=VALUES), "orders production", "what orders must know")
    node, node_id = await _enroll(telling, company)
    allocate = AllocateInstance(env_id=platform.back_office, process="api", node_id=node_id)
    instance_id = (await operator.do(allocate, "orders api", f"{node.name} has room for it")).instance_id
    await node.shown(f"/v1/nodes/{node_id}/desired", "what should run here")
    await _reveal(node, owner, operator, instance_id)
    endpoints = {"http": Endpoint(host="10.0.0.7", port=31007), "metrics": Endpoint(host="10.0.0.7", port=31008)}
    ready = ReportStatus(instance_id=instance_id, status="ready", endpoints=endpoints)
    await node.do(ready, "orders api", "it answers /readyz")


async def _reveal(node: Actor, owner: Actor, operator: Actor, instance_id: str) -> None:
    """Show who is told the values: the node alone. Raises LocalError if it is told others than were set."""
    reveal = RevealSecret(instance_id=instance_id)
    await operator.refused(reveal, "orders api", "curious", "forbidden")
    await owner.refused(reveal, "orders api", "forgot them", "forbidden")
    told = await node.do(reveal, "orders api", "it is about to start")
    if told.values != VALUES:
        raise LocalError(f"{node.name} was not told what was set")
    for name, value in sorted(VALUES.items()):
        node.tell("", f"version {told.version} of {name}", f"told as it was set, {len(value)} characters")


async def _enroll(telling: Telling, company: Company) -> tuple[Actor, str]:
    """Let a machine enrol, under the first name of its kind that is free: they are the platform's."""
    operator, number = telling["operator"], company.number
    token = (await operator.do(CreateEnrollmentToken(), "a new machine", "good once, for an hour")).token
    while True:
        name = f"oven-{number}"
        machine = await telling.enter(name, str(token))
        enroll = EnrollNode(token=str(token), name=name, cpu_millis=4000, memory_bytes=4096 * MIB)
        try:
            enrolled = await machine.do(enroll, name, "a machine of four cores and 4 GiB")
        except ProblemError as problem:
            if problem.code != "name_taken":
                raise
            number += 1
        else:
            return await telling.enter(name, str(enrolled.credential)), enrolled.node_id
