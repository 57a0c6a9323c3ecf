"""`make demo`: a small company's platform from nothing, then what the views say of it and who did what and why."""

import asyncio
import hashlib
import sys
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from keelson.client import Client, ClientError, Command, ProblemError
from keelson.client.commands.app import CreateApp
from keelson.client.commands.deploy import CreateDeploy, SetDeployStatus
from keelson.client.commands.env import CreateEnv, DeleteEnv, ScaleEnv, SetEnvConfig
from keelson.client.commands.org import CreateOrg
from keelson.client.commands.project import CreateProject, DeleteProject
from keelson.client.commands.release import CreateRelease, Health, Port, Process, Source
from keelson.client.commands.route import CreateRoute, DeleteRoute, UpdateRoute
from keelson.local.errors import LocalError
from keelson.local.home import Home
from keelson.local.report import print_report
from keelson.local.settings import Settings
from keelson.local.terminal import heading, paragraph, row_lines

COMPANY = "acorn-bakery"

_MIB = 1024 * 1024
_STEP_WIDTHS = (6, 18, 30, 40)

STOREFRONT = {
    "web": Process(
        command=["gunicorn", "storefront.wsgi", "--bind", "0.0.0.0:8000"],
        ports=[Port(name="http", port=8000)],
        cpu_millis=500,
        memory_bytes=512 * _MIB,
        health=Health(path="/healthz", port="http", interval_s=5),
    ),
    "worker": Process(command=["python", "-m", "storefront.worker"], memory_bytes=384 * _MIB),
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

R = TypeVar("R")


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
        project_id = await self._project("shop", "everything that sells cakes")
        storefront = await self._app(project_id, "storefront", "the shop's web site")
        orders = await self._app(project_id, "orders", "takes and tracks orders")
        staging = await self._env(storefront, "staging", "try releases before customers see them")
        production = await self._env(storefront, "production", "what customers see")
        back_office = await self._env(orders, "production", "what the storefront calls")
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
                org = await self._do(CreateOrg(name=self._company), self._company, "signed up for the platform")
            except ProblemError as problem:
                if problem.code != "name_taken":
                    raise
                number += 1
            else:
                self.org_id = org.org_id
                return

    async def _project(self, name: str, reason: str) -> str:
        return (await self._do(CreateProject(org_id=self.org_id, name=name), name, reason)).project_id

    async def _app(self, project_id: str, name: str, reason: str) -> str:
        return (await self._do(CreateApp(project_id=project_id, name=name), name, reason)).app_id

    async def _env(self, app_id: str, name: str, reason: str) -> str:
        return (await self._do(CreateEnv(app_id=app_id, name=name), name, reason)).env_id

    async def _go_live(self, staging: str, production: str, back_office: str, first: str, ledger: str) -> None:
        await self._deploy(staging, first, "staging", "does it start at all?")
        await self._deploy(back_office, ledger, "orders production", "orders must be there before the shop")
        await self._deploy(production, first, "production", "opening day")

    async def _open_doors(self, staging: str, production: str) -> None:
        """Let hostnames lead to what runs; all companies share one space of them, so the company's name is in each."""
        preview = await self._route(staging, f"next.{self._company}.example", "the bakers try releases here")
        await self._do(DeleteRoute(route_id=preview), "staging", "the bakers have seen enough")
        shop = await self._route(production, f"www.{self._company}.example", "customers come by this name")
        moved = f"shop.{self._company}.example"
        await self._do(UpdateRoute(route_id=shop, hostname=moved), moved, "it is a shop now")

    async def _route(self, env_id: str, hostname: str, reason: str) -> str:
        command = CreateRoute(env_id=env_id, hostname=hostname, process="web", port="http")
        return (await self._do(command, hostname, reason)).route_id

    async def _grow(self, production: str, back_office: str) -> None:
        variables = {"ORDERS_URL": "http://orders.internal:9000", "BANNER": "Cake sale on Saturday"}
        await self._do(SetEnvConfig(env_id=production, variables=variables), "production", "announce the sale")
        bigger = ScaleEnv(env_id=production, replicas={"web": 4, "worker": 2})
        await self._do(bigger, "production", "Saturday's cake sale")
        busier = ScaleEnv(env_id=back_office, replicas={"api": 3})
        await self._do(busier, "orders production", "the sale brings more orders")

    async def _break_and_mend(self, storefront: str, staging: str, production: str, first: str) -> None:
        second = await self._release(storefront, "storefront", 2, STOREFRONT, "new checkout, ticket SHOP-118")
        await self._deploy(staging, second, "staging", "try the new checkout")
        await self._deploy(production, second, "production", "new checkout for everyone")
        reason = "checkout fails for one customer in ten, incident INC-7"
        await self._deploy(production, first, "production", reason, kind="rollback")

    async def _show_refusals(self, project_id: str, storefront: str, production: str) -> None:
        """Show that rules hold: each of these must be refused."""
        lacking = await self._release(storefront, "storefront", 3, {"worker": STOREFRONT["worker"]}, "lost its web")
        await self._refused(CreateDeploy(env_id=production, release_id=lacking), "production", "in a hurry")
        await self._refused(DeleteEnv(env_id=production), "production", "by mistake")
        await self._refused(CreateApp(project_id=project_id, name="orders"), "a second orders", "by mistake")
        await self._refused(DeleteProject(project_id=project_id), "shop", "by mistake")
        await self._refused(ScaleEnv(env_id=production, replicas={"mailer": 1}), "no such process", "a typo")

    async def _release(self, app_id: str, app: str, number: int, processes: Mapping[str, Process], reason: str) -> str:
        source = Source(
            repository=f"https://git.acorn-bakery.example/{app}",
            commit=hashlib.sha256(f"{app} {number}".encode()).hexdigest()[:40],
        )
        image = f"images.acorn-bakery.example/{app}@sha256:{hashlib.sha256(f'{app}:{number}'.encode()).hexdigest()}"
        command = CreateRelease(app_id=app_id, image=image, processes=processes, source=source)
        return (await self._do(command, f"{app} {number}", reason)).release_id

    async def _deploy(
        self,
        env_id: str,
        release_id: str,
        where: str,
        reason: str,
        kind: Literal["deploy", "rollback"] = "deploy",
    ) -> None:
        command = CreateDeploy(env_id=env_id, release_id=release_id, kind=kind)
        deploy_id = (await self._do(command, f"{where} ({kind})", reason)).deploy_id
        rolling = SetDeployStatus(deploy_id=deploy_id, status="rolling", message="replicas start")
        await self._do(rolling, where, "rolling: replicas start")
        succeeded = SetDeployStatus(deploy_id=deploy_id, status="succeeded", message="all replicas ready")
        await self._do(succeeded, where, "succeeded: all replicas ready")

    async def _do(self, command: Command[R], what: str, reason: str) -> R:
        answer = await self._client.send(command, reason=reason)
        self.position = answer.position
        _print_step(str(answer.position), command.command_name, what, reason)
        return answer.result

    async def _refused(self, command: Command[Any], what: str, reason: str) -> None:
        name = command.command_name
        try:
            await self._client.send(command, reason=reason)
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
