"""Two organisations, each with an owner and credentials of its own, of whom neither sees the other."""

from keelson.client import ProblemError
from keelson.client.commands.app import RenameApp
from keelson.client.commands.org import CreateOrg, IssueMemberCredential
from keelson.client.commands.project import CreateProject
from keelson.local.demo.bakery import Platform
from keelson.local.demo.telling import Company, Telling

_TEXT = """
Each line is a command sent over HTTP, acknowledged when its events are durable at that position of the log, with the
reason that is kept on every one of them. The operator lets two companies in, each with an owner by e-mail, and gives
each owner a token: from then on they act for themselves.
"""


async def found(telling: Telling) -> tuple[Company, Company]:
    """Create both, under the first names of their kind that are free, and let their owners enter."""
    telling.chapter("Two companies on one platform", _TEXT)
    bakery = await _found(telling, "acorn-bakery", "ada")
    books = await _found(telling, "birch-books", "ben")
    return bakery, books


async def look_over_the_fence(telling: Telling, company: Company, neighbour: Company, platform: Platform) -> None:
    """Show that what is the one's does not exist for the other, to be read or to be changed."""
    telling.chapter(
        "Neither sees the other",
        "What is another's is answered like what never was: 404, so that not even its existence is told.",
    )
    ada, ben = telling[company.owner], telling[neighbour.owner]
    project = CreateProject(org_id=neighbour.org_id, name="shop")
    theirs = (await ben.do(project, "shop", "the bakery's names are its own")).project_id
    await ada.shown(f"/v1/apps/{platform.storefront}", "the bakery's app")
    await ben.not_shown(f"/v1/apps/{platform.storefront}", "the bakery's app", "not_found")
    await ben.refused(RenameApp(app_id=platform.storefront, name="mine"), "the bakery's app", "spite", "not_found")
    into = CreateProject(org_id=company.org_id, name="annexe")
    await ben.refused(into, "a project at the bakery's", "spite", "not_found")
    await ben.shown("/v1/projects", "all projects that ben may see")
    await ada.not_shown(f"/v1/projects/{theirs}", "the bookshop's project", "not_found")


async def _found(telling: Telling, kind: str, owner: str) -> Company:
    number = 1
    while True:
        name = kind if number == 1 else f"{kind}-{number}"
        try:
            return await _found_as(telling, name, number, owner)
        except ProblemError as problem:
            if problem.code != "name_taken":
                raise
            number += 1


async def _found_as(telling: Telling, name: str, number: int, owner: str) -> Company:
    operator = telling["operator"]
    # Told here, and kept in the vault alone: no reason names a person, for reasons are in the log.
    email = f"{owner}@{name}.example"
    org = await operator.do(CreateOrg(name=name, owner_email=email), name, "signed up for the platform")
    member_id = str(org.member_id)
    issue = IssueMemberCredential(org_id=org.org_id, member_id=member_id)
    issued = await operator.do(issue, email, "its first owner's token")
    await telling.enter(owner, str(issued.token))
    return Company(org.org_id, name, number, owner, member_id)
