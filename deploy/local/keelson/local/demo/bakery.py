"""The bakery's platform: a project, two apps, environments, releases, deploys, and hostnames that lead there."""

import hashlib
import time
from collections.abc import Mapping
from typing import NamedTuple

from keelson.client.commands.app import CreateApp
from keelson.client.commands.deploy import CreateDeploy
from keelson.client.commands.env import CreateEnv, ScaleEnv, SetEnvConfig
from keelson.client.commands.project import CreateProject
from keelson.client.commands.release import CreateRelease, Health, Port, Process, Source
from keelson.client.commands.route import CreateRoute, DeleteRoute, UpdateRoute
from keelson.local.demo.asking import ask_each
from keelson.local.demo.running import see_deployed, see_running
from keelson.local.demo.telling import Actor, Company, Telling

MIB = 1024 * 1024

# What the bakery runs is small: a greeter in the place of each service, and of what nobody asks a command that waits.
_GREETER = ["python3", "examples/greeter/greeter.py"]
_WAITS = ["sleep", "infinity"]
STOREFRONT = {
    "web": Process(
        command=_GREETER,
        ports=[Port(name="http", port=8000)],
        cpu_millis=500,
        memory_bytes=64 * MIB,
        health=Health(path="/healthz", port="http", interval_s=5),
    ),
    "worker": Process(command=_WAITS, memory_bytes=16 * MIB),
}
ORDERS = {
    "api": Process(
        command=_GREETER,
        ports=[Port(name="http", port=9000)],
        memory_bytes=64 * MIB,
        health=Health(path="/healthz", port="http"),
        needs_secrets=True,
    ),
    "mailer": Process(command=_WAITS, cpu_millis=100, memory_bytes=16 * MIB),
}

_TEXT = """
Its owner declares what should be. The scheduler places what that takes on nodes by commands of its own, and their
agents run it: each service is a greeter here, of examples/greeter. A deploy has succeeded when all is ready.
"""


class Platform(NamedTuple):
    """Ids of what the bakery has; `production` and `staging` are of the storefront, `back_office` is of the orders."""

    project: str
    storefront: str
    orders: str
    staging: str
    production: str
    back_office: str


async def build(telling: Telling, company: Company, env_ids: list[str]) -> Platform:
    """Create all of it, let it go live, let it grow, and see what runs; note each environment in `env_ids`."""
    telling.chapter("What a small company does", _TEXT)
    owner = telling[company.owner]
    platform = await _lay_out(owner, company)
    env_ids += (platform.staging, platform.production, platform.back_office)
    await _go_live(telling, owner, platform)
    await _open_doors(owner, company, platform)
    await _grow(telling, owner, platform)
    await ask_each(telling, owner, platform.production, "web")
    return platform


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


async def _go_live(telling: Telling, owner: Actor, platform: Platform) -> None:
    """Deploy into every environment, and see all of them come to run it, at the same time."""
    shop = release_of(platform.storefront, "storefront", 1, STOREFRONT)
    first = (await owner.do(shop, "storefront 1", "first version of the shop")).release_id
    ledger = release_of(platform.orders, "orders", 1, ORDERS)
    taking = (await owner.do(ledger, "orders 1", "first version of order taking")).release_id
    deploys, started = [], time.monotonic()
    for env_id, release_id, where, reason in (
        (platform.staging, first, "staging", "does it start at all?"),
        (platform.back_office, taking, "orders production", "takes what the shop sells"),
        (platform.production, first, "production", "opening day"),
    ):
        command = CreateDeploy(env_id=env_id, release_id=release_id)
        deploys.append(((await owner.do(command, where, reason)).deploy_id, where))
    for deploy_id, where in deploys:
        await see_deployed(telling, owner, deploy_id, where, since=started)


def shop_of(company: Company) -> str:
    """Give the hostname of its shop; all companies share one space of them, so the company's name is in each."""
    return f"shop.{company.name}.example"


async def _open_doors(owner: Actor, company: Company, platform: Platform) -> None:
    """Let hostnames lead to what runs."""
    next_shop, www = (f"{name}.{company.name}.example" for name in ("next", "www"))
    preview = await _route(owner, platform.staging, next_shop, "the bakers try releases here")
    await owner.do(DeleteRoute(route_id=preview), next_shop, "the bakers have seen enough")
    route_id = await _route(owner, platform.production, www, "customers come by this name")
    await owner.do(UpdateRoute(route_id=route_id, hostname=shop_of(company)), shop_of(company), "it is a shop now")


async def _route(owner: Actor, env_id: str, hostname: str, reason: str) -> str:
    command = CreateRoute(env_id=env_id, hostname=hostname, process="web", port="http")
    return (await owner.do(command, hostname, reason)).route_id


async def _grow(telling: Telling, owner: Actor, platform: Platform) -> None:
    started = time.monotonic()
    variables = {"ORDERS_URL": "http://orders.internal:9000", "GREETING": "Cake sale on Saturday"}
    await owner.do(SetEnvConfig(env_id=platform.production, variables=variables), "production", "announce the sale")
    bigger = ScaleEnv(env_id=platform.production, replicas={"web": 3, "worker": 2})
    await owner.do(bigger, "production", "Saturday's cake sale")
    busier = ScaleEnv(env_id=platform.back_office, replicas={"api": 2})
    await owner.do(busier, "orders production", "the sale brings more orders")
    await see_running(telling, owner, platform.production, "production", since=started)
    await see_running(telling, owner, platform.back_office, "orders production", since=started)
