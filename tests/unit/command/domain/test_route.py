"""The rules of routes."""

from typing import Any

import msgspec
import pytest

from keelson.command.domain.deploy import MAX_NAMED, CreateDeploy
from keelson.command.domain.env import DeleteEnv
from keelson.command.domain.route import CreateRoute, DeleteRoute, UpdateRoute
from keelson.events.deploy import DeployCreated
from keelson.events.env import EnvCreated, EnvDeleted, EnvProcess, EnvReleaseSet
from keelson.events.release import Port, Process, ReleaseCreated
from keelson.events.route import RouteCreated, RouteDeleted, RouteUpdated
from support.specs import DEPLOY, ENV, ENV_EXISTS, RELEASE, ROUTE, Fact, given, id_of, minted

OTHER_ROUTE = id_of("route", 2)
OTHER_ENV = id_of("env", 2)
NEXT_DEPLOY = id_of("deploy", 2)

TWO_PORTS = (Port("http", 80), Port("admin", 81))
IN_ENV = f"route.hostname:{ENV}"
SHOP = "shop.example"


def release(release_id: str, number: int, **ports: tuple[Port, ...]) -> Fact:
    """Give a release of processes with these ports."""
    processes = {
        name: Process(command=("x",), ports=each, cpu_millis=1, memory_bytes=1) for name, each in ports.items()
    }
    return (release_id, ReleaseCreated(number=number, image="shop@sha256:0", processes=processes))


def runs(env_id: str, **ports: tuple[Port, ...]) -> Fact:
    """Give that an environment has a release of processes with these ports."""
    processes = {
        name: EnvProcess(command=("x",), ports=each, cpu_millis=1, memory_bytes=1, replicas=1)
        for name, each in ports.items()
    }
    event = EnvReleaseSet(deploy_id=DEPLOY, release_id=RELEASE, release_number=1, processes=processes)
    return (env_id, event, {"env_id": env_id})


def created(hostname: str = SHOP, process: str = "web", port: str = "http", route_id: str = ROUTE) -> Fact:
    return (route_id, RouteCreated(hostname=hostname, process=process, port=port))


def updated(hostname: str = SHOP, process: str = "web", port: str = "http") -> Fact:
    return (ROUTE, RouteUpdated(hostname=hostname, process=process, port=port))


ENV_RUNS: tuple[Fact, ...] = (
    *ENV_EXISTS,
    (DEPLOY, DeployCreated(release_id=RELEASE, release_number=1, kind="deploy")),
    runs(ENV, web=TWO_PORTS, jobs=(Port("http", 80),), cron=()),
)
ROUTED: tuple[Fact, ...] = (*ENV_RUNS, created())
ROUTE_DELETED: tuple[Fact, ...] = (*ROUTED, (ROUTE, RouteDeleted()))

TO_WEB = CreateRoute(env_id=ENV, hostname=SHOP, process="web", port="http", route_id=ROUTE)


def test_a_route_is_created_in_an_environment() -> None:
    route = minted("route")
    outcome = given(*ENV_RUNS).when(CreateRoute(env_id=ENV, hostname=SHOP, process="web", port="http"))
    outcome.then(created(route_id=route)).answering(route_id=route)


def test_its_hostname_is_taken_on_the_platform_and_counts_in_the_environment() -> None:
    given(*ENV_RUNS).when(TO_WEB).taking(("route.hostname", SHOP), (IN_ENV, SHOP))


def test_its_hostname_is_kept_in_lower_case() -> None:
    shouted = msgspec.structs.replace(TO_WEB, hostname="Shop.EXAMPLE")
    given(*ENV_RUNS).when(shouted).then(created()).taking(("route.hostname", SHOP), (IN_ENV, SHOP))


def test_in_another_environment_a_taken_hostname_is_taken_too() -> None:
    elsewhere: tuple[Fact, ...] = (
        (OTHER_ENV, EnvCreated(name="staging"), {"env_id": OTHER_ENV}),
        runs(OTHER_ENV, web=TWO_PORTS),
    )
    again = CreateRoute(env_id=OTHER_ENV, hostname="SHOP.example", process="web", port="http")
    assert given(*ROUTED, *elsewhere).when(again).as_appended() == "name_taken"


def test_its_environment_must_be_there() -> None:
    given().when(TO_WEB).then_refused("not_found")
    given(*ENV_RUNS, (ENV, EnvDeleted())).when(TO_WEB).then_refused("not_found")


def test_an_id_that_ever_existed_is_taken() -> None:
    given(*ROUTED).when(TO_WEB).then_refused("id_taken")
    given(*ROUTE_DELETED).when(TO_WEB).then_refused("id_taken")


LEADS_NOWHERE = [
    ("mailer", "http", "unknown_process"),
    ("web", "metrics", "unknown_port"),
    ("jobs", "admin", "unknown_port"),
    ("cron", "http", "unknown_port"),
]


@pytest.mark.parametrize(("process", "port", "code"), LEADS_NOWHERE)
def test_it_leads_only_to_what_the_release_has(process: str, port: str, code: str) -> None:
    to_nowhere = CreateRoute(env_id=ENV, hostname=SHOP, process=process, port=port)
    given(*ENV_RUNS).when(to_nowhere).then_refused(code)
    given(*ROUTED).when(UpdateRoute(route_id=ROUTE, process=process, port=port)).then_refused(code)


def test_before_the_first_deploy_it_leads_nowhere() -> None:
    given(*ENV_EXISTS).when(TO_WEB).then_refused("unknown_process")


def test_what_the_release_of_before_had_is_not_there_any_more() -> None:
    given(*ENV_RUNS, runs(ENV, jobs=TWO_PORTS)).when(TO_WEB).then_refused("unknown_process")


@pytest.mark.parametrize(
    ("change", "then"),
    [
        ({"hostname": "WWW.shop.example"}, updated("www.shop.example")),
        ({"process": "jobs"}, updated(process="jobs")),
        ({"port": "admin"}, updated(port="admin")),
        ({"hostname": "a.b", "process": "web", "port": "admin"}, updated("a.b", "web", "admin")),
    ],
)
def test_an_update_names_what_changes_and_tells_the_whole(change: dict[str, str], then: Fact) -> None:
    outcome = given(*ROUTED).when(UpdateRoute(route_id=ROUTE, **change))
    outcome.then(then).answering(route_id=ROUTE)


def test_an_update_goes_on_from_the_update_before() -> None:
    given(*ROUTED, updated("a.b", port="admin")).when(UpdateRoute(route_id=ROUTE, port="http")).then(updated("a.b"))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"hostname": SHOP},
        {"hostname": "SHOP.example"},
        {"process": "web", "port": "http"},
        {"hostname": SHOP, "process": "web", "port": "http"},
    ],
)
def test_an_update_to_what_is_so_changes_nothing(change: dict[str, str]) -> None:
    given(*ROUTED).when(UpdateRoute(route_id=ROUTE, **change)).then_nothing().answering(route_id=ROUTE)


def test_an_update_exchanges_the_hostname() -> None:
    outcome = given(*ROUTED).when(UpdateRoute(route_id=ROUTE, hostname="a.b"), CreateRoute(**fields_of(TO_WEB)))
    outcome.then(updated("a.b"), created(route_id=minted("route")))


def fields_of(command: CreateRoute) -> dict[str, Any]:
    """Give a command's fields but for the id."""
    return {**msgspec.structs.asdict(command), "route_id": None}


def test_a_deleted_route_frees_its_hostname() -> None:
    given(*ROUTED).when(DeleteRoute(route_id=ROUTE), CreateRoute(**fields_of(TO_WEB))).then(
        (ROUTE, RouteDeleted()), created(route_id=minted("route"))
    )


def test_what_is_deleted_is_not_found() -> None:
    deleted = given(*ROUTE_DELETED)
    for command in (UpdateRoute(route_id=ROUTE), DeleteRoute(route_id=ROUTE)):
        deleted.when(command).then_refused("not_found")
    given(*ENV_RUNS).when(DeleteRoute(route_id=ROUTE)).then_refused("not_found")


# The environment.


def test_an_environment_with_routes_is_in_use() -> None:
    given(*ROUTED).when(DeleteEnv(env_id=ENV)).then_refused("in_use")
    given(*ROUTED, updated("a.b")).when(DeleteEnv(env_id=ENV)).then_refused("in_use")


def test_routes_of_another_environment_do_not_count() -> None:
    elsewhere: tuple[Fact, ...] = (
        (OTHER_ENV, EnvCreated(name="staging"), {"env_id": OTHER_ENV}),
        runs(OTHER_ENV, web=TWO_PORTS),
        (ROUTE, RouteCreated(hostname=SHOP, process="web", port="http"), {"env_id": OTHER_ENV}),
    )
    given(*ENV_EXISTS, *elsewhere).when(DeleteEnv(env_id=ENV)).then((ENV, EnvDeleted()))


def test_in_a_bundle_the_routes_go_before_their_environment() -> None:
    outcome = given(*ENV_RUNS, created()).when(DeleteRoute(route_id=ROUTE), DeleteEnv(env_id=ENV))
    assert [fact[1].event_type for fact in outcome.as_appended() if not isinstance(fact, str)] == [
        "route.deleted",
        "deploy.status_changed",
        "env.deleted",
    ]
    given(*ENV_RUNS).when(TO_WEB, DeleteEnv(env_id=ENV)).then_refused("in_use", at=1)


# Deploys.

NEXT_RELEASE = id_of("release", 2)
DEPLOY_NEXT = CreateDeploy(env_id=ENV, release_id=NEXT_RELEASE, deploy_id=NEXT_DEPLOY)
WEB_ON_HTTP = release(NEXT_RELEASE, 2, web=(Port("http", 8000),))


def test_a_release_that_has_what_routes_lead_to_is_deployed() -> None:
    assert isinstance(given(*ROUTED, WEB_ON_HTTP).when(DEPLOY_NEXT).as_appended(), list)


@pytest.mark.parametrize("ports", [{"site": TWO_PORTS}, {"web": (Port("admin", 81),)}, {"web": ()}])
def test_a_release_that_lacks_a_process_or_port_would_break_a_route(ports: dict[str, tuple[Port, ...]]) -> None:
    given(*ROUTED, release(NEXT_RELEASE, 2, **ports)).when(DEPLOY_NEXT).then_refused("route_would_break")


def test_the_routes_that_would_break_are_named_and_no_others() -> None:
    kept = created("kept.example", route_id=id_of("route", 3))
    lost = (created("a.example", "jobs"), created("b.example", "web", "admin", OTHER_ROUTE))
    outcome = given(*ENV_RUNS, *lost, kept, WEB_ON_HTTP).when(DEPLOY_NEXT)
    outcome.then_refused("route_would_break")
    assert outcome.refusal is not None
    assert f"{ROUTE} (a.example to http of jobs), {OTHER_ROUTE} (b.example to admin of web)" in outcome.refusal.detail
    assert "kept.example" not in outcome.refusal.detail


def test_of_many_routes_that_would_break_some_are_named() -> None:
    lost = [created(f"a{n}.example", "jobs", route_id=id_of("route", n)) for n in range(1, MAX_NAMED + 4)]
    outcome = given(*ENV_RUNS, *lost, WEB_ON_HTTP).when(DEPLOY_NEXT)
    assert outcome.refusal is not None
    assert outcome.refusal.detail.count("of jobs") == MAX_NAMED
    assert outcome.refusal.detail.endswith(" and 3 more")


def test_a_route_counts_as_it_is_now() -> None:
    moved = created("a.example", "jobs")
    assert isinstance(given(*ENV_RUNS, moved, updated("a.example"), WEB_ON_HTTP).when(DEPLOY_NEXT).as_appended(), list)
    given(*ROUTED, updated(process="jobs"), WEB_ON_HTTP).when(DEPLOY_NEXT).then_refused("route_would_break")


def test_a_route_that_was_deleted_breaks_no_more() -> None:
    gone = (*ENV_RUNS, created(process="jobs"), (ROUTE, RouteDeleted()), WEB_ON_HTTP)
    assert isinstance(given(*gone).when(DEPLOY_NEXT).as_appended(), list)


def test_in_a_bundle_a_deploy_sees_the_routes_as_they_were_left() -> None:
    to_jobs = CreateRoute(env_id=ENV, hostname="jobs.example", process="jobs", port="http", route_id=OTHER_ROUTE)
    both = given(*ENV_RUNS, created(process="jobs"), WEB_ON_HTTP)
    both.when(to_jobs, DeleteRoute(route_id=ROUTE), DEPLOY_NEXT).then_refused("route_would_break", at=2)
    away = UpdateRoute(route_id=OTHER_ROUTE, process="web")
    assert isinstance(both.when(to_jobs, DeleteRoute(route_id=ROUTE), away, DEPLOY_NEXT).as_appended(), list)


def test_a_deploy_reads_every_route_of_its_environment() -> None:
    """What it read must not have moved at the append: who has come or gone, and where each leads."""
    reads = given(*ROUTED, WEB_ON_HTTP).when(DEPLOY_NEXT).reads
    assert reads.scopes == {IN_ENV: 1}
    assert reads.aggregates[ROUTE] == 1


# Hostnames.

LABEL = "a" * 63
LONG = f"{LABEL}.{LABEL}.{LABEL}."

HOSTNAMES = ["a.b", SHOP, "WWW.Shop.Example", "x--y.example", "xn--bcher-kva.example", "1.2.3.a", "4u.example"]
HOSTNAMES += [f"{LABEL}.{LABEL}", f"{LONG}{'a' * 61}", "a.b1", "a.x-1"]

NOT_HOSTNAMES = ["", "a", "localhost", ".", "a.", ".a", "a..b", "a.b.", "-a.b", "a-.b", "a.-b", "a.b-", "a_b.c"]
NOT_HOSTNAMES += ["a b.c", "*.shop.example", "bücher.example", "a.b\n", "a.b:80", "http://a.b", "a.b/", "a.b\0"]
NOT_HOSTNAMES += ["127.0.0.1", "1.2.3.4", "1.2.3.0x4", "a.1", "::1", "[::1]", "2001:db8::1", "a.\u212a"]
NOT_HOSTNAMES += [f"{LABEL}a.b", f"{LONG}{'a' * 62}", "a." * 200_000, "a" * 1_000_000]


@pytest.mark.parametrize("hostname", HOSTNAMES)
def test_a_hostname(hostname: str) -> None:
    command = msgspec.convert({"env_id": ENV, "hostname": hostname, "process": "web", "port": "http"}, CreateRoute)
    given(*ENV_RUNS).when(command).then(created(hostname.lower(), route_id=minted("route")))


@pytest.mark.parametrize("hostname", NOT_HOSTNAMES, ids=lambda hostname: ascii(hostname[:20]))
def test_no_hostname(hostname: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"env_id": ENV, "hostname": hostname, "process": "web", "port": "http"}, CreateRoute)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"route_id": ROUTE, "hostname": hostname}, UpdateRoute)
