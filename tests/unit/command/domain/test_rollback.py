"""The rules of rollbacks."""

from typing import Any

import msgspec
import pytest

from keelson.command.domain.env import SetEnvConfig
from keelson.command.domain.rollback import RollBackEnv
from keelson.events.deploy import DeployCreated, DeployStatusChanged
from keelson.events.env import EnvConfigSet, EnvCreated, EnvProcess, EnvReleaseSet, EnvScaled
from keelson.events.release import Port, Process, ReleaseCreated
from keelson.events.route import RouteCreated, RouteDeleted, RouteUpdated
from keelson.events.secret import SecretCreated, SecretDeleted, SecretVersionSet
from support.specs import (
    DEPLOY,
    ENV,
    ENV_EXISTS,
    RELEASE,
    ROUTE,
    SECRET,
    Fact,
    Given,
    given,
    id_of,
    minted,
)

OTHER_ENV, OTHER_DEPLOY, OTHER_RELEASE = id_of("env", 2), id_of("deploy", 2), id_of("release", 2)
OTHER_ROUTE, OTHER_SECRET = id_of("route", 2), id_of("secret", 2)
NEW_DEPLOY, NEW_ROUTE = minted("deploy", 1), minted("route", 1)

HTTP = (Port("http", 80),)
SHOP, API = "shop.example", "api.example"
V1 = {"release_id": RELEASE, "release_number": 1}
V2 = {"release_id": OTHER_RELEASE, "release_number": 2}
TO_WEB, TO_JOBS = {"process": "web", "port": "http"}, {"process": "jobs", "port": "http"}


def release(release_id: str, number: int, *processes: str, ports: tuple[Port, ...] = HTTP) -> Fact:
    made = {name: Process(command=(name,), ports=ports, cpu_millis=1, memory_bytes=1) for name in processes}
    return (release_id, ReleaseCreated(number=number, image="shop@sha256:0", processes=made))


def runs(deploy_id: str, release_id: str, number: int, **replicas: int) -> Fact:
    """Give that the environment wants a release, with so many of each process."""
    processes = {
        name: EnvProcess(command=(name,), ports=HTTP, cpu_millis=1, memory_bytes=1, replicas=wanted)
        for name, wanted in replicas.items()
    }
    return (
        ENV,
        EnvReleaseSet(deploy_id=deploy_id, release_id=release_id, release_number=number, processes=processes),
    )


def created(release_id: str, number: int, kind: Any = "deploy") -> DeployCreated:
    return DeployCreated(release_id=release_id, release_number=number, kind=kind)


def routed(hostname: str, process: str, route_id: str = ROUTE) -> Fact:
    return (route_id, RouteCreated(hostname=hostname, process=process, port="http"))


def version(number: int, values: dict[str, str]) -> SecretVersionSet:
    return SecretVersionSet(version=number, keys=tuple(sorted(values)), digest=f"{SECRET}: {sorted(values.items())}")


# The environment with release 1, at position 9: web twice, jobs once.
AT_V1: tuple[Fact, ...] = (
    *ENV_EXISTS,
    release(RELEASE, 1, "web", "jobs"),
    release(OTHER_RELEASE, 2, "web"),
    (DEPLOY, created(RELEASE, 1)),
    runs(DEPLOY, RELEASE, 1, web=1, jobs=1),
    (ENV, EnvScaled(replicas={"web": 2, "jobs": 1})),
)
# And with release 2, at position 11, its deploy not finished.
AT_V2: tuple[Fact, ...] = (
    *AT_V1,
    (OTHER_DEPLOY, created(OTHER_RELEASE, 2)),
    runs(OTHER_DEPLOY, OTHER_RELEASE, 2, web=2),
)

BACK_AT_V1: tuple[Fact, ...] = (
    (DEPLOY, DeployStatusChanged(status="superseded", message=f"deploy {NEW_DEPLOY} took its place")),
)


def superseded(deploy_id: str) -> Fact:
    message = f"deploy {NEW_DEPLOY} took its place"
    return (deploy_id, DeployStatusChanged(status="superseded", message=message))


def back(**to: Any) -> RollBackEnv:
    return RollBackEnv(env_id=ENV, **to)


def change(what: str, before: Any, after: Any) -> dict[str, Any]:
    return {"what": what, "from": before, "to": after}


def changes_of(history: Given, command: RollBackEnv) -> list[dict[str, Any]]:
    """Give what a rollback names; a dry run names the same, and appends nothing."""
    [named] = [msgspec.to_builtins(result)["changes"] for result in history.when(command).results]
    dry = history.when(msgspec.structs.replace(command, dry_run=True)).then_nothing().secrets()
    assert [msgspec.to_builtins(result) for result in dry.results] == [{"deploy_id": None, "changes": named}]
    assert isinstance(named, list)
    return named


@pytest.mark.parametrize("to", [{"deploy_id": DEPLOY}, {"release_id": RELEASE}])
def test_to_a_deploy_or_a_release_it_is_a_deploy_of_that_release(to: dict[str, str]) -> None:
    changes = [change("release", V2, V1), change("replicas/jobs", None, 1)]
    (
        given(*AT_V2)
        .when(back(**to))
        .then(
            superseded(OTHER_DEPLOY),
            (NEW_DEPLOY, created(RELEASE, 1, "rollback")),
            runs(NEW_DEPLOY, RELEASE, 1, web=2, jobs=1),
        )
        .answering(deploy_id=NEW_DEPLOY, changes=changes)
    )
    assert changes_of(given(*AT_V2), back(**to)) == changes


def test_to_the_release_that_it_has_there_is_nothing_to_do() -> None:
    given(*AT_V1).when(back(deploy_id=DEPLOY)).then_nothing().answering(deploy_id=None, changes=[])


def test_a_release_is_held_against_the_routes_as_in_a_deploy() -> None:
    history = (*AT_V1, routed(SHOP, "jobs"))
    given(*history).when(back(release_id=OTHER_RELEASE)).then_refused("route_would_break")


def test_what_is_gone_back_to_must_be_of_this_environment_or_its_app() -> None:
    elsewhere: Fact = (OTHER_DEPLOY, created(RELEASE, 1), {"env_id": OTHER_ENV})
    refused = given(*AT_V1, elsewhere).when(back(deploy_id=OTHER_DEPLOY)).then_refused("cannot_restore")
    assert refused.reasons == [("/deploy_id", f"deploy {OTHER_DEPLOY} is of another environment")]
    foreign: Fact = (id_of("release", 3), release("", 1, "web")[1], {"app_id": id_of("app", 2)})
    given(*AT_V1, foreign).when(back(release_id=foreign[0])).then_refused("wrong_app")
    given(*AT_V1).when(back(deploy_id=id_of("deploy", 3))).then_refused("not_found")
    given(*AT_V1).when(back(release_id=id_of("release", 3))).then_refused("not_found")
    given().when(back(position=1)).then_refused("not_found")


@pytest.mark.parametrize(
    "to", [{}, {"position": 0}, {"position": 1, "deploy_id": DEPLOY}, {"deploy_id": DEPLOY, "release_id": RELEASE}]
)
def test_exactly_one_thing_says_where_to(to: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"env_id": ENV, **to}, RollBackEnv)


def test_to_a_position_the_release_comes_with_the_replicas_of_then() -> None:
    history = (*AT_V2, (ENV, EnvScaled(replicas={"web": 5})))
    changes = [change("release", V2, V1), change("replicas/jobs", None, 1), change("replicas/web", 5, 2)]
    (
        given(*history)
        .when(back(position=9))
        .then(
            superseded(OTHER_DEPLOY),
            (NEW_DEPLOY, created(RELEASE, 1, "rollback")),
            runs(NEW_DEPLOY, RELEASE, 1, web=2, jobs=1),
        )
        .answering(deploy_id=NEW_DEPLOY, changes=changes)
    )
    assert changes_of(given(*history), back(position=9)) == changes
    assert changes_of(given(*history), back(position=8))[-1] == change("replicas/web", 5, 1)


def test_with_the_same_release_only_the_scale_changes() -> None:
    history = (*AT_V1, (ENV, EnvScaled(replicas={"web": 7, "jobs": 1})))
    outcome = (
        given(*history).when(back(position=9)).then((ENV, EnvScaled(replicas={"web": 2, "jobs": 1}, memory_bytes=3)))
    )
    outcome.answering(deploy_id=None, changes=[change("replicas/web", 7, 2)])


def test_variables_are_those_of_then() -> None:
    history = (
        *AT_V1,
        (ENV, EnvConfigSet(variables={"A": "1", "B": "1"})),
        (ENV, EnvConfigSet(variables={"B": "2", "C": "3"})),
    )
    outcome = given(*history).when(back(position=10)).then((ENV, EnvConfigSet(variables={"A": "1", "B": "1"})))
    named = [change("variables/A", None, "1"), change("variables/B", "2", "1"), change("variables/C", "3", None)]
    outcome.answering(deploy_id=None, changes=named)
    given(*history).when(back(position=9)).then((ENV, EnvConfigSet(variables={})))


def test_hostnames_lead_where_they_led_and_deleted_routes_get_new_ids() -> None:
    history = (
        *AT_V1,
        routed(SHOP, "web"),
        routed(API, "web", OTHER_ROUTE),
        (ROUTE, RouteUpdated(hostname=SHOP, process="jobs", port="http")),
        (OTHER_ROUTE, RouteDeleted()),
        routed("new.example", "web", id_of("route", 3)),
    )
    changes = [
        change(f"routes/{API}", None, TO_WEB),
        change("routes/new.example", TO_WEB, None),
        change(f"routes/{SHOP}", TO_JOBS, TO_WEB),
    ]
    (
        given(*history)
        .when(back(position=11))
        .then(
            (id_of("route", 3), RouteDeleted()),
            routed(API, "web", NEW_ROUTE),
            (ROUTE, RouteUpdated(hostname=SHOP, process="web", port="http")),
        )
        .answering(deploy_id=None, changes=changes)
    )
    assert changes_of(given(*history), back(position=11)) == changes


def test_routes_that_only_the_release_of_then_has_room_for_come_with_it() -> None:
    history = (*AT_V1, routed(SHOP, "jobs"), (ROUTE, RouteDeleted()), *AT_V2[len(AT_V1) :])
    (
        given(*history)
        .when(back(position=10))
        .then(
            superseded(OTHER_DEPLOY),
            (NEW_DEPLOY, created(RELEASE, 1, "rollback")),
            runs(NEW_DEPLOY, RELEASE, 1, web=2, jobs=1),
            routed(SHOP, "jobs", minted("route", 2)),
        )
    )


def test_hostnames_that_were_exchanged_are_exchanged_back() -> None:
    history = (
        *AT_V1,
        routed(SHOP, "web"),
        routed(API, "jobs", OTHER_ROUTE),
        (ROUTE, RouteUpdated(hostname="aside.example", process="web", port="http")),
        (OTHER_ROUTE, RouteUpdated(hostname=SHOP, process="jobs", port="http")),
        (ROUTE, RouteUpdated(hostname=API, process="web", port="http")),
    )
    given(*history).when(back(position=11)).then(
        (ROUTE, RouteUpdated(hostname=API, process="jobs", port="http")),
        (OTHER_ROUTE, RouteUpdated(hostname=SHOP, process="web", port="http")),
    )


def test_secret_values_come_back_as_a_new_version() -> None:
    history = given(
        *AT_V1,
        (SECRET, SecretCreated()),
        (SECRET, version(1, {"TOKEN": "old"})),
        (SECRET, version(2, {"TOKEN": "new", "MORE": "m"})),
    ).having(secrets={(SECRET, 1): {"TOKEN": "old"}, (SECRET, 2): {"TOKEN": "new", "MORE": "m"}})
    outcome = history.when(back(position=11)).then((SECRET, version(3, {"TOKEN": "old"})))
    outcome.secrets((SECRET, 3, {"TOKEN": "old"}))
    [named] = changes_of(history, back(position=11))
    assert named["what"] == "secret"
    assert (named["from"]["version"], named["to"]["version"]) == (2, 3)
    assert (named["from"]["keys"], named["to"]["keys"]) == (["MORE", "TOKEN"], ["TOKEN"])
    assert "old" not in msgspec.json.encode([{**named["to"], "digest": ""}]).decode()


def test_back_to_before_there_was_a_secret_it_is_emptied_so_that_it_can_be_had_again() -> None:
    values = {"TOKEN": "old"}
    history = (*AT_V1, (SECRET, SecretCreated()), (SECRET, version(1, values)))
    outcome = given(*history).having(secrets={(SECRET, 1): values}).when(back(position=9))
    outcome.then((SECRET, version(2, {}))).secrets((SECRET, 2, {}))
    emptied = given(*history, (SECRET, version(2, {}))).having(secrets={(SECRET, 1): values, (SECRET, 2): {}})
    emptied.when(back(position=9)).then_nothing().answering(deploy_id=None, changes=[])
    emptied.when(back(position=11)).then((SECRET, version(3, values))).secrets((SECRET, 3, values))


def test_equal_values_need_no_version() -> None:
    values = {"TOKEN": "t"}
    facts = (version(1, values), version(2, {"TOKEN": "u"}), version(3, values))
    history = (*AT_V1, (SECRET, SecretCreated()), *((SECRET, each) for each in facts))
    given(*history).having(secrets={(SECRET, 1): values, (SECRET, 3): values}).when(back(position=11)).then_nothing()


def test_everything_that_cannot_be_restored_is_named_and_nothing_is_done() -> None:
    other_env: Fact = (OTHER_ENV, EnvCreated(name="staging"), {"env_id": OTHER_ENV})
    other_route: Fact = (OTHER_ROUTE, RouteCreated(hostname=SHOP, process="web", port="http"), {"env_id": OTHER_ENV})
    history = (
        *AT_V1,
        (SECRET, SecretCreated()),
        (SECRET, version(1, {"TOKEN": "t"})),
        routed(SHOP, "web"),
        (ROUTE, RouteDeleted()),
        (SECRET, SecretDeleted()),
        other_env,
        other_route,
        (ENV, EnvConfigSet(variables={"A": "1"})),
    )
    for dry_run in (False, True):
        refused = given(*history).when(back(position=12, dry_run=dry_run)).then_refused("cannot_restore")
        assert refused.reasons == [
            ("/position", f"the hostname {SHOP} is taken"),
            ("/position", f"version 1 of secret {SECRET} was erased"),
        ]
        assert OTHER_ENV not in str(refused.refusal)
    given(*history).when(back(position=10)).then((ENV, EnvConfigSet(variables={})))


@pytest.mark.parametrize(
    ("position", "reason"),
    [
        (3, f"there was no environment {ENV} at position 3"),
        (4, "nothing was deployed then, and what is deployed now cannot be taken back"),
        (100, "the log has not come to position 100"),
    ],
)
def test_a_past_that_cannot_be_is_refused(position: int, reason: str) -> None:
    refused = given(*AT_V1).when(back(position=position)).then_refused("cannot_restore")
    assert refused.reasons == [("/position", reason)]


def test_before_its_first_deploy_an_environment_can_go_back_too() -> None:
    history = (*ENV_EXISTS, (ENV, EnvConfigSet(variables={"A": "1"})))
    given(*history).when(back(position=4)).then((ENV, EnvConfigSet(variables={})))


def test_a_release_that_is_gone_is_a_reason() -> None:
    facts: list[Fact] = [fact for fact in AT_V2 if fact[0] != RELEASE]
    refused = given(*facts).when(back(position=8)).then_refused("cannot_restore")
    assert refused.reasons == [("/position", f"release {RELEASE} is gone")]


def test_a_command_counts_when_it_was_complete() -> None:
    """The deploy's two events are one command, which ends at position 8."""
    ends = [position for position in range(1, len(AT_V2) + 1) if position not in (7, 10)]
    history = given(*AT_V2).having(ends=ends)
    assert changes_of(history, back(position=10)) == changes_of(history, back(position=9))
    history.when(back(position=7)).then_refused("cannot_restore")


def test_in_a_bundle_the_present_is_what_came_before() -> None:
    outcome = given(*AT_V1).when(SetEnvConfig(env_id=ENV, variables={"A": "1"}), back(position=9))
    outcome.then((ENV, EnvConfigSet(variables={"A": "1"})), (ENV, EnvConfigSet(variables={})))


def test_the_present_is_in_the_read_set_and_the_past_is_not() -> None:
    history = (*AT_V1, routed(SHOP, "web"), (ROUTE, RouteDeleted()), routed(API, "web", OTHER_ROUTE))
    reads = given(*history).when(back(position=9)).reads
    assert {ENV, OTHER_ROUTE} <= reads.aggregates.keys()
    assert ROUTE not in reads.aggregates
    assert f"route.hostname:{ENV}" in reads.scopes
    assert (f"secret.of:{ENV}", "secret") in reads.keys
