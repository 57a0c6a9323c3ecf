"""The rules of instances."""

import hashlib
import json
from typing import Any, get_args

import msgspec
import pytest

from keelson.access import Identity
from keelson.command.domain.env import DeleteEnv
from keelson.command.domain.instance import AllocateInstance, Endpoint, ReportStatus, SetDesiredState
from keelson.events import Actor
from keelson.events import instance as events
from keelson.events.env import EnvConfigSet, EnvDeleted, EnvProcess, EnvReleaseSet
from keelson.events.instance import (
    DesiredState,
    InstanceAllocated,
    InstanceDesiredStateChanged,
    InstanceSpec,
    InstanceStatus,
    InstanceStatusChanged,
    instances_of,
)
from keelson.events.node import NodeEnrolled, NodeEnrollmentCreated, NodeRemoved, NodeState, NodeStateChanged, memory_of
from keelson.events.release import Health, Port, Process, ReleaseCreated
from keelson.events.secret import SecretCreated, SecretDeleted, SecretVersionSet
from support.specs import DEPLOY, ENV, ENV_EXISTS, INSTANCE, NODE, NOW, RELEASE, Fact, given, id_of, minted

SECRET = id_of("secret")
IMAGE = "shop@sha256:0"
WEB = Process(
    command=("serve",),
    ports=(Port("http", 80), Port("admin", 81)),
    cpu_millis=250,
    memory_bytes=600,
    health=Health(port="http"),
)
JOBS = Process(command=("work",), cpu_millis=500, memory_bytes=400, needs_secrets=True)


REPORTER = Identity(Actor("node", NODE), "node", "c", NODE)


def replicated(process: Process) -> EnvProcess:
    return EnvProcess(**msgspec.structs.asdict(process), replicas=1)


NODE_EXISTS: tuple[Fact, ...] = (
    (NODE, NodeEnrollmentCreated(expires_at=NOW, credential_id="t")),
    (NODE, NodeEnrolled(name="one", labels={}, cpu_millis=1000, memory_bytes=1000, credential_id="c")),
)
DEPLOYED: tuple[Fact, ...] = (
    *ENV_EXISTS,
    *NODE_EXISTS,
    (ENV, EnvConfigSet(variables={"MODE": "fast", "A": "1"})),
    (RELEASE, ReleaseCreated(number=7, image=IMAGE, processes={"web": WEB, "jobs": JOBS})),
    (
        ENV,
        EnvReleaseSet(
            deploy_id=DEPLOY,
            release_id=RELEASE,
            release_number=7,
            processes={"web": replicated(WEB), "jobs": replicated(JOBS)},
        ),
    ),
)
SECRET_SET: tuple[Fact, ...] = (
    (SECRET, SecretCreated(), {"env_id": ENV}),
    (SECRET, SecretVersionSet(version=1, keys=("A",), digest="d")),
    (SECRET, SecretVersionSet(version=2, keys=("A",), digest="e")),
)


def allocated(name: str, process: Process, secret_version: int | None = None) -> InstanceAllocated:
    """Give what the allocation of a process says; its hash is computed without the product's code."""
    spec = {
        "image": IMAGE,
        "command": list(process.command),
        "ports": [{"name": port.name, "port": port.port} for port in process.ports],
        "cpu_millis": process.cpu_millis,
        "memory_bytes": process.memory_bytes,
        "health": process.health and {"path": None, "port": "http", "interval_s": 10, "timeout_s": 5},
        "variables": {"MODE": "fast", "A": "1"},
    }
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    return InstanceAllocated(
        process=name,
        release_id=RELEASE,
        release_number=7,
        secret_version=secret_version,
        spec=msgspec.convert(spec, InstanceSpec),
        spec_hash=hashlib.sha256(text.encode()).hexdigest(),
    )


PLACED: tuple[Fact, ...] = (*DEPLOYED, (INSTANCE, allocated("web", WEB)))
ALLOCATE = AllocateInstance(env_id=ENV, process="web", node_id=NODE, instance_id=INSTANCE)
ENDPOINTS = {"http": Endpoint(host="10.0.0.7", port=31000), "admin": Endpoint(host="10.0.0.7", port=31001)}
READY = InstanceStatusChanged(
    status="ready",
    endpoints={"http": events.Endpoint("10.0.0.7", 31000), "admin": events.Endpoint("10.0.0.7", 31001)},
)
SAY_READY = ReportStatus(instance_id=INSTANCE, status="ready", endpoints=ENDPOINTS)
STOPPED = InstanceStatusChanged(status="stopped")
LOST = InstanceStatusChanged(status="stopped", reason_code="node_lost")


def test_an_instance_is_placed_with_its_whole_spec() -> None:
    outcome = given(*DEPLOYED).when(AllocateInstance(env_id=ENV, process="web", node_id=NODE))
    instance = minted("instance")
    outcome.then((instance, allocated("web", WEB), {"node_id": NODE})).answering(instance_id=instance)
    outcome.taking((memory_of(NODE), instance), (instances_of(ENV), instance)).limiting((memory_of(NODE), None, 1000))


def test_a_process_that_needs_secrets_is_told_which_version_if_there_is_one() -> None:
    jobs = AllocateInstance(env_id=ENV, process="jobs", node_id=NODE, instance_id=INSTANCE)
    given(*DEPLOYED, *SECRET_SET).when(jobs).then((INSTANCE, allocated("jobs", JOBS, 2)))
    given(*DEPLOYED).when(jobs).then((INSTANCE, allocated("jobs", JOBS)))
    given(*DEPLOYED, *SECRET_SET, (SECRET, SecretDeleted())).when(jobs).then((INSTANCE, allocated("jobs", JOBS)))
    given(*DEPLOYED, *SECRET_SET).when(ALLOCATE).then((INSTANCE, allocated("web", WEB)))


def test_environment_process_and_node_must_be_there() -> None:
    given(*NODE_EXISTS).when(ALLOCATE).then_refused("not_found")
    given(*DEPLOYED, (ENV, EnvDeleted())).when(ALLOCATE).then_refused("not_found")
    given(*ENV_EXISTS, *NODE_EXISTS).when(ALLOCATE).then_refused("unknown_process")
    given(*DEPLOYED).when(AllocateInstance(env_id=ENV, process="cron", node_id=NODE)).then_refused("unknown_process")
    elsewhere = AllocateInstance(env_id=ENV, process="web", node_id=id_of("node", 2))
    given(*DEPLOYED).when(elsewhere).then_refused("not_found")
    given(*DEPLOYED, (NODE, NodeRemoved())).when(ALLOCATE).then_refused("not_found")
    given(*PLACED).when(ALLOCATE).then_refused("id_taken")


@pytest.mark.parametrize("state", ["draining", "disabled", "offline"])
def test_only_an_active_node_takes_instances(state: NodeState) -> None:
    given(*DEPLOYED, (NODE, NodeStateChanged(state=state))).when(ALLOCATE).then_refused("node_not_active")


def test_a_node_that_waits_for_its_machine_takes_none() -> None:
    awaited: Fact = (id_of("node", 2), NodeEnrollmentCreated(expires_at=NOW, credential_id="t"))
    there = AllocateInstance(env_id=ENV, process="web", node_id=id_of("node", 2))
    given(*DEPLOYED, awaited).when(there).then_refused("node_not_active")


def test_memory_is_never_promised_twice() -> None:
    """600 of 1000 are held: 400 more have room, 600 have not, until the first has stopped; one that failed holds on."""
    web = AllocateInstance(env_id=ENV, process="web", node_id=NODE)
    jobs = AllocateInstance(env_id=ENV, process="jobs", node_id=NODE)
    given(*PLACED).when(web).then_refused("no_capacity")
    given(*PLACED).when(jobs).then((minted("instance"), allocated("jobs", JOBS), {"node_id": NODE}))
    given(*PLACED).when(jobs, web).then_refused("no_capacity", at=1)
    failed = InstanceStatusChanged(status="failed", reason_code="exited")
    given(*PLACED, (INSTANCE, failed)).when(web).then_refused("no_capacity")
    drained = (INSTANCE, InstanceDesiredStateChanged(desired_state="stopped"))
    given(*PLACED, drained).when(web).then_refused("no_capacity")
    given(*PLACED, (INSTANCE, STOPPED)).when(web).then((minted("instance"), allocated("web", WEB), {"node_id": NODE}))


@pytest.mark.parametrize(
    ("before", "wanted", "fine"),
    [
        ("running", "draining", True),
        ("running", "stopped", True),
        ("draining", "stopped", True),
        ("draining", "running", False),
        ("stopped", "running", False),
        ("stopped", "draining", False),
    ],
)
def test_an_instance_is_drained_and_stopped_and_not_called_back(
    before: DesiredState, wanted: DesiredState, fine: bool
) -> None:
    history = (*PLACED, *([(INSTANCE, InstanceDesiredStateChanged(before))] if before != "running" else []))
    outcome = given(*history).when(SetDesiredState(instance_id=INSTANCE, desired_state=wanted))
    if fine:
        outcome.then((INSTANCE, InstanceDesiredStateChanged(wanted))).answering(instance_id=INSTANCE)
    else:
        outcome.then_refused("invalid_transition")


@pytest.mark.parametrize("state", get_args(DesiredState))
def test_what_is_wanted_already_is_not_wanted_again(state: DesiredState) -> None:
    history = (*PLACED, *([(INSTANCE, InstanceDesiredStateChanged(state))] if state != "running" else []))
    given(*history).when(SetDesiredState(instance_id=INSTANCE, desired_state=state)).then_nothing()


def test_what_is_to_stop_on_a_node_that_is_offline_has_stopped() -> None:
    stop = SetDesiredState(instance_id=INSTANCE, desired_state="stopped")
    ordered: Fact = (INSTANCE, InstanceDesiredStateChanged("stopped"))
    offline: Fact = (NODE, NodeStateChanged(state="offline"))
    given(*PLACED, offline).when(stop).then(ordered, (INSTANCE, LOST))
    given(*PLACED, ordered, offline).when(stop).then((INSTANCE, LOST))
    given(*PLACED, (INSTANCE, STOPPED), offline).when(stop).then(ordered)
    given(*PLACED, (NODE, NodeStateChanged(state="disabled"))).when(stop).then(ordered)
    drain = SetDesiredState(instance_id=INSTANCE, desired_state="draining")
    given(*PLACED, offline).when(drain).then((INSTANCE, InstanceDesiredStateChanged("draining")))


def test_what_was_lost_leaves_room_and_nothing_more_is_heard_of_it() -> None:
    offline: Fact = (NODE, NodeStateChanged(state="offline"))
    back: Fact = (NODE, NodeStateChanged(state="active"))
    lost = (*PLACED, offline, (INSTANCE, InstanceDesiredStateChanged("stopped")), (INSTANCE, LOST), back)
    web = AllocateInstance(env_id=ENV, process="web", node_id=NODE)
    given(*lost).when(web).then((minted("instance"), allocated("web", WEB), {"node_id": NODE}))
    given(*lost).by(REPORTER).when(SAY_READY).then_refused("invalid_transition")
    given(*lost).by(REPORTER).when(ReportStatus(instance_id=INSTANCE, status="stopped", exit_code=0)).then_nothing()


# What follows what, by the contract: before any report everything may; a stopped one has ended.
FOLLOWING: dict[InstanceStatus | None, set[InstanceStatus]] = {
    None: {"booting", "ready", "draining", "stopped", "failed"},
    "booting": {"ready", "draining", "stopped", "failed"},
    "ready": {"draining", "stopped", "failed"},
    "draining": {"stopped", "failed"},
    "failed": {"booting", "stopped"},
    "stopped": set(),
}


def said(status: InstanceStatus) -> InstanceStatusChanged:
    """Give a status with what it needs."""
    if status == "ready":
        return READY
    return InstanceStatusChanged(status=status, reason_code="exited" if status == "failed" else None)


def say(status: InstanceStatus) -> ReportStatus:
    if status == "ready":
        return SAY_READY
    return ReportStatus(instance_id=INSTANCE, status=status, reason_code="exited" if status == "failed" else None)


@pytest.mark.parametrize("status", get_args(InstanceStatus))
@pytest.mark.parametrize("before", FOLLOWING)
def test_a_status_follows_another_only_as_it_may(before: InstanceStatus | None, status: InstanceStatus) -> None:
    history = (*PLACED, *([(INSTANCE, said(before))] if before else []))
    outcome = given(*history).by(REPORTER).when(say(status))
    if status == before:
        outcome.then_nothing().answering(instance_id=INSTANCE)
    elif status in FOLLOWING[before]:
        outcome.then((INSTANCE, said(status))).answering(instance_id=INSTANCE)
    else:
        outcome.then_refused("invalid_transition")


def test_a_report_with_something_new_is_kept() -> None:
    moved = {"http": Endpoint(host="10.0.0.7", port=32000), "admin": ENDPOINTS["admin"]}
    given(*PLACED, (INSTANCE, READY)).by(REPORTER).when(
        ReportStatus(instance_id=INSTANCE, status="ready", endpoints=moved, message="moved")
    ).then(
        (
            INSTANCE,
            InstanceStatusChanged(
                status="ready",
                endpoints={"http": events.Endpoint("10.0.0.7", 32000), "admin": events.Endpoint("10.0.0.7", 31001)},
                message="moved",
            ),
        )
    )


@pytest.mark.parametrize("names", [[], ["http"], ["http", "admin", "debug"], ["http", "debug"]])
def test_what_is_ready_has_the_endpoints_of_exactly_its_ports(names: list[str]) -> None:
    endpoints = {name: Endpoint(host="10.0.0.7", port=31000) for name in names}
    ready = ReportStatus(instance_id=INSTANCE, status="ready", endpoints=endpoints)
    given(*PLACED).by(REPORTER).when(ready).then_refused("wrong_endpoints")


def test_what_has_no_ports_is_ready_without_endpoints() -> None:
    jobs: tuple[Fact, ...] = (*DEPLOYED, (INSTANCE, allocated("jobs", JOBS)))
    silent = ReportStatus(instance_id=INSTANCE, status="ready")
    for ready in (silent, ReportStatus(instance_id=INSTANCE, status="ready", endpoints={})):
        given(*jobs).by(REPORTER).when(ready).then((INSTANCE, InstanceStatusChanged(status="ready")))


def test_an_instance_that_never_was_is_not_found() -> None:
    given(*DEPLOYED).by(REPORTER).when(SAY_READY).then_refused("not_found")
    given(*DEPLOYED).when(SetDesiredState(instance_id=INSTANCE, desired_state="stopped")).then_refused("not_found")


@pytest.mark.parametrize(
    "report",
    [
        {"status": "failed"},
        {"status": "failed", "reason_code": "It exited"},
        {"status": "booting", "endpoints": {}},
        {"status": "ready", "endpoints": {"http": {"host": "10.0.0.7", "port": 0}}},
        {"status": "ready", "endpoints": {"HTTP": {"host": "10.0.0.7", "port": 1}}},
        {"status": "ready", "endpoints": {"http": {"host": "a b", "port": 1}}},
        {"status": "gone"},
        {"status": "booting", "message": "x" * 501},
    ],
)
def test_the_schema_refuses_what_no_report_is(report: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"instance_id": INSTANCE} | report, ReportStatus)


def test_an_environment_with_instances_is_not_deleted_until_they_have_stopped() -> None:
    given(*PLACED).when(DeleteEnv(env_id=ENV)).then_refused("in_use")
    given(*PLACED, (INSTANCE, STOPPED)).when(DeleteEnv(env_id=ENV)).then((ENV, EnvDeleted()))


def test_in_a_bundle_an_instance_is_placed_and_called_off() -> None:
    drain = SetDesiredState(instance_id=INSTANCE, desired_state="draining")
    given(*DEPLOYED).when(ALLOCATE, drain).then(
        (INSTANCE, allocated("web", WEB)), (INSTANCE, InstanceDesiredStateChanged("draining"))
    )


def test_in_a_bundle_a_node_says_all_that_became_of_an_instance() -> None:
    failed = ReportStatus(instance_id=INSTANCE, status="failed", reason_code="exited", exit_code=1)
    given(*PLACED).by(REPORTER).when(SAY_READY, failed, SAY_READY).then_refused("invalid_transition", at=2)
    given(*PLACED).by(REPORTER).when(SAY_READY, SAY_READY, failed).then(
        (INSTANCE, READY), (INSTANCE, InstanceStatusChanged(status="failed", reason_code="exited", exit_code=1))
    )


def test_nobody_but_its_node_says_how_an_instance_is() -> None:
    other_node = id_of("node", 2)
    other: tuple[Fact, ...] = (
        (other_node, NodeEnrollmentCreated(expires_at=NOW, credential_id="t2")),
        (other_node, NodeEnrolled(name="two", labels={}, cpu_millis=1, memory_bytes=1, credential_id="c2")),
    )
    theirs = Identity(Actor("node", other_node), "node", "c2", other_node)
    given(*PLACED, *other).by(theirs).when(SAY_READY).then_refused("not_found")
    given(*PLACED).when(SAY_READY).then_refused("forbidden")
