"""The bakery's platform: a project, two apps, environments, releases, deploys, and hostnames that lead there."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from keelson.client.commands.app import CreateApp
from keelson.client.commands.deploy import CreateDeploy, SetDeployStatus
from keelson.client.commands.env import CreateEnv, ScaleEnv, SetEnvConfig
from keelson.client.commands.project import CreateProject
from keelson.client.commands.release import CreateRelease, Health, Port, Process, Source
from keelson.client.commands.route import CreateRoute, DeleteRoute, UpdateRoute
from keelson.local.demo.telling import Actor, Company, Telling

MIB = 1024 * 1024

STOREFRONT = {
    "web": Process(
        command=["gunicorn", "storefront.wsgi", "--bind", "0.0.0.0:8000"],
        ports=[Port(name="http", port=8000)],
        cpu_millis=500,
        memory_bytes=512 * MIB,
        health=Health(path="/healthz", port="http", interval_s=5),
    ),
    "worker": Process(command=["python", "-m", "storefront.worker"], memory_bytes=384 * MIB),
}
ORDERS = {
    "api": Process(
        command=["uvicorn", "orders.app:app", "--port", "9000"],
        ports=[Port(name="http", port=9000), Port(name="metrics", port=9090)],
        health=Health(path="/readyz", port="http"),
        needs_secrets=True,
    ),
    "scheduler": Process(command=["python", "-m", "orders.scheduler"], cpu_millis=100),
}


class Platform(NamedTuple):
    """Ids of what the bakery has; `production` and `staging` are of the storefront, `back_office` is of the orders."""

    project: str
    storefront: str
    orders: str
    staging: str
    production: str
    back_office: str


async def build(telling: Telling, company: Company) -> Platform:
    """Create all of it, let it go live, and let it grow."""
    telling.chapter(
        "What a small company does",
        "Its owner acts. What becomes of a deploy is for whoever runs it to say; here that is the operator.",
    )
    owner, operator = telling[company.owner], telling["operator"]
    platform = await _lay_out(owner, company)
    await _go_live(owner, operator, platform)
    await _open_doors(owner, company, platform)
    await _grow(owner, platform)
    return platform


async def deploy(owner: Actor, operator: Actor, command: CreateDeploy, where: str, reason: str) -> None:
    """Deploy a release, and report that all went well."""
    await succeed(operator, (await owner.do(command, where, reason)).deploy_id, where)


async def succeed(operator: Actor, deploy_id: str, where: str) -> None:
    """Report a deploy's way to success."""
    rolling = SetDeployStatus(deploy_id=deploy_id, status="rolling", message="replicas start")
    await operator.do(rolling, where, "rolling: replicas start")
    succeeded = SetDeployStatus(deploy_id=deploy_id, status="succeeded", message="all replicas ready")
    await operator.do(succeeded, where, "succeeded: all replicas ready")


def release_of(app_id: str, app: str, number: int, processes: Mapping[str, Process]) -> CreateRelease:
    """Give the command that makes a release of an image, the same one for the same number."""
    source = Source(
        repository=f"https://git.acorn-bakery.example/{app}",
        commit=hashlib.sha256(f"{app} {number}".encode()).hexdigest()[:40],
    )
    image = f"images.acorn-bakery.example/{app}@sha256:{hashlib.sha256(f'{app}:{number}'.encode()).hexdigest()}"
    return CreateRelease(app_id=app_id, image=image, processes=processes, source=source)


async def _lay_out(owner: Actor, company: Company) -> Platform:
    shop = CreateProject(org_id=company.org_id, name="shop")
    project = (await owner.do(shop, "shop", "everything that sells cakes")).project_id
    web_site = CreateApp(project_id=project, name="storefront")
    storefront = (await owner.do(web_site, "storefront", "the shop's web site")).app_id
    tracking = CreateApp(project_id=project, name="orders")
    orders = (await owner.do(tracking, "orders", "takes and tracks orders")).app_id
    return Platform(
        project,
        storefront,
        orders,
        staging=await _env(owner, storefront, "staging", "staging", "try releases before customers do"),
        production=await _env(owner, storefront, "production", "production", "what customers see"),
        back_office=await _env(owner, orders, "production", "orders production", "what the storefront calls"),
    )


async def _env(owner: Actor, app_id: str, name: str, called: str, reason: str) -> str:
    return (await owner.do(CreateEnv(app_id=app_id, name=name), called, reason)).env_id


async def _go_live(owner: Actor, operator: Actor, platform: Platform) -> None:
    shop = release_of(platform.storefront, "storefront", 1, STOREFRONT)
    first = (await owner.do(shop, "storefront 1", "first version of the shop")).release_id
    ledger = release_of(platform.orders, "orders", 1, ORDERS)
    taking = (await owner.do(ledger, "orders 1", "first version of order taking")).release_id
    for env_id, release_id, where, reason in (
        (platform.staging, first, "staging", "does it start at all?"),
        (platform.back_office, taking, "orders production", "orders before the shop"),
        (platform.production, first, "production", "opening day"),
    ):
        await deploy(owner, operator, CreateDeploy(env_id=env_id, release_id=release_id), where, reason)


async def _open_doors(owner: Actor, company: Company, platform: Platform) -> None:
    """Let hostnames lead to what runs; all companies share one space of them, so the company's name is in each."""
    next_shop, www, shop = (f"{name}.{company.name}.example" for name in ("next", "www", "shop"))
    preview = await _route(owner, platform.staging, next_shop, "the bakers try releases here")
    await owner.do(DeleteRoute(route_id=preview), next_shop, "the bakers have seen enough")
    route_id = await _route(owner, platform.production, www, "customers come by this name")
    await owner.do(UpdateRoute(route_id=route_id, hostname=shop), shop, "it is a shop now")


async def _route(owner: Actor, env_id: str, hostname: str, reason: str) -> str:
    command = CreateRoute(env_id=env_id, hostname=hostname, process="web", port="http")
    return (await owner.do(command, hostname, reason)).route_id


async def _grow(owner: Actor, platform: Platform) -> None:
    variables = {"ORDERS_URL": "http://orders.internal:9000", "BANNER": "Cake sale on Saturday"}
    await owner.do(SetEnvConfig(env_id=platform.production, variables=variables), "production", "announce the sale")
    bigger = ScaleEnv(env_id=platform.production, replicas={"web": 4, "worker": 2})
    await owner.do(bigger, "production", "Saturday's cake sale")
    busier = ScaleEnv(env_id=platform.back_office, replicas={"api": 3})
    await owner.do(busier, "orders production", "the sale brings more orders")
