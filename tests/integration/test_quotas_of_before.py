"""A log that was written before there were quotas: what counts in it, and what the next command sets right."""

import msgspec

from keelson.events import Envelope, Ids
from keelson.events.app import AppCreated
from keelson.events.deploy import DeployCreated
from keelson.events.env import EnvCreated, EnvProcess, EnvReleaseSet, EnvScaledV1
from keelson.events.org import OrgCreated
from keelson.events.project import ProjectCreated
from keelson.events.release import Process, ReleaseCreated
from keelson.log.claims import rebuild_claims, verify_claims
from keelson.log.confirm import read_scope
from keelson.log.migrate import migrate
from support.command_world import World, open_world
from support.database import Database
from support.independent_claims import faults_of_claims
from support.log import connected
from support.specs import APP, DEPLOY, ENV, ORG, PROJECT, RELEASE, id_of
from support.story import Command, Story, insert

OF_ORG = Ids(org_id=ORG)
OF_APP = Ids(org_id=ORG, project_id=PROJECT, app_id=APP)
OF_ENV = Ids(org_id=ORG, project_id=PROJECT, app_id=APP, env_id=ENV)
MEMORY_BYTES = 1000
WEB = Process(command=("x",), cpu_millis=1, memory_bytes=MEMORY_BYTES)
SINCE = ["app.of:%", "env.of:%", "env.instances:%", "env.memory_bytes:%"]
LARGER = id_of("release", 2)


def a_release(number: int, *processes: str) -> ReleaseCreated:
    return ReleaseCreated(number=number, image="shop@sha256:0", processes=dict.fromkeys(processes, WEB))


def log_of_before() -> list[Envelope]:
    """Give an environment that was deployed with one replica, and scaled to four by an event that names no memory."""
    wanted = {"web": EnvProcess(**msgspec.structs.asdict(WEB), replicas=1)}
    commands: list[Command] = [
        [(ORG, OF_ORG, OrgCreated(name="acme"))],
        [(PROJECT, Ids(org_id=ORG, project_id=PROJECT), ProjectCreated(name="web"))],
        [(APP, OF_APP, AppCreated(name="shop"))],
        [(ENV, OF_ENV, EnvCreated(name="production"))],
        [(RELEASE, OF_APP, a_release(1, "web"))],
        [(LARGER, OF_APP, a_release(2, "web", "jobs"))],
        [
            (DEPLOY, OF_ENV, DeployCreated(release_id=RELEASE, release_number=1, kind="deploy")),
            (
                ENV,
                OF_ENV,
                EnvReleaseSet(deploy_id=DEPLOY, release_id=RELEASE, release_number=1, processes=wanted),
            ),
        ],
        [(ENV, OF_ENV, EnvScaledV1(replicas={"web": 4}))],
    ]
    story = Story(first=2)
    return [envelope for command in commands for envelope in story.envelopes(command)]


async def write(database: Database) -> None:
    """Write it with the claims of its version, which are names and numbers; then migrate."""
    async with connected(database.owner_dsn) as owner, connected(database.admin_dsn) as admin:
        await insert(owner, log_of_before())
        await rebuild_claims(owner)
        for table in ("claims", "claim_scopes"):
            await admin.execute(f"DELETE FROM log.{table} WHERE scope LIKE ANY ($1)", SINCE)  # noqa: S608 - ours
        await admin.execute("UPDATE log.claims_version SET version = version - 1")
        assert {each.scope.partition(":")[0] + ":%" for each in await verify_claims(owner)} == set(SINCE)
        assert await migrate(owner) == []


async def wanted(world: World) -> tuple[int, int]:
    """Give the instances and the memory that count."""
    scopes = [await read_scope(world.log, f"env.{name}:{ORG}") for name in ("instances", "memory_bytes")]
    return scopes[0].amount, scopes[1].amount


async def require_claims(world: World) -> None:
    events = [msgspec.structs.asdict(event) for event in await world.events()]
    claims = [dict(row) for row in await world.log.fetch("SELECT * FROM log.claims")]
    scopes = [dict(row) for row in await world.log.fetch("SELECT * FROM log.claim_scopes")]
    assert not faults_of_claims(events, claims, scopes)
    assert await verify_claims(world.log) == []


async def test_what_was_there_counts_once_the_log_was_migrated(database: Database) -> None:
    await write(database)
    async with open_world(database) as world:
        await require_claims(world)
        for name, command, data in (
            ("projects", "project.create", {"org_id": ORG}),
            ("apps", "app.create", {"project_id": PROJECT}),
            ("envs", "env.create", {"app_id": APP}),
        ):
            await world.replica.command("org.set_quota", org_id=ORG, quota={name: 1})
            refused = await world.replica.command(command, name="another", **data)
            assert refused.body["detail"] == f"the quota {name} allows the organisation 1 and would have 2"


async def test_a_scale_of_before_counts_its_replicas_and_leaves_the_memory_of_the_deploy(database: Database) -> None:
    await write(database)
    async with open_world(database) as world:
        assert await wanted(world) == (4, MEMORY_BYTES)
        await world.replica.command(
            "org.set_quota", org_id=ORG, quota={"instances": 4, "memory_bytes": 4 * MEMORY_BYTES}
        )
        refused = await world.replica.command("env.scale", env_id=ENV, replicas={"web": 5})
        assert refused.code == "quota_exceeded"
        # What the environment wants in truth is known by its release: a scale down is one, and sets the memory right.
        assert (await world.replica.command("env.scale", env_id=ENV, replicas={"web": 3})).status == 200
        assert await wanted(world) == (3, 3 * MEMORY_BYTES)
        await require_claims(world)


async def test_a_scale_down_of_before_is_not_refused_though_its_memory_counts_more_afterwards(
    database: Database,
) -> None:
    await write(database)
    async with open_world(database) as world:
        await world.replica.command("org.set_quota", org_id=ORG, quota={"memory_bytes": 1})
        assert (await world.replica.command("env.scale", env_id=ENV, replicas={"web": 2})).status == 200
        assert await wanted(world) == (2, 2 * MEMORY_BYTES)


async def test_the_next_deploy_sets_the_memory_right_too(database: Database) -> None:
    await write(database)
    async with open_world(database) as world:
        assert (await world.replica.command("deploy.create", env_id=ENV, release_id=LARGER)).status == 200
        assert await wanted(world) == (5, 5 * MEMORY_BYTES)
        await require_claims(world)
