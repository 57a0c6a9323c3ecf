"""Everybody who may ask for something, with a credential each, and one of everything to ask about.

Two organisations that know nothing of each other, their members in each role, principals, nodes, an operator that the
log knows; and credentials that are good no more. All of it is made by commands, as users make it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from keelson.access.tokens import new_token
from support.command_world import IMAGE, World
from support.waiting import eventually

ROLES = ("owner", "admin", "developer", "readonly")
PRINCIPALS: Mapping[str, tuple[str, ...]] = {
    "star": ("*",),
    "deployer": ("apps:read", "envs:read", "deploys:write"),
    "auditor": ("audit:read",),
}
# What a process of these tests may need: a port, and secrets.
_WEB = {"command": ["x"], "ports": [{"name": "http", "port": 8080}], "needs_secrets": True}


@dataclass(frozen=True)
class Cast:
    """Tokens by who has them, and the ids of the first organisation's things by their fields' names."""

    tokens: Mapping[str, str | None]
    ids: Mapping[str, str]
    foreign: Mapping[str, str]

    @property
    def everybody(self) -> list[str]:
        """All names."""
        return list(self.tokens)


async def assemble(world: World) -> Cast:
    """Make everything, as the operator of the tests; the second organisation first, so that nothing of it is last."""
    tokens: dict[str, str | None] = {"nobody": None, "garbage": "garbage", "unknown": new_token()}
    operator = await _issue(world, "principal", await _make(world, "principal", name="operator", scopes=["operator"]))
    tokens["operator"] = operator[1]
    elsewhere = await _organisation(world, "elsewhere")
    here = await _organisation(world, "here")
    for role in ROLES:
        tokens[role] = here.tokens[role]
        tokens[f"foreign {role}"] = elsewhere.tokens[role]
    for name in PRINCIPALS:
        tokens[name] = here.tokens[name]
    nodes = {name: await enroll(world, name) for name in ("node-1", "node-2")}
    for name, (_, token) in nodes.items():
        tokens[name] = token
    ids = {**here.ids, **await _place(world, here.ids, nodes["node-1"])}
    tokens["revoked"] = await _revoked(world, ids)
    tokens["expired"] = await _expired(world, ids)
    return Cast(tokens, ids, elsewhere.ids)


async def enroll(world: World, name: str) -> tuple[str, str]:
    """Let a machine enrol as a node of this name; give its id and its credential."""
    token = (await world.replica.command("node.create_enrollment_token")).result["token"]
    machine = {"name": name, "cpu_millis": 4000, "memory_bytes": 2**33}
    result = (await world.replica.send_as(None, "node.enroll", token=token, **machine)).result
    return result["node_id"], result["credential"]


@dataclass(frozen=True)
class _Organisation:
    ids: dict[str, str]
    tokens: dict[str, str]


async def _organisation(world: World, name: str) -> _Organisation:
    """Make an organisation with members, principals, and one of each thing that it may have."""
    founded = (await world.replica.command("org.create", name=name, owner_email=f"owner@{name}.example")).result
    ids, tokens = {"org_id": founded["org_id"]}, {}
    members = {"owner": founded["member_id"]}
    for role in ROLES:
        if role not in members:
            added = {"email": f"{role}@{name}.example", "role": role, "name": f"{role} of {name}"}
            members[role] = (await world.replica.command("org.add_member", org_id=ids["org_id"], **added)).result[
                "member_id"
            ]
        issued = (
            await world.replica.command("org.issue_credential", org_id=ids["org_id"], member_id=members[role])
        ).result
        tokens[role] = issued["token"]
        ids["credential_id"] = issued["credential_id"]
    ids |= {"member_id": members["readonly"], "developer_id": members["developer"]}
    for principal, scopes in PRINCIPALS.items():
        made = await _make(world, "principal", org_id=ids["org_id"], name=principal, scopes=list(scopes))
        ids["principal_credential_id"], tokens[principal] = await _issue(world, "principal", made)
        ids["principal_id"] = made
    ids["project_id"] = await _make(world, "project", org_id=ids["org_id"], name="web")
    ids["app_id"] = await _make(world, "app", project_id=ids["project_id"], name="shop")
    ids["env_id"] = await _make(world, "env", app_id=ids["app_id"], name="production")
    processes = {"web": _WEB}
    ids["release_id"] = await _make(world, "release", app_id=ids["app_id"], image=IMAGE, processes=processes)
    ids["deploy_id"] = await _make(world, "deploy", env_id=ids["env_id"], release_id=ids["release_id"])
    route = {"env_id": ids["env_id"], "hostname": f"{name}.example", "process": "web", "port": "http"}
    ids["route_id"] = await _make(world, "route", **route)
    values = {"KEY": f"the secret of {name}"}
    ids["secret_id"] = (await world.replica.command("secret.set", env_id=ids["env_id"], values=values)).result[
        "secret_id"
    ]
    return _Organisation(ids, tokens)


async def _place(world: World, ids: Mapping[str, str], node: tuple[str, str]) -> dict[str, str]:
    """Place an instance on a node, which says that it boots."""
    wanted = {"env_id": ids["env_id"], "process": "web", "node_id": node[0]}
    instance_id = (await world.replica.command("instance.allocate", **wanted)).result["instance_id"]
    return {"node_id": node[0], "instance_id": instance_id}


async def _revoked(world: World, ids: Mapping[str, str]) -> str:
    member = {"org_id": ids["org_id"], "member_id": ids["developer_id"]}
    issued = (await world.replica.command("org.issue_credential", **member)).result
    revoked = await world.replica.command("org.revoke_credential", **member, credential_id=issued["credential_id"])
    assert revoked.status == 200
    return str(issued["token"])


async def _expired(world: World, ids: Mapping[str, str]) -> str:
    member = {"org_id": ids["org_id"], "member_id": ids["developer_id"]}
    expires_at = datetime.now(UTC) + timedelta(seconds=1)
    issued = (await world.replica.command("org.issue_credential", **member, expires_at=expires_at)).result
    await eventually(lambda: datetime.now(UTC) > expires_at)
    return str(issued["token"])


async def _make(world: World, what: str, **fields: Any) -> str:
    return str((await world.replica.command(f"{what}.create", **fields)).result[f"{what}_id"])


async def _issue(world: World, what: str, holder_id: str) -> tuple[str, str]:
    issued = (await world.replica.command(f"{what}.issue_credential", **{f"{what}_id": holder_id})).result
    return issued["credential_id"], issued["token"]
