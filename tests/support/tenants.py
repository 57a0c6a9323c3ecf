"""Tenants with quotas: an organisation that has some of everything, and what takes its last place of each."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from support.command_world import IMAGE, Answer, Replica, World

MEMORY_BYTES = 1000


@dataclass(frozen=True)
class Tenant:
    """An organisation with a project, an app, and two environments that want one replica of web each."""

    world: World
    org_id: str
    project_id: str
    app_id: str
    envs: tuple[str, str]
    small: str
    large: str

    async def set_quota(self, **quota: int) -> None:
        """Set the whole of its quota."""
        answer = await self.world.replica.command("org.set_quota", org_id=self.org_id, quota=quota)
        assert answer.status == 200, answer.body


async def open_tenant(world: World) -> Tenant:
    """Make one; the large release has jobs beside web."""
    org_id = await world.create_org()
    project_id = await world.replica.create("project", org_id=org_id, name="web")
    app_id = await world.replica.create("app", project_id=project_id, name="shop")
    small = await _create_release(world, app_id, "web")
    large = await _create_release(world, app_id, "web", "jobs")
    envs = []
    for name in ("staging", "production"):
        envs.append(await world.replica.create("env", app_id=app_id, name=name))
        await world.replica.create("deploy", env_id=envs[-1], release_id=small)
    return Tenant(world, org_id, project_id, app_id, (envs[0], envs[1]), small, large)


async def _create_release(world: World, app_id: str, *processes: str) -> str:
    process = {"command": ["x"], "memory_bytes": MEMORY_BYTES}
    return await world.replica.create(
        "release", app_id=app_id, image=IMAGE, processes=dict.fromkeys(processes, process)
    )


# Ask a replica for one more, in the first or the second of what a tenant has; and give it back.
Take = Callable[[Replica, Tenant, int], Awaitable[Answer]]
GiveBack = Callable[[Replica, Tenant, int, Any], Awaitable[Answer]]


async def take_project(replica: Replica, tenant: Tenant, number: int) -> Answer:
    """Create one."""
    return await replica.command("project.create", org_id=tenant.org_id, name=f"another-{number}")


async def delete_project(replica: Replica, _tenant: Tenant, _number: int, result: Any) -> Answer:
    """Delete it."""
    return await replica.command("project.delete", project_id=result["project_id"])


async def take_app(replica: Replica, tenant: Tenant, number: int) -> Answer:
    """Create one."""
    return await replica.command("app.create", project_id=tenant.project_id, name=f"another-{number}")


async def delete_app(replica: Replica, _tenant: Tenant, _number: int, result: Any) -> Answer:
    """Delete it."""
    return await replica.command("app.delete", app_id=result["app_id"])


async def take_env(replica: Replica, tenant: Tenant, number: int) -> Answer:
    """Create one."""
    return await replica.command("env.create", app_id=tenant.app_id, name=f"another-{number}")


async def delete_env(replica: Replica, _tenant: Tenant, _number: int, result: Any) -> Answer:
    """Delete it."""
    return await replica.command("env.delete", env_id=result["env_id"])


async def scale_up(replica: Replica, tenant: Tenant, number: int) -> Answer:
    """Want two of web."""
    return await replica.command("env.scale", env_id=tenant.envs[number], replicas={"web": 2})


async def scale_down(replica: Replica, tenant: Tenant, number: int, _result: Any) -> Answer:
    """Want one of web again."""
    return await replica.command("env.scale", env_id=tenant.envs[number], replicas={"web": 1})


async def deploy_large(replica: Replica, tenant: Tenant, number: int) -> Answer:
    """Want one of jobs beside one of web."""
    return await replica.command("deploy.create", env_id=tenant.envs[number], release_id=tenant.large)


async def deploy_small(replica: Replica, tenant: Tenant, number: int, _result: Any) -> Answer:
    """Want web alone again."""
    return await replica.command("deploy.create", env_id=tenant.envs[number], release_id=tenant.small)


@dataclass(frozen=True)
class Kind:
    """A quota, what the tenant may have when one place is left, and how that is taken and given back."""

    quota: str
    allowed: int
    take: Take
    give_back: GiveBack


KINDS = {
    "projects": Kind("projects", 2, take_project, delete_project),
    "apps": Kind("apps", 2, take_app, delete_app),
    "envs": Kind("envs", 3, take_env, delete_env),
    "instances by scale": Kind("instances", 3, scale_up, scale_down),
    "instances by deploy": Kind("instances", 3, deploy_large, deploy_small),
    "memory_bytes by scale": Kind("memory_bytes", 3 * MEMORY_BYTES, scale_up, scale_down),
    "memory_bytes by deploy": Kind("memory_bytes", 3 * MEMORY_BYTES, deploy_large, deploy_small),
}
