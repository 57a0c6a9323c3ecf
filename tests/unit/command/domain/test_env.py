"""The rules of environments."""

import pytest

from keelson.command.domain.env import CreateEnv, DeleteEnv, RenameEnv, ScaleEnv, SetEnvConfig
from keelson.events.app import AppDeleted
from keelson.events.deploy import DeployCreated, DeployStatus, DeployStatusChanged
from keelson.events.env import (
    EnvConfigSet,
    EnvCreated,
    EnvDeleted,
    EnvProcess,
    EnvReleaseSet,
    EnvRenamed,
    EnvScaled,
)
from support.specs import APP, APP_EXISTS, DEPLOY, ENV, ENV_EXISTS, ORG, RELEASE, Fact, given, minted

ENV_DELETED = (*ENV_EXISTS, (ENV, EnvDeleted()))
PRODUCTION = CreateEnv(app_id=APP, name="production", env_id=ENV)


def process(replicas: int, memory_bytes: int) -> EnvProcess:
    return EnvProcess(command=("x",), cpu_millis=250, memory_bytes=memory_bytes, replicas=replicas)


def scaled_to(web: int, jobs: int) -> EnvScaled:
    """Give the event; a replica of web needs 10 bytes, one of jobs 7."""
    return EnvScaled(replicas={"web": web, "jobs": jobs}, memory_bytes=10 * web + 7 * jobs)


RUNS_WEB_AND_JOBS: tuple[Fact, ...] = (
    *ENV_EXISTS,
    (DEPLOY, DeployCreated(release_id=RELEASE, release_number=1, kind="deploy")),
    (
        ENV,
        EnvReleaseSet(
            deploy_id=DEPLOY,
            release_id=RELEASE,
            release_number=1,
            processes={"web": process(1, 10), "jobs": process(1, 7)},
        ),
    ),
)


def test_an_environment_is_created_in_an_app() -> None:
    env = minted("env")
    created = given(*APP_EXISTS).when(CreateEnv(app_id=APP, name="production"))
    created.then((env, EnvCreated(name="production"), {"env_id": env})).answering(env_id=env)


def test_its_name_is_taken_in_the_app() -> None:
    given(*APP_EXISTS).when(PRODUCTION).taking((f"env.name:{APP}", "production"), (f"env.of:{ORG}", ENV))


def test_its_app_must_be_there() -> None:
    given().when(PRODUCTION).then_refused("not_found")
    given(*APP_EXISTS, (APP, AppDeleted())).when(PRODUCTION).then_refused("not_found")


def test_an_id_that_ever_existed_is_taken() -> None:
    given(*ENV_EXISTS).when(PRODUCTION).then_refused("id_taken")
    given(*ENV_DELETED).when(PRODUCTION).then_refused("id_taken")


def test_renaming_exchanges_the_name() -> None:
    renamed = given(*ENV_EXISTS).when(RenameEnv(env_id=ENV, name="live"))
    renamed.then((ENV, EnvRenamed(name="live"))).taking((f"env.name:{APP}", "live")).answering(env_id=ENV)


def test_renaming_to_the_same_name_changes_nothing() -> None:
    given(*ENV_EXISTS).when(RenameEnv(env_id=ENV, name="production")).then_nothing()


def test_an_environment_is_deleted_and_its_name_is_free() -> None:
    again = minted("env")
    given(*ENV_EXISTS).when(DeleteEnv(env_id=ENV), CreateEnv(app_id=APP, name="production")).then(
        (ENV, EnvDeleted()), (again, EnvCreated(name="production"), {"env_id": again})
    )


@pytest.mark.parametrize("statuses", [(), ("rolling",)])
def test_deleting_it_supersedes_the_open_deploy(statuses: tuple[DeployStatus, ...]) -> None:
    so_far = [(DEPLOY, DeployStatusChanged(status=status)) for status in statuses]
    given(*RUNS_WEB_AND_JOBS, *so_far).when(DeleteEnv(env_id=ENV)).then(
        (DEPLOY, DeployStatusChanged(status="superseded", message="the environment was deleted")), (ENV, EnvDeleted())
    )


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_deleting_it_leaves_a_deploy_that_has_ended(status: DeployStatus) -> None:
    ended = [(DEPLOY, DeployStatusChanged(status="rolling")), (DEPLOY, DeployStatusChanged(status=status))]
    given(*RUNS_WEB_AND_JOBS, *ended).when(DeleteEnv(env_id=ENV)).then((ENV, EnvDeleted()))


def test_what_is_deleted_is_not_found() -> None:
    deleted = given(*ENV_DELETED)
    for command in (
        RenameEnv(env_id=ENV, name="x"),
        DeleteEnv(env_id=ENV),
        ScaleEnv(env_id=ENV, replicas={"web": 1}),
        SetEnvConfig(env_id=ENV, variables={}),
    ):
        deleted.when(command).then_refused("not_found")


def test_scaling_names_some_processes_and_tells_the_whole() -> None:
    scaled = given(*RUNS_WEB_AND_JOBS).when(ScaleEnv(env_id=ENV, replicas={"web": 3}))
    scaled.then((ENV, scaled_to(3, 1))).answering(env_id=ENV)


def test_scaling_goes_on_from_the_scale_before() -> None:
    scaled = (ENV, scaled_to(3, 1))
    given(*RUNS_WEB_AND_JOBS, scaled).when(ScaleEnv(env_id=ENV, replicas={"jobs": 0})).then((ENV, scaled_to(3, 0)))


@pytest.mark.parametrize("replicas", [0, 1000])
def test_nothing_and_a_thousand_are_scales(replicas: int) -> None:
    given(*RUNS_WEB_AND_JOBS).when(ScaleEnv(env_id=ENV, replicas={"web": replicas})).then((ENV, scaled_to(replicas, 1)))


def test_more_than_a_thousand_exceed_the_quota() -> None:
    given(*RUNS_WEB_AND_JOBS).when(ScaleEnv(env_id=ENV, replicas={"web": 1001})).then_refused("quota_exceeded")


def test_a_process_that_the_release_lacks_is_unknown() -> None:
    given(*RUNS_WEB_AND_JOBS).when(ScaleEnv(env_id=ENV, replicas={"web": 2, "cron": 1})).then_refused("unknown_process")


def test_without_a_release_every_process_is_unknown() -> None:
    given(*ENV_EXISTS).when(ScaleEnv(env_id=ENV, replicas={"web": 1})).then_refused("unknown_process")


def test_the_scale_that_there_is_changes_nothing() -> None:
    given(*RUNS_WEB_AND_JOBS).when(ScaleEnv(env_id=ENV, replicas={"jobs": 1, "web": 1})).then_nothing()


def test_config_is_the_whole_set() -> None:
    before = (ENV, EnvConfigSet(variables={"A": "1", "B": "2"}))
    given(*ENV_EXISTS, before).when(SetEnvConfig(env_id=ENV, variables={"B": "3"})).then(
        (ENV, EnvConfigSet(variables={"B": "3"}))
    ).answering(env_id=ENV)


def test_config_may_become_empty() -> None:
    before = (ENV, EnvConfigSet(variables={"A": "1"}))
    given(*ENV_EXISTS, before).when(SetEnvConfig(env_id=ENV, variables={})).then((ENV, EnvConfigSet(variables={})))


def test_the_config_that_there_is_changes_nothing() -> None:
    given(*ENV_EXISTS).when(SetEnvConfig(env_id=ENV, variables={})).then_nothing()
    before = (ENV, EnvConfigSet(variables={"A": "1", "B": "2"}))
    given(*ENV_EXISTS, before).when(SetEnvConfig(env_id=ENV, variables={"B": "2", "A": "1"})).then_nothing()


def test_in_a_bundle_each_change_is_an_event_of_its_own() -> None:
    given(*RUNS_WEB_AND_JOBS).when(
        ScaleEnv(env_id=ENV, replicas={"web": 2}),
        ScaleEnv(env_id=ENV, replicas={"jobs": 2}),
        SetEnvConfig(env_id=ENV, variables={"A": "1"}),
        RenameEnv(env_id=ENV, name="live"),
    ).then(
        (ENV, scaled_to(2, 1)),
        (ENV, scaled_to(2, 2)),
        (ENV, EnvConfigSet(variables={"A": "1"})),
        (ENV, EnvRenamed(name="live")),
    )
