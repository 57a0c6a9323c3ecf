"""A program's token that is revoked, and fails at once."""

import asyncio
import time

from keelson.client import ProblemError
from keelson.client.commands.deploy import CreateDeploy
from keelson.client.commands.principal import (
    CreatePrincipal,
    IssuePrincipalCredential,
    RevokePrincipalCredential,
)
from keelson.local.demo.bakery import STOREFRONT, Platform, release_of
from keelson.local.demo.telling import Actor, Company, Telling
from keelson.local.errors import LocalError

_TEXT = """
Programs have principals of their own, with the scopes that they need and no others, and several tokens at a time, so
that one can be exchanged for another. One that is revoked sends no command any more, and within a second reads nothing.
"""
# What is promised of reads, on every replica.
_READS_END_WITHIN_S = 1.0
_POLL_INTERVAL_S = 0.02


async def lose_a_token(telling: Telling, company: Company, platform: Platform) -> str:
    """Give a program a token, see it work, revoke it, and see it fail; return the release that it made."""
    telling.chapter("A token that is lost, and revoked", _TEXT)
    owner = telling[company.owner]
    create = CreatePrincipal(org_id=company.org_id, name="ci", scopes=["envs:read", "releases:write"])
    principal_id = (await owner.do(create, "ci", "makes releases, deploys none")).principal_id
    issued = await owner.do(IssuePrincipalCredential(principal_id=principal_id), "ci", "shown once, kept by the CI")
    ci = await telling.enter("ci", str(issued.token))
    build = release_of(platform.storefront, "storefront", 2, STOREFRONT)
    made = await ci.do(build, "storefront 2", "new checkout, ticket SHOP-118")
    deploy = CreateDeploy(env_id=platform.production, release_id=made.release_id)
    await ci.refused(deploy, "production", "in a hurry", "forbidden")
    revoke = RevokePrincipalCredential(principal_id=principal_id, credential_id=issued.credential_id)
    await owner.do(revoke, "ci", "its token was seen in a build's log")
    again = release_of(platform.storefront, "storefront", 3, STOREFRONT)
    await ci.refused(again, "storefront 3", "build 3 is green", "unauthenticated")
    await _wait_until_blind(ci)
    return made.release_id


async def _wait_until_blind(actor: Actor) -> None:
    """Read until that is refused. Raises LocalError if it is not within what is promised."""
    deadline = time.monotonic() + _READS_END_WITHIN_S
    while await _reads(actor):
        if time.monotonic() > deadline:
            raise LocalError(f"the revoked token of {actor.name} still reads after {_READS_END_WITHIN_S:g} s")
        await asyncio.sleep(_POLL_INTERVAL_S)
    await actor.not_shown("/v1/releases", "all releases", "unauthenticated")


async def _reads(actor: Actor) -> bool:
    try:
        await actor.client.get("/v1/releases")
    except ProblemError:
        return False
    return True
