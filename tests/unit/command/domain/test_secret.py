"""The rules of secrets."""

from typing import Any

import msgspec
import pytest

from keelson.access import Identity
from keelson.command.domain.env import DeleteEnv
from keelson.command.domain.secret import MAX_BYTES, DeleteSecret, RevealResult, RevealSecret, SetSecret
from keelson.command.fields import once_only
from keelson.events import Actor, Event
from keelson.events.env import EnvCreated, EnvDeleted
from keelson.events.instance import (
    InstanceAllocated,
    InstanceDesiredStateChanged,
    InstanceSpec,
    InstanceStatusChanged,
)
from keelson.events.node import NodeEnrolled, NodeEnrollmentCreated
from keelson.events.secret import SecretCreated, SecretDeleted, SecretRevealed, SecretVersionSet
from support.specs import (
    ENV,
    ENV_EXISTS,
    INSTANCE,
    NODE,
    NOW,
    OPERATOR,
    RELEASE,
    SECRET,
    Fact,
    Given,
    given,
    id_of,
    minted,
)

MADE = minted("secret", 1)
OTHER_ENV, OTHER_NODE = id_of("env", 2), id_of("node", 2)
BUNDLE = f"secret.of:{ENV}"

TOKEN = {"TOKEN": "t1"}
BOTH = {"TOKEN": "t1", "PASSWORD": "p1"}


def version(number: int, values: dict[str, str], secret_id: str = SECRET) -> Fact:
    """Give that a version has these values, as the specs digest them."""
    digest = f"{secret_id}: {sorted(values.items())}"
    return (secret_id, SecretVersionSet(version=number, keys=tuple(sorted(values)), digest=digest))


SET: tuple[Fact, ...] = (*ENV_EXISTS, (SECRET, SecretCreated()), version(1, BOTH))
DELETED: tuple[Fact, ...] = (*SET, (SECRET, SecretDeleted()))


def kept() -> Given:
    """Begin with an environment that has both values."""
    return given(*SET).having(secrets={(SECRET, 1): BOTH})


def setting(**values: str | None) -> SetSecret:
    return SetSecret(env_id=ENV, values=values)


def test_the_first_values_make_the_environments_one_bundle() -> None:
    (
        given(*ENV_EXISTS)
        .when(setting(PASSWORD="p1", TOKEN="t1"))
        .then((MADE, SecretCreated()), version(1, BOTH, MADE))
        .answering(secret_id=MADE, version=1)
        .secrets((MADE, 1, BOTH))
        .taking((BUNDLE, "secret"))
    )


def test_values_are_merged_into_those_that_are_there() -> None:
    after = {"TOKEN": "t2", "PASSWORD": "p1", "NEW": "n"}
    (
        kept()
        .when(setting(TOKEN="t2", NEW="n"))
        .then(version(2, after))
        .answering(secret_id=SECRET, version=2)
        .secrets((SECRET, 2, after))
    )


def test_null_removes_a_value_and_the_others_stay() -> None:
    kept().when(setting(PASSWORD=None)).then(version(2, TOKEN)).secrets((SECRET, 2, TOKEN))
    kept().when(setting(PASSWORD=None, TOKEN=None)).then(version(2, {})).secrets((SECRET, 2, {}))


@pytest.mark.parametrize("values", [{"TOKEN": "t1"}, {"TOKEN": "t1", "PASSWORD": "p1"}, {"ABSENT": None}])
def test_what_is_so_already_appends_nothing(values: dict[str, Any]) -> None:
    kept().when(setting(**values)).then_nothing().answering(secret_id=SECRET, version=1).secrets()


def test_later_commands_of_a_bundle_see_what_earlier_ones_set() -> None:
    (
        given(*ENV_EXISTS)
        .when(setting(TOKEN="t1"), setting(PASSWORD="p1"))
        .then((MADE, SecretCreated()), version(1, TOKEN, MADE), version(2, BOTH, MADE))
        .secrets((MADE, 1, TOKEN), (MADE, 2, BOTH))
    )


def test_an_environment_must_be_there() -> None:
    given().when(setting(TOKEN="t1")).then_refused("not_found")
    given(*ENV_EXISTS, (ENV, EnvDeleted())).when(setting(TOKEN="t1")).then_refused("not_found")


def test_all_values_together_have_a_size() -> None:
    value = "x" * 32_768
    fitting = {f"N{number:02}": value for number in range(15)}
    room = MAX_BYTES - sum(len(name) + len(value) for name in fitting)
    given(*ENV_EXISTS).when(setting(**fitting, LAST="x" * (room - 4))).answering(secret_id=MADE, version=1)
    given(*ENV_EXISTS).when(setting(**fitting, LAST="x" * (room - 3))).then_refused("secret_too_large")
    given(*ENV_EXISTS).when(setting(**fitting, L="ß" * (room // 2 + 1))).then_refused("secret_too_large")


@pytest.mark.parametrize(
    "values", [{}, {"1": "x"}, {"A-B": "x"}, {"A": 1}, {"A": "x" * 32_769}, {f"A{n}": "x" for n in range(1001)}]
)
def test_what_the_schema_can_state_it_refuses(values: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"env_id": ENV, "values": values}, SetSecret)


def test_a_command_does_not_show_its_values() -> None:
    assert "t1" not in repr(setting(TOKEN="t1"))


def test_deleting_erases_every_version_and_the_environment_may_have_another() -> None:
    (
        kept()
        .when(DeleteSecret(secret_id=SECRET))
        .then((SECRET, SecretDeleted()))
        .answering(secret_id=SECRET, version=1)
        .secrets((SECRET, None, None))
    )
    given(*DELETED).when(DeleteSecret(secret_id=SECRET)).then_refused("not_found")
    given(*DELETED).when(setting(TOKEN="t1")).then((MADE, SecretCreated()), version(1, TOKEN, MADE))


def test_a_secret_that_is_set_and_deleted_in_one_bundle_leaves_nothing_in_the_vault() -> None:
    outcome = kept().when(setting(NEW="n"), DeleteSecret(secret_id=SECRET))
    outcome.then(version(2, {**BOTH, "NEW": "n"}), (SECRET, SecretDeleted())).secrets((SECRET, None, None))


def test_an_environment_takes_its_secret_with_it() -> None:
    kept().when(DeleteEnv(env_id=ENV)).then((SECRET, SecretDeleted()), (ENV, EnvDeleted())).secrets(
        (SECRET, None, None)
    )
    given(*DELETED).when(DeleteEnv(env_id=ENV)).then((ENV, EnvDeleted())).secrets()


def test_a_secret_is_of_one_environment() -> None:
    other: Fact = (OTHER_ENV, EnvCreated(name="staging"), {"env_id": OTHER_ENV})
    outcome = given(*SET, other).having(secrets={(SECRET, 1): BOTH}).when(SetSecret(env_id=OTHER_ENV, values={**TOKEN}))
    outcome.then((MADE, SecretCreated(), {"env_id": OTHER_ENV}), version(1, TOKEN, MADE)).secrets((MADE, 1, TOKEN))


def test_values_that_the_vault_lost_are_not_taken_for_none() -> None:
    given(*SET).when(setting(TOKEN="t2")).then_refused("not_found")


REPORTER = Identity(Actor("node", NODE), "node", "c", NODE)
SPEC = InstanceSpec(image="shop@sha256:0", command=("x",), cpu_millis=1, memory_bytes=1)
NODES: tuple[Fact, ...] = tuple(
    fact
    for number, node_id in enumerate((NODE, OTHER_NODE))
    for fact in (
        (node_id, NodeEnrollmentCreated(expires_at=NOW, credential_id=f"t{number}")),
        (
            node_id,
            NodeEnrolled(name=f"n{number}", labels={}, cpu_millis=9, memory_bytes=9, credential_id="c"),
        ),
    )
)
REVEAL = RevealSecret(instance_id=INSTANCE)


def placed(version: int | None, *then: Event, node_id: str = NODE) -> Given:
    """Begin with both values at version 1, TOKEN alone at version 2, and an instance that names a version."""
    allocated = InstanceAllocated(
        process="web", release_id=RELEASE, release_number=1, secret_version=version, spec=SPEC, spec_hash="h"
    )
    instance: tuple[Fact, ...] = (
        (INSTANCE, allocated, {"env_id": ENV, "node_id": node_id}),
        *((INSTANCE, event) for event in then),
    )
    known = given(*SET, VERSION_2, *NODES, *instance)
    return known.having(secrets={(SECRET, 1): BOTH, (SECRET, 2): TOKEN}).by(REPORTER)


VERSION_2 = version(2, TOKEN)


@pytest.mark.parametrize(("number", "values"), [(1, BOTH), (2, TOKEN)])
def test_its_node_is_told_the_version_that_an_instance_names(number: int, values: dict[str, str]) -> None:
    told: Fact = (SECRET, SecretRevealed(version=number, node_id=NODE, instance_id=INSTANCE))
    placed(number).when(REVEAL).then(told).answering(version=number, values=values).secrets()
    placed(number).when(REVEAL, REVEAL).then(told, told)


def test_nobody_else_is_told_operators_least_of_all() -> None:
    placed(1).by(OPERATOR).when(REVEAL).then_refused("forbidden")
    placed(1, node_id=OTHER_NODE).when(REVEAL).then_refused("not_found")


@pytest.mark.parametrize(
    "event", [InstanceStatusChanged(status="stopped"), InstanceDesiredStateChanged(desired_state="stopped")]
)
def test_for_what_has_stopped_or_should_nobody_is_told(event: Event) -> None:
    placed(1, event).when(REVEAL).then_refused("instance_stopped")
    placed(1, InstanceStatusChanged(status="failed", reason_code="x")).when(REVEAL).answering(version=1, values=BOTH)


def test_an_instance_without_a_secret_is_told_nothing() -> None:
    placed(None).when(REVEAL).then_refused("not_found")
    placed(3).when(REVEAL).then_refused("not_found")


def test_the_values_are_told_once() -> None:
    assert once_only(RevealResult) == ("values",)
