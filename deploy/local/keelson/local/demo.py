"""`make demo`: a small company's platform from nothing, then what the views say of it and who did what and why."""

import asyncio
import hashlib
import sys
from collections.abc import Mapping
from typing import Any

from keelson.client import Client, ClientError, ProblemError
from keelson.local.errors import LocalError
from keelson.local.home import Home
from keelson.local.report import print_report
from keelson.local.settings import Settings
from keelson.local.terminal import heading, paragraph, row_lines

COMPANY = "acorn-bakery"

_MIB = 1024 * 1024
_STEP_WIDTHS = (6, 18, 30, 40)

STOREFRONT: dict[str, Any] = {
    "web": {
        "command": ["gunicorn", "storefront.wsgi", "--bind", "0.0.0.0:8000"],
        "ports": [{"name": "http", "port": 8000}],
        "cpu_millis": 500,
        "memory_bytes": 512 * _MIB,
        "health": {"path": "/healthz", "port": "http", "interval_s": 5},
    },
    "worker": {"command": ["python", "-m", "storefront.worker"], "memory_bytes": 384 * _MIB},
}
ORDERS: dict[str, Any] = {
    "api": {
        "command": ["uvicorn", "orders.app:app", "--port", "9000"],
        "ports": [{"name": "http", "port": 9000}, {"name": "metrics", "port": 9090}],
        "health": {"path": "/readyz", "port": "http"},
        "needs_secrets": True,
    },
    "scheduler": {"command": ["python", "-m", "orders.scheduler"], "cpu_millis": 100},
}


def run_demo(environ: Mapping[str, str]) -> int:
    """Tell the story against the stack of KEELSON_HOME; it can be told again and again."""
    dev = Home(Settings.load(environ).home).read_dev()

    async def tell() -> None:
        async with Client(dev.command_url, dev.query_url, dev.operator_token) as client:
            story = Story(client)
            await story.tell()
            await print_report(client, story.org_id, story.position)
        _print_where_next(dev.query_url)

    try:
        asyncio.run(tell())
    except ClientError as error:
        raise LocalError(f"the demo cannot go on: {error}") from error
    return 0


class Story:
    """One telling: every command with its reason, printed as it is acknowledged."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._company = COMPANY
        self.org_id = ""
        self.position = 0

    async def tell(self) -> None:
        """Create a company's platform, run it, break it, and mend it."""
        _print_opening()
        await self._found_company()
        project_id = await self._create("project", "shop", "everything that sells cakes", org_id=self.org_id)
        storefront = await self._create("app", "storefront", "the shop's web site", project_id=project_id)
        orders = await self._create("app", "orders", "takes and tracks orders", project_id=project_id)
        staging = await self._create("env", "staging", "try releases before customers see them", app_id=storefront)
        production = await self._create("env", "production", "what customers see", app_id=storefront)
        back_office = await self._create("env", "production", "what the storefront calls", app_id=orders)
        first = await self._release(storefront, "storefront", 1, STOREFRONT, "first version of the shop")
        ledger = await self._release(orders, "orders", 1, ORDERS, "first version of order taking")
        await self._go_live(staging, production, back_office, first, ledger)
        await self._open_doors(staging, production)
        await self._grow(production, back_office)
        await self._break_and_mend(storefront, staging, production, first)
        await self._show_refusals(project_id, storefront, production)

    async def _found_company(self) -> None:
        """Create the organisation under the first name of its kind that is free."""
        number = 1
        while True:
            self._company = COMPANY if number == 1 else f"{COMPANY}-{number}"
            try:
                self.org_id = await self._create("org", self._company, "signed up for the platform")
            except ProblemError as problem:
                if problem.code != "name_taken":
                    raise
                number += 1
            else:
                return

    async def _go_live(self, staging: str, production: str, back_office: str, first: str, ledger: str) -> None:
        await self._deploy(staging, first, "staging", "does it start at all?")
        await self._deploy(back_office, ledger, "orders production", "orders must be there before the shop")
        await self._deploy(production, first, "production", "opening day")

    async def _open_doors(self, staging: str, production: str) -> None:
        """Let hostnames lead to what runs; all companies share one space of them, so the company's name is in each."""
        preview = await self._route(staging, f"next.{self._company}.example", "the bakers try releases here")
        await self._do("route.delete", "staging", "the bakers have seen enough", route_id=preview)
        shop = await self._route(production, f"www.{self._company}.example", "customers come by this name")
        moved = f"shop.{self._company}.example"
        await self._do("route.update", moved, "it is a shop now", route_id=shop, hostname=moved)

    async def _route(self, env_id: str, hostname: str, reason: str) -> str:
        leads = {"env_id": env_id, "hostname": hostname, "process": "web", "port": "http"}
        return str((await self._do("route.create", hostname, reason, **leads))["route_id"])

    async def _grow(self, production: str, back_office: str) -> None:
        variables = {"ORDERS_URL": "http://orders.internal:9000", "BANNER": "Cake sale on Saturday"}
        await self._do("env.set_config", "production", "announce the sale", env_id=production, variables=variables)
        replicas = {"web": 4, "worker": 2}
        await self._do("env.scale", "production", "Saturday's cake sale", env_id=production, replicas=replicas)
        await self._do(
            "env.scale", "orders production", "the sale brings more orders", env_id=back_office, replicas={"api": 3}
        )

    async def _break_and_mend(self, storefront: str, staging: str, production: str, first: str) -> None:
        second = await self._release(storefront, "storefront", 2, STOREFRONT, "new checkout, ticket SHOP-118")
        await self._deploy(staging, second, "staging", "try the new checkout")
        await self._deploy(production, second, "production", "new checkout for everyone")
        reason = "checkout fails for one customer in ten, incident INC-7"
        await self._deploy(production, first, "production", reason, kind="rollback")

    async def _show_refusals(self, project_id: str, storefront: str, production: str) -> None:
        """Show that rules hold: each of these must be refused."""
        lacking = await self._release(storefront, "storefront", 3, {"worker": STOREFRONT["worker"]}, "lost its web")
        await self._refused("deploy.create", "production", "in a hurry", env_id=production, release_id=lacking)
        await self._refused("env.delete", "production", "by mistake", env_id=production)
        await self._refused("app.create", "a second orders", "by mistake", project_id=project_id, name="orders")
        await self._refused("project.delete", "shop", "by mistake", project_id=project_id)
        replicas = {"mailer": 1}
        await self._refused("env.scale", "no such process", "a typo", env_id=production, replicas=replicas)

    async def _create(self, kind: str, name: str, reason: str, **fields: Any) -> str:
        result = await self._do(f"{kind}.create", name, reason, name=name, **fields)
        return str(result[f"{kind}_id"])

    async def _release(self, app_id: str, app: str, number: int, processes: Mapping[str, Any], reason: str) -> str:
        source = {
            "repository": f"https://git.acorn-bakery.example/{app}",
            "commit": hashlib.sha256(f"{app} {number}".encode()).hexdigest()[:40],
        }
        image = f"images.acorn-bakery.example/{app}@sha256:{hashlib.sha256(f'{app}:{number}'.encode()).hexdigest()}"
        result = await self._do(
            "release.create", f"{app} {number}", reason, app_id=app_id, image=image, processes=processes, source=source
        )
        return str(result["release_id"])

    async def _deploy(self, env_id: str, release_id: str, where: str, reason: str, kind: str = "deploy") -> None:
        fields = {"env_id": env_id, "release_id": release_id, "kind": kind}
        result = await self._do("deploy.create", f"{where} ({kind})", reason, **fields)
        for status, message in (("rolling", "replicas start"), ("succeeded", "all replicas ready")):
            fields = {"deploy_id": str(result["deploy_id"]), "status": status, "message": message}
            await self._do("deploy.set_status", where, f"{status}: {message}", **fields)

    async def _do(self, name: str, what: str, reason: str, /, **data: Any) -> dict[str, Any]:
        answer = await self._client.command(name, data, reason=reason)
        self.position = answer.position
        _print_step(str(answer.position), name, what, reason)
        return answer.result

    async def _refused(self, name: str, what: str, reason: str, /, **data: Any) -> None:
        try:
            await self._client.command(name, data, reason=reason)
        except ProblemError as problem:
            _print_step("", name, what, f"refused, {problem.status} {problem.code}: {problem.detail}")
        else:
            raise LocalError(f"{name} of {what} should have been refused")


def _print_opening() -> None:
    _print(heading("What a small company does"))
    _print(
        paragraph(
            "Each line is a command sent over HTTP, acknowledged when its events are durable at that position of the "
            "log, with the reason that is kept on every one of them."
        )
    )
    _print("")
    _print_step("at", "command", "of", "why")


def _print_step(position: str, name: str, what: str, reason: str) -> None:
    for line in row_lines((position, name, what, reason), _STEP_WIDTHS):
        _print(line)


def _print_where_next(query_url: str) -> None:
    _print(heading("Look around"))
    _print("With the operator token, which is in dev.json and which `make run` printed:")
    _print(f'  curl -H "Authorization: Bearer $TOKEN" "{query_url}/v1/deploys?status=succeeded"')


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
