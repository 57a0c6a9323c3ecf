"""The rules of quotas: what is held against the log, when, and what whoever would have too much is told."""

from typing import Any

import pytest

from keelson.command.domain.app import CreateApp, DeleteApp, RenameApp
from keelson.command.domain.deploy import CreateDeploy
from keelson.command.domain.env import CreateEnv, DeleteEnv, RenameEnv, ScaleEnv, SetEnvConfig
from keelson.command.domain.project import CreateProject, DeleteProject, RenameProject
from keelson.command.domain.quota import LARGE_BYTES, MAX_MEMORY_BYTES
from keelson.command.handlers import Command
from keelson.events.app import AppCreated, AppDeleted
from keelson.events.deploy import DeployCreated
from keelson.events.env import EnvCreated, EnvProcess, EnvReleaseSet, EnvScaled
from keelson.events.org import OrgQuotaSet, Quota
from keelson.events.project import ProjectCreated
from keelson.events.release import Process, ReleaseCreated
from support.specs import (
    APP,
    APP_EXISTS,
    DEPLOY,
    ENV,
    ENV_EXISTS,
    ORG,
    ORG_EXISTS,
    PROJECT,
    PROJECT_EXISTS,
    RELEASE,
    Fact,
    Outcome,
    given,
    id_of,
    minted,
)

OTHER_ENV, SMALLER, LARGER = id_of("env", 2), id_of("release", 2), id_of("release", 3)
INSTANCES, MEMORY = f"env.instances:{ORG}", f"env.memory_bytes:{ORG}"


def quota(**allowed: int) -> Fact:
    return (ORG, OrgQuotaSet(quota=Quota(**allowed)))


def process(memory_bytes: int) -> Process:
    return Process(command=("x",), cpu_millis=1, memory_bytes=memory_bytes)


def release(release_id: str, number: int, **memory_bytes: int) -> Fact:
    processes = {name: process(each) for name, each in memory_bytes.items()}
    return (release_id, ReleaseCreated(number=number, image="shop@sha256:0", processes=processes))


def release_set(replicas: int, memory_bytes: int, release_id: str = RELEASE) -> EnvReleaseSet:
    """Give the event of an environment that wants web alone."""
    web = EnvProcess(command=("x",), cpu_millis=1, memory_bytes=memory_bytes, replicas=replicas)
    return EnvReleaseSet(deploy_id=DEPLOY, release_id=release_id, release_number=1, processes={"web": web})


# An environment that wants three of web, 10 bytes each.
RUNNING: tuple[Fact, ...] = (
    *ENV_EXISTS,
    release(RELEASE, 1, web=10),
    release(SMALLER, 2, web=9),
    release(LARGER, 3, web=10, jobs=5),
    (DEPLOY, DeployCreated(release_id=RELEASE, release_number=1, kind="deploy")),
    (ENV, release_set(3, 10)),
)

CREATIONS: list[tuple[tuple[Fact, ...], Command, str, str]] = [
    (ORG_EXISTS, CreateProject(org_id=ORG, name="x"), "projects", f"project.name:{ORG}"),
    (PROJECT_EXISTS, CreateApp(project_id=PROJECT, name="x"), "apps", f"app.of:{ORG}"),
    (APP_EXISTS, CreateEnv(app_id=APP, name="x"), "envs", f"env.of:{ORG}"),
]


@pytest.mark.parametrize(("facts", "command", "name", "scope"), CREATIONS)
def test_what_is_created_is_held_against_the_quota(
    facts: tuple[Fact, ...], command: Command, name: str, scope: str
) -> None:
    assert given(*facts, quota(**{name: 1})).when(command).limiting((scope, 1, None)).refusal is None
    refused = given(*facts, quota(**{name: 0})).when(command).limiting((scope, 0, None)).then_refused("quota_exceeded")
    assert told(refused) == f"the quota {name} allows the organisation 0 and would have 1"


@pytest.mark.parametrize(("facts", "command", "name", "_scope"), CREATIONS)
def test_other_quotas_say_nothing_of_it(facts: tuple[Fact, ...], command: Command, name: str, _scope: str) -> None:
    others = {each: 0 for each in Quota.__struct_fields__ if each != name}
    assert given(*facts, quota(**others)).when(command).limiting().refusal is None
    assert given(*facts).when(command).limiting().refusal is None


@pytest.mark.parametrize(("facts", "command", "name", "_scope"), CREATIONS)
def test_the_organisation_is_in_the_read_set(facts: tuple[Fact, ...], command: Command, name: str, _scope: str) -> None:
    """A quota that is set meanwhile is seen."""
    assert given(*facts, quota(**{name: 1})).when(command).reads.aggregates[ORG] == 2
    assert given(*facts).when(command).reads.aggregates[ORG] == 1


def test_a_quota_that_was_lifted_limits_nothing() -> None:
    lifted = given(*PROJECT_EXISTS, quota(apps=0), quota())
    lifted.when(CreateApp(project_id=PROJECT, name="x")).limiting()


def test_what_is_there_may_be_renamed_configured_and_deleted_under_any_quota() -> None:
    nothing = quota(projects=0, apps=0, envs=0, instances=0, memory_bytes=0)
    for facts, command in (
        (RUNNING, RenameProject(project_id=PROJECT, name="x")),
        (RUNNING, RenameApp(app_id=APP, name="x")),
        (RUNNING, RenameEnv(env_id=ENV, name="x")),
        (RUNNING, SetEnvConfig(env_id=ENV, variables={"A": "1"})),
        (RUNNING, DeleteEnv(env_id=ENV)),
        (APP_EXISTS, DeleteApp(app_id=APP)),
        (PROJECT_EXISTS, DeleteProject(project_id=PROJECT)),
    ):
        assert given(*facts, nothing).when(command).limiting().refusal is None


def test_scaling_up_is_held_against_both_quotas() -> None:
    up = ScaleEnv(env_id=ENV, replicas={"web": 5})
    limited = given(*RUNNING, quota(instances=5, memory_bytes=50)).when(up)
    limited.then((ENV, EnvScaled(replicas={"web": 5}, memory_bytes=50)))
    limited.limiting((INSTANCES, None, 5), (MEMORY, None, 50))
    refused = given(*RUNNING, quota(instances=4)).when(up).then_refused("quota_exceeded")
    assert told(refused) == "the quota instances allows the organisation 4 and would have 5"
    refused = given(*RUNNING, quota(memory_bytes=49)).when(up).then_refused("quota_exceeded")
    assert told(refused) == "the quota memory_bytes allows the organisation 49 and would have 50"


def test_a_quota_is_of_all_the_environments_of_the_organisation() -> None:
    other: dict[str, str] = {"env_id": OTHER_ENV}
    elsewhere: list[Fact] = [(OTHER_ENV, EnvCreated(name="b"), other), (OTHER_ENV, release_set(2, 7), other)]
    up = ScaleEnv(env_id=ENV, replicas={"web": 4})
    assert given(*RUNNING, *elsewhere, quota(instances=6, memory_bytes=54)).when(up).refusal is None
    refused = given(*RUNNING, *elsewhere, quota(instances=5)).when(up).then_refused("quota_exceeded")
    assert told(refused) == "the quota instances allows the organisation 5 and would have 6"
    refused = given(*RUNNING, *elsewhere, quota(memory_bytes=53)).when(up).then_refused("quota_exceeded")
    assert told(refused) == "the quota memory_bytes allows the organisation 53 and would have 54"


def test_what_another_organisation_wants_does_not_count() -> None:
    theirs: dict[str, str] = {"org_id": id_of("org", 2), "env_id": OTHER_ENV}
    elsewhere: list[Fact] = [(OTHER_ENV, EnvCreated(name="b"), theirs), (OTHER_ENV, release_set(90, 7), theirs)]
    given(*RUNNING, *elsewhere, quota(instances=4)).when(ScaleEnv(env_id=ENV, replicas={"web": 4})).then(
        (ENV, EnvScaled(replicas={"web": 4}, memory_bytes=40))
    )


def test_scaling_down_is_never_refused() -> None:
    lowered = given(*RUNNING, quota(instances=1, memory_bytes=1))
    down = lowered.when(ScaleEnv(env_id=ENV, replicas={"web": 2}))
    down.then((ENV, EnvScaled(replicas={"web": 2}, memory_bytes=20))).limiting()


def test_less_of_one_process_and_as_much_more_of_another_is_no_more() -> None:
    facts = (*RUNNING, (ENV, larger_set(web=3, jobs=1)), quota(instances=1, memory_bytes=1))
    given(*facts).when(ScaleEnv(env_id=ENV, replicas={"web": 2, "jobs": 2})).limiting().then(
        (ENV, EnvScaled(replicas={"web": 2, "jobs": 2}, memory_bytes=30))
    )
    # As many replicas, but more memory: only that is held against its quota.
    more = given(*facts).when(ScaleEnv(env_id=ENV, replicas={"web": 4, "jobs": 0})).then_refused("quota_exceeded")
    more.limiting((MEMORY, None, 1))


def larger_set(*, web: int, jobs: int) -> EnvReleaseSet:
    processes = {"web": (web, 10), "jobs": (jobs, 5)}
    wanted = {
        name: EnvProcess(command=("x",), cpu_millis=1, memory_bytes=memory_bytes, replicas=replicas)
        for name, (replicas, memory_bytes) in processes.items()
    }
    return EnvReleaseSet(deploy_id=DEPLOY, release_id=LARGER, release_number=3, processes=wanted)


def test_the_scale_of_before_version_2_is_known_by_the_release() -> None:
    """Its event names no memory; what a replica needs is in the release that was set."""
    scaled_up = (*RUNNING, (ENV, EnvScaled(replicas={"web": 8})), quota(instances=1, memory_bytes=1))
    given(*scaled_up).when(ScaleEnv(env_id=ENV, replicas={"web": 7})).limiting().then(
        (ENV, EnvScaled(replicas={"web": 7}, memory_bytes=70))
    )


def deploy(release_id: str, env_id: str = ENV) -> CreateDeploy:
    return CreateDeploy(env_id=env_id, release_id=release_id, deploy_id=id_of("deploy", 9))


def test_a_first_deploy_wants_one_of_each_process() -> None:
    other: Fact = (OTHER_ENV, EnvCreated(name="b"), {"env_id": OTHER_ENV})
    first = given(*RUNNING, other, quota(instances=5, memory_bytes=45)).when(deploy(LARGER, OTHER_ENV))
    assert first.limiting((INSTANCES, None, 5), (MEMORY, None, 45)).refusal is None
    for allowed in ({"instances": 4}, {"memory_bytes": 44}):
        given(*RUNNING, other, quota(**allowed)).when(deploy(LARGER, OTHER_ENV)).then_refused("quota_exceeded")


def test_a_deploy_keeps_the_scale_and_is_held_against_what_that_needs() -> None:
    larger = given(*RUNNING, quota(instances=4, memory_bytes=35)).when(deploy(LARGER))
    assert larger.limiting((INSTANCES, None, 4), (MEMORY, None, 35)).refusal is None
    given(*RUNNING, quota(instances=3)).when(deploy(LARGER)).then_refused("quota_exceeded")
    given(*RUNNING, quota(memory_bytes=34)).when(deploy(LARGER)).then_refused("quota_exceeded")


def test_deploying_what_needs_no_more_is_never_refused() -> None:
    lowered = given(*RUNNING, quota(instances=1, memory_bytes=1))
    assert lowered.when(deploy(SMALLER)).limiting().refusal is None
    assert lowered.when(deploy(RELEASE)).limiting().refusal is None


def test_a_thousand_of_a_process_are_allowed_by_no_quota_and_more_by_none() -> None:
    many = given(*RUNNING, quota(instances=10**6))
    many.when(ScaleEnv(env_id=ENV, replicas={"web": 1000})).limiting((INSTANCES, None, 10**6))
    refused = many.when(ScaleEnv(env_id=ENV, replicas={"web": 1001})).then_refused("quota_exceeded")
    assert told(refused) == "web may have at most 1000 replicas, 1001 are wanted"


def test_without_a_quota_memory_stays_within_what_the_log_can_add_up() -> None:
    """Two environments that want almost all that a number may hold."""
    facts = (*ENV_EXISTS, release(RELEASE, 1, web=MAX_MEMORY_BYTES, jobs=1), release(SMALLER, 2, web=MAX_MEMORY_BYTES))
    refused = given(*facts).when(deploy(RELEASE)).limiting().then_refused("quota_exceeded")
    most = 9_007_199_254_740_992
    assert told(refused) == f"the quota memory_bytes allows the organisation {most} and would have {most + 1}"
    assert given(*facts).when(deploy(SMALLER)).limiting((MEMORY, None, MAX_MEMORY_BYTES)).refusal is None
    other: Fact = (OTHER_ENV, EnvCreated(name="b"), {"env_id": OTHER_ENV})
    elsewhere: Fact = (OTHER_ENV, release_set(1, 1), {"env_id": OTHER_ENV})
    given(*facts, other, elsewhere).when(deploy(SMALLER)).then_refused("quota_exceeded")
    given(*facts, quota(memory_bytes=2**60)).when(deploy(RELEASE)).then_refused("quota_exceeded")
    limited = given(*facts, quota(memory_bytes=2**60)).when(deploy(SMALLER))
    assert limited.limiting((MEMORY, None, MAX_MEMORY_BYTES)).refusal is None


@pytest.mark.parametrize(("memory_bytes", "limits"), [(LARGE_BYTES, 0), (LARGE_BYTES + 1, 1)])
def test_what_is_of_a_common_size_is_not_held_against_that(memory_bytes: int, limits: int) -> None:
    facts = (*ENV_EXISTS, release(RELEASE, 1, web=memory_bytes))
    given(*facts).when(deploy(RELEASE)).limiting(*[(MEMORY, None, MAX_MEMORY_BYTES)] * limits)


def test_in_a_bundle_the_command_that_goes_too_far_is_named() -> None:
    a, b, c = (CreateApp(project_id=PROJECT, name=name) for name in "abc")
    assert given(*PROJECT_EXISTS, quota(apps=3)).when(a, b, c).refusal is None
    refused = given(*PROJECT_EXISTS, quota(apps=2)).when(a, b, c).then_refused("quota_exceeded", at=2)
    assert told(refused) == "the quota apps allows the organisation 2 and would have 3"
    refused = given(*PROJECT_EXISTS, quota(apps=1)).when(a, b, c).then_refused("quota_exceeded", at=1)
    assert told(refused) == "the quota apps allows the organisation 1 and would have 2"


def test_in_a_bundle_what_is_freed_may_be_taken() -> None:
    freed = given(*APP_EXISTS, quota(apps=1)).when(DeleteApp(app_id=APP), CreateApp(project_id=PROJECT, name="x"))
    freed.limiting((f"app.of:{ORG}", 1, None))
    freed.then((APP, AppDeleted()), (minted("app"), AppCreated(name="x"), {"app_id": minted("app")}))


def test_in_a_bundle_the_parents_come_first() -> None:
    project, app = id_of("project", 5), id_of("app", 5)
    created = given(*ORG_EXISTS, quota(projects=1, apps=1, envs=1)).when(
        CreateProject(org_id=ORG, name="web", project_id=project),
        CreateApp(project_id=project, name="shop", app_id=app),
        CreateEnv(app_id=app, name="production", env_id=ENV),
    )
    created.then(
        (project, ProjectCreated(name="web"), {"project_id": project}),
        (app, AppCreated(name="shop"), {"project_id": project, "app_id": app}),
        (ENV, EnvCreated(name="production"), {"project_id": project, "app_id": app}),
    )


def told(refused: Outcome) -> Any:
    assert refused.refusal is not None
    return refused.refusal.detail
