"""The services do what their OpenAPI documents say, asked over HTTP on a PostgreSQL with something in it."""

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from keelson.client import Client
from keelson.client.commands.release import Port, Process
from support.contract import Contract, Known
from support.database import Cluster, Database
from support.stack import Stack, running_stack

IMAGE = "registry.example/shop@sha256:" + "0" * 64
WEB = Process(command=["serve"], ports=[Port(name="http", port=8080)])

# Examples of each kind, fitting and unfit, for each operation.
EXAMPLES = 5


@asynccontextmanager
async def populated(cluster: Cluster, database: Database, logs: Path) -> AsyncIterator[tuple[Stack, Known]]:
    """Run the services with something of every kind; lend them, and what there is."""
    async with running_stack(cluster, database, logs) as stack:
        async with Client(stack.commands[0].url, stack.queries[0].url, stack.operator_token) as client:
            known = await populate(client)
        yield stack, known


async def populate(client: Client) -> Known:
    """Make two of most things, one of them deleted where that can be; give what there is by kind."""
    known: dict[str, list[Any]] = {}
    orgs = known["org"] = [(await client.org.create(name=name)).result.org_id for name in ("acme", "umbrella")]
    projects = known["project"] = [
        (await client.project.create(org_id=orgs[0], name=name)).result.project_id for name in ("web", "gone")
    ]
    await client.project.delete(project_id=projects[1], reason="to have a deleted one")
    apps = known["app"] = [
        (await client.app.create(project_id=projects[0], name=name)).result.app_id for name in ("shop", "blog")
    ]
    envs = known["env"] = [
        (await client.env.create(app_id=apps[0], name=name)).result.env_id for name in ("production", "staging")
    ]
    releases = known["release"] = [
        (await client.release.create(app_id=apps[0], image=IMAGE, processes={"web": WEB})).result.release_id
        for _ in range(2)
    ]
    deploys = known["deploy"] = [
        (await client.deploy.create(env_id=env_id, release_id=releases[0])).result.deploy_id for env_id in envs
    ]
    await client.deploy.set_status(deploy_id=deploys[0], status="rolling")
    hostnames = ["www.acme.example", "next.acme.example"]
    routes = [
        await client.route.create(env_id=envs[0], hostname=hostname, process="web", port="http", wait_s=20)
        for hostname in hostnames
    ]
    known["route"] = [route.result.route_id for route in routes]
    known["member"] = [
        (await client.org.add_member(org_id=orgs[0], email=f"{who}@acme.example", role="owner")).result.member_id
        for who in ("ada", "grace")
    ]
    scopes = ["apps:read"]
    principal = (await client.principal.create(org_id=orgs[0], name="ci", scopes=scopes)).result
    issued = (await client.principal.issue_credential(principal_id=principal.principal_id)).result
    known |= {"principal": [principal.principal_id], "credential": [issued.credential_id]}
    known |= await populate_node(client, envs[0])
    secret = await client.secret.set(env_id=envs[1], values={"DATABASE_URL": "postgresql://db"}, wait_s=20)
    position = secret.position
    known |= {"secret": [secret.result.secret_id], "min_position": [1, position, f"{secret.epoch}-{position}"]}
    known |= {"name": ["acme", "web", "shop"], "hostname": hostnames, "process": ["web"], "port": ["http"]}
    return known | {"aggregate": [*projects, *envs], "after": [0, 3], "scopes": [scopes]}


async def populate_node(client: Client, env_id: str) -> dict[str, list[Any]]:
    """Let a node enrol, and place an instance on it."""
    token = (await client.node.create_enrollment_token()).result.token
    assert token is not None
    node_id = (await client.node.enroll(token=token, name="n1", cpu_millis=4000, memory_bytes=2**33)).result.node_id
    allocated = await client.instance.allocate(env_id=env_id, process="web", node_id=node_id)
    return {"node": [node_id], "instance": [allocated.result.instance_id]}


async def read_document(url: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/openapi.json") as response:
        document: dict[str, Any] = await response.json()
        return document


async def test_every_service_does_what_its_document_says(cluster: Cluster, database: Database, tmp_path: Path) -> None:
    found: dict[str, str] = {}
    answered: dict[str, bool] = {}
    async with populated(cluster, database, tmp_path) as (stack, known):
        # Reads first: commands delete some of what there is.
        for process in (*stack.queries, *stack.projectors, *stack.commands):
            document = await read_document(process.url)
            contract = Contract(document, process.url, stack.operator_token, known)
            found |= await asyncio.to_thread(contract.find_violations, examples=EXAMPLES)
            answered |= {label: (label, 200) in contract.statuses for label, _ in contract.statuses}

    assert not found, "\n\n".join(f"{label}\n{what}" for label, what in found.items())
    refused = [label for label, ever in answered.items() if not ever]
    assert len(refused) < len(answered) / 2, f"examples of which none is answered with 200 show little: {refused}"


def without_status(document: dict[str, Any]) -> None:
    del document["paths"]["/v1/apps/{id}"]["get"]["responses"]["404"]


def with_another_type(document: dict[str, Any]) -> None:
    document["components"]["schemas"]["AppRow"]["properties"]["name"]["type"] = "integer"


def with_another_content_type(document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/apps/{id}"]["get"]["responses"]["200"]["content"]
    content["application/xml"] = content.pop("application/json")


def with_a_header_that_is_not_given(document: dict[str, Any]) -> None:
    headers = document["paths"]["/v1/apps/{id}"]["get"]["responses"]["200"]["headers"]
    headers["Keelson-Colour"] = {"required": True, "schema": {"type": "string"}}


def with_a_looser_parameter(document: dict[str, Any]) -> None:
    parameters = document["paths"]["/v1/apps"]["get"]["parameters"]
    next(each for each in parameters if each.get("name") == "limit")["schema"] = {"type": "integer", "maximum": 0}


# What is planted, and the operation that then is not what the document says.
PLANTED = {
    without_status: "GET /v1/apps/{id}",
    with_another_type: "GET /v1/apps/{id}",
    with_another_content_type: "GET /v1/apps/{id}",
    with_a_header_that_is_not_given: "GET /v1/apps/{id}",
    with_a_looser_parameter: "GET /v1/apps",
}


async def test_a_document_that_says_something_else_is_found(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    async with populated(cluster, database, tmp_path) as (stack, known):
        url = stack.queries[0].url
        true = await read_document(url)
        missed = []
        for plant, operation in PLANTED.items():
            document = copy.deepcopy(true)
            plant(document)
            contract = Contract(document, url, stack.operator_token, known)
            found = await asyncio.to_thread(contract.find_violations, examples=EXAMPLES, only=operation)
            if not any(label.startswith(f"{operation},") for label in found):
                missed.append(plant.__name__)
        assert not missed
