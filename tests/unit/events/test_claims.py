"""Which claims events take and free: given events of one aggregate, then what it holds."""

from collections.abc import Sequence

import pytest

from keelson.events import REGISTRY, Event, Ids, Release, Take
from keelson.events.app import AppCreated, AppDeleted, AppRenamed
from keelson.events.deploy import DeployCreated, DeployStatusChanged
from keelson.events.env import EnvConfigSet, EnvCreated, EnvDeleted, EnvReleaseSet, EnvRenamed, EnvScaled
from keelson.events.org import OrgCreated, OrgRenamed
from keelson.events.platform import EpochBegan
from keelson.events.project import ProjectCreated, ProjectDeleted, ProjectRenamed
from keelson.events.release import ReleaseCreated
from keelson.events.route import RouteCreated, RouteDeleted, RouteUpdated

IDS = Ids(org_id="org_1", project_id="project_1", app_id="app_1", env_id="env_1")

CREATED_RELEASE = ReleaseCreated(number=7, image="images.example.com/shop@sha256:0", processes={})
CREATED_ROUTE = RouteCreated(hostname="a.example", process="web", port="http")
SET_RELEASE = EnvReleaseSet(deploy_id="deploy_1", release_id="release_1", release_number=7, processes={})

EXAMPLES: list[tuple[list[Event], set[tuple[str, str]]]] = [
    ([OrgCreated(name="a")], {("org.name", "a")}),
    ([OrgCreated(name="a"), OrgRenamed(name="b")], {("org.name", "b")}),
    ([ProjectCreated(name="a")], {("project.name:org_1", "a")}),
    ([ProjectCreated(name="a"), ProjectRenamed(name="b")], {("project.name:org_1", "b")}),
    ([ProjectCreated(name="a"), ProjectDeleted()], set()),
    ([AppCreated(name="a")], {("app.name:project_1", "a")}),
    ([AppCreated(name="a"), AppRenamed(name="b")], {("app.name:project_1", "b")}),
    ([AppCreated(name="a"), AppRenamed(name="b"), AppDeleted()], set()),
    ([EnvCreated(name="a")], {("env.name:app_1", "a")}),
    ([EnvCreated(name="a"), EnvRenamed(name="b")], {("env.name:app_1", "b")}),
    ([EnvCreated(name="a"), EnvRenamed(name="a")], {("env.name:app_1", "a")}),
    ([EnvCreated(name="a"), EnvDeleted()], set()),
    ([EnvScaled(replicas={"web": 2}), EnvConfigSet(variables={}), SET_RELEASE], set()),
    ([CREATED_RELEASE], {("release.number:app_1", "7")}),
    ([DeployCreated(release_id="release_1", release_number=7, kind="deploy")], set()),
    ([DeployStatusChanged(status="rolling")], set()),
    ([CREATED_ROUTE], {("route.hostname", "a.example"), ("route.hostname:env_1", "a.example")}),
    (
        [CREATED_ROUTE, RouteUpdated(hostname="b.example", process="web", port="http")],
        {("route.hostname", "b.example"), ("route.hostname:env_1", "b.example")},
    ),
    ([CREATED_ROUTE, RouteDeleted()], set()),
    ([EpochBegan(epoch="e1", cause="created")], set()),
]


def held_after(events: Sequence[Event]) -> set[tuple[str, str]]:
    """Fold the claims of one aggregate's events into the (scope, key) pairs that it holds."""
    held: set[tuple[str, str]] = set()
    for event in events:
        for change in event.claims_of(IDS):
            if isinstance(change, Take):
                held.add((change.scope, change.key))
            else:
                held = {each for each in held if each[0] != change.scope}
    return held


@pytest.mark.parametrize(
    ("given", "then"), EXAMPLES, ids=[" ".join(each.event_type for each in given) for given, _ in EXAMPLES]
)
def test_what_an_aggregate_holds_after_its_events(given: list[Event], then: set[tuple[str, str]]) -> None:
    assert held_after(given) == then


def test_every_event_has_an_example() -> None:
    shown = {type(event) for given, _ in EXAMPLES for event in given}

    assert shown == set(REGISTRY.newest.values())


def test_a_rename_frees_the_old_name_before_it_takes_the_new_one() -> None:
    """In this order an aggregate may be renamed to the name that it has."""
    assert AppRenamed(name="b").claims_of(IDS) == (Release("app.name:project_1"), Take("app.name:project_1", "b"))
