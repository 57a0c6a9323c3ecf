"""What is refused: rules of quotas and of state, each with a code of its own."""

from keelson.client.commands.app import CreateApp
from keelson.client.commands.deploy import CreateDeploy
from keelson.client.commands.env import DeleteEnv, ScaleEnv
from keelson.client.commands.org import QuotaFields, SetOrgQuota
from keelson.client.commands.project import DeleteProject
from keelson.local.demo.bakery import STOREFRONT, Platform, release_of
from keelson.local.demo.telling import Company, Telling

_TEXT = """
A refused command appends nothing, and says why by a code from a closed list. Quotas are the operator's to set; they
count what is wanted, not what runs.
"""


async def be_refused(telling: Telling, company: Company, platform: Platform) -> None:
    """Show that rules hold: all of these but the quota and the release must be refused."""
    telling.chapter("What is refused", _TEXT)
    owner = telling[company.owner]
    quota = SetOrgQuota(org_id=company.org_id, quota=QuotaFields(apps=2, instances=20))
    await owner.refused(quota, company.name, "more for us", "forbidden")
    await telling["operator"].do(quota, company.name, "what the bakery pays for")
    many = ScaleEnv(env_id=platform.production, replicas={"web": 40})
    await owner.refused(many, "production", "Sunday's sale", "quota_exceeded")
    third = CreateApp(project_id=platform.project, name="newsletter")
    await owner.refused(third, "newsletter", "tell of new cakes", "quota_exceeded")
    lost = release_of(platform.storefront, "storefront", 3, {"worker": STOREFRONT["worker"]})
    lacking = (await owner.do(lost, "storefront 3", "lost its web process")).release_id
    deploy = CreateDeploy(env_id=platform.production, release_id=lacking)
    await owner.refused(deploy, "production", "in a hurry", "route_would_break")
    await owner.refused(DeleteEnv(env_id=platform.production), "production", "by mistake", "in_use")
    again = CreateApp(project_id=platform.project, name="orders")
    await owner.refused(again, "a second orders", "by mistake", "name_taken")
    await owner.refused(DeleteProject(project_id=platform.project), "shop", "by mistake", "in_use")
    mistyped = ScaleEnv(env_id=platform.production, replicas={"mailer": 1})
    await owner.refused(mistyped, "production, its mailer", "a typo", "unknown_process")
