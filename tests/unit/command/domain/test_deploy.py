"""The rules of deploys."""

from typing import Literal

import msgspec
import pytest

from keelson.command.domain.deploy import CreateDeploy, SetDeployStatus
from keelson.command.domain.env import CreateEnv, ScaleEnv
from keelson.events.deploy import DeployCreated, DeployKind, DeployStatus, DeployStatusChanged
from keelson.events.env import EnvCreated, EnvDeleted, EnvProcess, EnvReleaseSet, EnvScaled
from keelson.events.release import Health, Port, Process, ReleaseCreated
from support.specs import APP, APP_EXISTS, DEPLOY, ENV, ENV_EXISTS, RELEASE, Fact, given, id_of, minted

Said = Literal["rolling", "succeeded", "failed"]

NEXT_DEPLOY = id_of("deploy", 2)
NEXT_RELEASE = id_of("release", 2)
OTHER_APP = id_of("app", 2)
OTHER_ENV = id_of("env", 2)

WEB = Process(command=("serve",), ports=(Port("http", 80),), cpu_millis=250, memory_bytes=1, health=Health(port="http"))
JOBS = Process(command=("work",), cpu_millis=500, memory_bytes=2, needs_secrets=True)
CRON = Process(command=("tick",), cpu_millis=1, memory_bytes=3)


def release(release_id: str, number: int, *, app_id: str = APP, **processes: Process) -> Fact:
    event = ReleaseCreated(number=number, image="shop@sha256:0", processes=processes)
    return (release_id, event, {"app_id": app_id})


def deploys(
    deploy_id: str, release_id: str, number: int, kind: DeployKind = "deploy", /, **wanted: EnvProcess
) -> list[Fact]:
    """Give what a deploy into the environment appends, but for superseding another."""
    return [
        (deploy_id, DeployCreated(release_id=release_id, release_number=number, kind=kind)),
        (ENV, EnvReleaseSet(deploy_id=deploy_id, release_id=release_id, release_number=number, processes=wanted)),
    ]


def times(replicas: int, process: Process) -> EnvProcess:
    return EnvProcess(**msgspec.structs.asdict(process), replicas=replicas)


def superseded(deploy_id: str, by: str) -> Fact:
    return (deploy_id, DeployStatusChanged(status="superseded", message=f"deploy {by} took its place"))


RELEASES = (release(RELEASE, 1, web=WEB, jobs=JOBS), release(NEXT_RELEASE, 2, web=WEB, cron=CRON))
RELEASED = (*ENV_EXISTS, *RELEASES)
DEPLOYED = (*RELEASED, *deploys(DEPLOY, RELEASE, 1, web=times(1, WEB), jobs=times(1, JOBS)))
ROLLING = (*DEPLOYED, (DEPLOY, DeployStatusChanged(status="rolling")))

DEPLOY_IT = CreateDeploy(env_id=ENV, release_id=RELEASE)
DEPLOY_NEXT = CreateDeploy(env_id=ENV, release_id=NEXT_RELEASE, deploy_id=NEXT_DEPLOY)


def test_a_deploy_is_queued_and_sets_the_release_at_once() -> None:
    deploy = minted("deploy")
    outcome = given(*RELEASED).when(DEPLOY_IT)
    outcome.then(*deploys(deploy, RELEASE, 1, web=times(1, WEB), jobs=times(1, JOBS))).answering(deploy_id=deploy)


def test_a_rollback_is_a_deploy_of_that_kind() -> None:
    rollback = CreateDeploy(env_id=ENV, release_id=RELEASE, kind="rollback", deploy_id=DEPLOY)
    outcome = given(*RELEASED).when(rollback)
    outcome.then(*deploys(DEPLOY, RELEASE, 1, "rollback", web=times(1, WEB), jobs=times(1, JOBS)))


def test_environment_and_release_must_be_there() -> None:
    given(*ENV_EXISTS).when(DEPLOY_IT).then_refused("not_found")
    given(*RELEASED, (ENV, EnvDeleted())).when(DEPLOY_IT).then_refused("not_found")


def test_they_must_be_of_one_app() -> None:
    foreign = release(id_of("release", 3), 1, app_id=OTHER_APP, web=WEB)
    given(*RELEASED, foreign).when(CreateDeploy(env_id=ENV, release_id=id_of("release", 3))).then_refused("wrong_app")


def test_an_id_that_exists_is_taken() -> None:
    again = CreateDeploy(env_id=ENV, release_id=RELEASE, deploy_id=DEPLOY)
    given(*DEPLOYED).when(again).then_refused("id_taken")


@pytest.mark.parametrize("history", [DEPLOYED, ROLLING])
def test_a_newer_deploy_supersedes_the_open_one(history: tuple[Fact, ...]) -> None:
    given(*history).when(DEPLOY_NEXT).then(
        superseded(DEPLOY, NEXT_DEPLOY),
        *deploys(NEXT_DEPLOY, NEXT_RELEASE, 2, web=times(1, WEB), cron=times(1, CRON)),
    )


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_a_deploy_that_has_ended_stays_as_it_ended(status: DeployStatus) -> None:
    given(*ROLLING, (DEPLOY, DeployStatusChanged(status=status))).when(DEPLOY_NEXT).then(
        *deploys(NEXT_DEPLOY, NEXT_RELEASE, 2, web=times(1, WEB), cron=times(1, CRON))
    )


def test_only_the_last_deploy_of_this_environment_is_superseded() -> None:
    elsewhere = id_of("deploy", 9)
    other_env: list[Fact] = [
        (OTHER_ENV, EnvCreated(name="staging"), {"env_id": OTHER_ENV}),
        (elsewhere, DeployCreated(release_id=RELEASE, release_number=1, kind="deploy"), {"env_id": OTHER_ENV}),
        (
            OTHER_ENV,
            EnvReleaseSet(deploy_id=elsewhere, release_id=RELEASE, release_number=1, processes={"web": times(1, WEB)}),
        ),
    ]
    given(*DEPLOYED, *other_env).when(DEPLOY_NEXT).then(
        superseded(DEPLOY, NEXT_DEPLOY),
        *deploys(NEXT_DEPLOY, NEXT_RELEASE, 2, web=times(1, WEB), cron=times(1, CRON)),
    )


def test_the_same_release_may_be_deployed_again() -> None:
    again = CreateDeploy(env_id=ENV, release_id=RELEASE, deploy_id=NEXT_DEPLOY)
    given(*DEPLOYED).when(again).then(
        superseded(DEPLOY, NEXT_DEPLOY),
        *deploys(NEXT_DEPLOY, RELEASE, 1, web=times(1, WEB), jobs=times(1, JOBS)),
    )


def test_a_process_keeps_its_scale_over_releases_and_one_that_leaves_loses_it() -> None:
    scaled = (ENV, EnvScaled(replicas={"web": 5, "jobs": 0}))
    left = deploys(NEXT_DEPLOY, NEXT_RELEASE, 2, web=times(5, WEB), cron=times(1, CRON))
    given(*DEPLOYED, scaled).when(DEPLOY_NEXT).then(superseded(DEPLOY, NEXT_DEPLOY), *left)
    third = CreateDeploy(env_id=ENV, release_id=RELEASE, deploy_id=id_of("deploy", 3))
    given(*DEPLOYED, scaled, *left).when(third).then(
        superseded(NEXT_DEPLOY, id_of("deploy", 3)),
        *deploys(id_of("deploy", 3), RELEASE, 1, web=times(5, WEB), jobs=times(1, JOBS)),
    )


def test_in_a_bundle_an_environment_is_made_deployed_and_scaled() -> None:
    given(*APP_EXISTS, *RELEASES).when(
        CreateEnv(app_id=APP, name="production", env_id=ENV),
        CreateDeploy(env_id=ENV, release_id=RELEASE, deploy_id=DEPLOY),
        ScaleEnv(env_id=ENV, replicas={"web": 2}),
        DEPLOY_NEXT,
    ).then(
        (ENV, EnvCreated(name="production")),
        *deploys(DEPLOY, RELEASE, 1, web=times(1, WEB), jobs=times(1, JOBS)),
        (ENV, EnvScaled(replicas={"web": 2, "jobs": 1}, memory_bytes=2 * 1 + 1 * 2)),
        superseded(DEPLOY, NEXT_DEPLOY),
        *deploys(NEXT_DEPLOY, NEXT_RELEASE, 2, web=times(2, WEB), cron=times(1, CRON)),
    )


# Every status by every status that a client may say.
TRANSITIONS: dict[DeployStatus, set[Said]] = {
    "queued": {"rolling", "failed"},
    "rolling": {"succeeded", "failed"},
    "succeeded": set(),
    "failed": set(),
    "superseded": set(),
}


def in_status(status: DeployStatus) -> tuple[Fact, ...]:
    return DEPLOYED if status == "queued" else (*DEPLOYED, (DEPLOY, DeployStatusChanged(status=status)))


@pytest.mark.parametrize("said", ["rolling", "succeeded", "failed"])
@pytest.mark.parametrize("status", TRANSITIONS)
def test_a_deploy_goes_on_only_as_it_may(status: DeployStatus, said: Said) -> None:
    outcome = given(*in_status(status)).when(SetDeployStatus(deploy_id=DEPLOY, status=said, message="because"))
    if said == status:
        outcome.then_nothing().answering(deploy_id=DEPLOY)
    elif said in TRANSITIONS[status]:
        outcome.then((DEPLOY, DeployStatusChanged(status=said, message="because"))).answering(deploy_id=DEPLOY)
    else:
        outcome.then_refused("invalid_transition")


@pytest.mark.parametrize("said", ["queued", "superseded", "done"])
def test_no_client_says_that_a_deploy_is_queued_or_superseded(said: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"deploy_id": DEPLOY, "status": said}, SetDeployStatus)


def test_a_failed_deploy_leaves_the_environment_as_it_is() -> None:
    failed = SetDeployStatus(deploy_id=DEPLOY, status="failed")
    given(*ROLLING).when(failed).then((DEPLOY, DeployStatusChanged(status="failed")))


def test_a_deploy_that_never_was_is_not_found() -> None:
    given(*DEPLOYED).when(SetDeployStatus(deploy_id=NEXT_DEPLOY, status="rolling")).then_refused("not_found")


def test_in_a_bundle_a_deploy_goes_all_its_way() -> None:
    given(*RELEASED).when(
        CreateDeploy(env_id=ENV, release_id=RELEASE, deploy_id=DEPLOY),
        SetDeployStatus(deploy_id=DEPLOY, status="rolling"),
        SetDeployStatus(deploy_id=DEPLOY, status="succeeded"),
        DEPLOY_NEXT,
    ).then(
        *deploys(DEPLOY, RELEASE, 1, web=times(1, WEB), jobs=times(1, JOBS)),
        (DEPLOY, DeployStatusChanged(status="rolling")),
        (DEPLOY, DeployStatusChanged(status="succeeded")),
        *deploys(NEXT_DEPLOY, NEXT_RELEASE, 2, web=times(1, WEB), cron=times(1, CRON)),
    )
