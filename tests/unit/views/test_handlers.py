"""What events do to rows: given events, then rows. And the rules that hold for every handler."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from random import Random
from typing import Any

import pytest

from keelson.events import REGISTRY, Envelope, Event, Ids
from keelson.events.app import AppCreated, AppDeleted, AppRenamed
from keelson.events.env import EnvConfigSet, EnvCreated, EnvDeleted, EnvProcess, EnvReleaseSet, EnvScaled
from keelson.events.org import (
    OrgCreated,
    OrgCredentialIssued,
    OrgCredentialRevoked,
    OrgMemberAdded,
    OrgMemberErased,
    OrgMemberRemoved,
    OrgMemberRoleChanged,
    OrgQuotaSet,
    Quota,
)
from keelson.events.platform import EpochBegan
from keelson.events.principal import (
    PrincipalCreated,
    PrincipalCredentialIssued,
    PrincipalCredentialRevoked,
    PrincipalDeleted,
    PrincipalScopesSet,
)
from keelson.events.release import ReleaseCreated
from keelson.events.route import RouteCreated, RouteDeleted, RouteUpdated
from keelson.views import PROJECTIONS, Projection
from keelson.views.activity import ACTIVITY, ACTIVITY_TABLE, summarize
from keelson.views.changes import Change, Put, patch, put, replace
from keelson.views.fold import Fold
from keelson.views.memory import Memory
from keelson.views.platform import APPS, ENV_PROCESSES, ENVS, PLATFORM, ROUTES
from keelson.views.projection import HandlerError, MissingRowError
from keelson.views.table import Row, Table
from keelson.views.tenancy import CREDENTIALS, MEMBERS, ORGS, PRINCIPALS, TENANCY
from support.made_up import happened
from support.story import Story

ORG, PROJECT, APP, ENV = (f"{prefix}_{1:026d}" for prefix in ("org", "project", "app", "env"))
APP_IDS = Ids(org_id=ORG, project_id=PROJECT, app_id=APP)
ENV_IDS = Ids(org_id=ORG, project_id=PROJECT, app_id=APP, env_id=ENV)
WEB = EnvProcess(command=("web",), cpu_millis=250, memory_bytes=1, replicas=2)
WORKER = EnvProcess(command=("worker",), cpu_millis=250, memory_bytes=1, replicas=1)
RELEASED = EnvReleaseSet(deploy_id="d", release_id="r", release_number=7, processes={"worker": WORKER, "web": WEB})


class Given:
    """A projection in memory, and a log that goes on."""

    def __init__(self, projection: Projection) -> None:
        self.memory = Memory(projection)
        self.story = Story()

    def then(self, aggregate_id: str, ids: Ids, *events: Event) -> "Given":
        """Apply events of one aggregate, each a command of its own."""
        for event in events:
            for envelope in self.story.envelopes([(aggregate_id, ids, event)]):
                self.memory.apply(envelope, event)
        return self

    def row(self, table: Table, *key: str | int) -> dict[str, Any]:
        """Give a row that must be there."""
        row = self.memory.read_row(table, *key)
        assert row is not None
        return row


def test_a_row_is_stamped_by_its_event() -> None:
    given = Given(PLATFORM).then(APP, APP_IDS, AppCreated(name="shop"), AppRenamed(name="store"))

    row = given.row(APPS, APP)
    assert (row["name"], row["org_id"], row["project_id"]) == ("store", ORG, PROJECT)
    assert (row["resource_version"], row["position"]) == (2, 2)
    assert row["created_at"] < row["updated_at"]
    assert row["deleted_at"] is None


def test_a_deleted_row_says_when() -> None:
    given = Given(PLATFORM).then(APP, APP_IDS, AppCreated(name="shop"), AppDeleted())

    assert given.row(APPS, APP)["deleted_at"] == given.row(APPS, APP)["updated_at"]


def test_a_release_brings_the_environments_processes() -> None:
    given = Given(PLATFORM).then(ENV, ENV_IDS, EnvCreated(name="production"), RELEASED)

    env = given.row(ENVS, ENV)
    assert (env["release_id"], env["release_number"], env["deploy_id"]) == ("r", 7, "d")
    assert env["replicas"] == {"web": 2, "worker": 1}
    web = given.row(ENV_PROCESSES, ENV, "web")
    assert (web["command"], web["release_number"], web["replicas"], web["resource_version"]) == (("web",), 7, 2, 2)


def test_a_release_takes_away_the_processes_that_it_lacks() -> None:
    without = EnvReleaseSet(deploy_id="e", release_id="s", release_number=8, processes={"web": WEB})
    given = Given(PLATFORM).then(ENV, ENV_IDS, EnvCreated(name="production"), RELEASED, without)

    assert given.memory.read_row(ENV_PROCESSES, ENV, "worker") is None
    assert given.row(ENV_PROCESSES, ENV, "web")["release_number"] == 8


def test_scaling_is_seen_in_the_environment_and_in_its_processes() -> None:
    scaled = EnvScaled(replicas={"web": 5, "worker": 0})
    given = Given(PLATFORM).then(ENV, ENV_IDS, EnvCreated(name="production"), RELEASED, scaled)

    assert given.row(ENVS, ENV)["replicas"] == {"web": 5, "worker": 0}
    assert given.row(ENV_PROCESSES, ENV, "web")["replicas"] == 5
    assert given.row(ENV_PROCESSES, ENV, "worker")["resource_version"] == 3


def test_nothing_should_run_in_a_deleted_environment() -> None:
    given = Given(PLATFORM).then(ENV, ENV_IDS, EnvCreated(name="production"), RELEASED, EnvDeleted())

    assert given.row(ENVS, ENV)["deleted_at"] is not None
    assert not list(given.memory.stored_rows(ENV_PROCESSES))


def test_a_route_says_where_it_leads_and_when_it_ended() -> None:
    route = f"route_{1:026d}"
    created = RouteCreated(hostname="a.example", process="web", port="http")
    given = Given(PLATFORM).then(route, ENV_IDS, created)
    row = given.row(ROUTES, route)
    assert (row["org_id"], row["project_id"], row["app_id"], row["env_id"]) == (ORG, PROJECT, APP, ENV)
    assert (row["hostname"], row["process"], row["port"], row["deleted_at"]) == ("a.example", "web", "http", None)

    given.then(route, ENV_IDS, RouteUpdated(hostname="b.example", process="api", port="admin"), RouteDeleted())
    row = given.row(ROUTES, route)
    assert (row["hostname"], row["process"], row["port"], row["resource_version"]) == ("b.example", "api", "admin", 3)
    assert row["deleted_at"] == row["updated_at"]


ORG_IDS = Ids(org_id=ORG)
ADDED = OrgMemberAdded(member_id="member_1", person_id="person_1", role="owner")
EXPIRY = datetime(2027, 1, 1, tzinfo=UTC)


def test_a_member_has_a_row_that_says_no_more_than_which_person_it_is() -> None:
    demoted = OrgMemberRoleChanged(member_id="member_1", role="admin")
    given = Given(TENANCY).then(ORG, ORG_IDS, OrgCreated(name="acme"), ADDED, demoted)

    row = given.row(MEMBERS, "member_1")
    assert (row["org_id"], row["person_id"], row["role"], row["resource_version"]) == (ORG, "person_1", "admin", 3)
    assert (row["erased"], row["deleted_at"]) == (False, None)
    assert given.row(ORGS, ORG)["resource_version"] == 3
    assert not {"email", "name"} & row.keys()


def test_a_member_who_is_erased_later_keeps_when_the_membership_ended() -> None:
    removed, erased = OrgMemberRemoved(member_id="member_1"), OrgMemberErased(member_id="member_1")
    given = Given(TENANCY).then(ORG, ORG_IDS, OrgCreated(name="acme"), ADDED, removed)
    ended_at = given.row(MEMBERS, "member_1")["deleted_at"]
    assert ended_at == given.row(MEMBERS, "member_1")["updated_at"]

    given.then(ORG, ORG_IDS, erased)
    assert (given.row(MEMBERS, "member_1")["erased"], given.row(MEMBERS, "member_1")["deleted_at"]) == (True, ended_at)
    assert given.row(MEMBERS, "member_1")["updated_at"] > ended_at


def test_a_quota_is_in_the_organisations_row_as_a_whole() -> None:
    given = Given(TENANCY).then(ORG, ORG_IDS, OrgCreated(name="acme"))
    assert given.row(ORGS, ORG)["quota"] == Quota()

    given.then(ORG, ORG_IDS, OrgQuotaSet(quota=Quota(apps=3)), OrgQuotaSet(quota=Quota(envs=4)))
    assert given.row(ORGS, ORG)["quota"] == Quota(envs=4)


def test_a_principals_row_has_its_scopes_until_it_is_deleted() -> None:
    principal = f"principal_{1:026d}"
    created, narrowed = PrincipalCreated(name="ci", scopes=("*",)), PrincipalScopesSet(scopes=("apps:read",))
    given = Given(TENANCY).then(principal, ORG_IDS, created, narrowed)
    row = given.row(PRINCIPALS, principal)
    assert (row["org_id"], row["name"], row["scopes"], row["deleted_at"]) == (ORG, "ci", ("apps:read",), None)

    given.then(principal, ORG_IDS, PrincipalDeleted())
    assert given.row(PRINCIPALS, principal)["deleted_at"] == given.row(PRINCIPALS, principal)["updated_at"]


def test_a_credential_has_a_row_with_its_holder_whoever_that_is() -> None:
    principal = f"principal_{1:026d}"
    issued = OrgCredentialIssued(member_id="member_1", credential_id="credential_1", expires_at=EXPIRY)
    given = Given(TENANCY).then(ORG, ORG_IDS, OrgCreated(name="acme"), ADDED, issued)
    row = given.row(CREDENTIALS, "credential_1")
    assert (row["holder_id"], row["org_id"], row["expires_at"], row["revoked_at"]) == ("member_1", ORG, EXPIRY, None)
    assert row["issued_at"] == row["created_at"]

    given.then(ORG, ORG_IDS, OrgCredentialRevoked(member_id="member_1", credential_id="credential_1"))
    assert given.row(CREDENTIALS, "credential_1")["revoked_at"] is not None

    created = PrincipalCreated(name="operator", scopes=("operator",))
    given.then(principal, Ids(), created, PrincipalCredentialIssued(credential_id="credential_2"))
    row = given.row(CREDENTIALS, "credential_2")
    assert (row["holder_id"], row["org_id"], row["expires_at"], row["revoked_at"]) == (principal, None, None, None)
    given.then(principal, Ids(), PrincipalCredentialRevoked(credential_id="credential_2"))
    assert given.row(CREDENTIALS, "credential_2")["revoked_at"] is not None


def test_every_event_of_an_aggregate_moves_its_own_row() -> None:
    """Also one that no handler knows."""

    class AppBlessed(Event, frozen=True):
        event_type = "app.blessed"
        event_version = 1

    given = Given(PLATFORM).then(APP, APP_IDS, AppCreated(name="shop"), AppBlessed())

    row = given.row(APPS, APP)
    assert (row["name"], row["resource_version"], row["position"]) == ("shop", 2, 2)
    assert PLATFORM.listens_to("app.blessed")
    assert not TENANCY.listens_to("app.blessed")


@pytest.mark.parametrize(
    ("event", "aggregate_id", "line"),
    [
        (AppCreated(name="shop"), APP, f"operator created app {APP} (name shop)"),
        (AppDeleted(), APP, f"operator deleted app {APP}"),
        (EnvScaled(replicas={"web": 2, "cron": 0}), ENV, f"operator scaled env {ENV} (replicas cron=0 web=2)"),
        (EnvConfigSet(variables={"B": "x", "A": "y"}), ENV, f"operator set config of env {ENV} (variables A B)"),
        (AppCreated(name="n" * 300), APP, f"operator created app {APP} (name {'n' * 200}…)"),
        (
            EpochBegan(epoch="e", cause="created"),
            "platform_" + "0" * 26,
            f"operator began epoch of platform platform_{'0' * 26} (epoch e, cause created)",
        ),
    ],
)
def test_activity_says_who_did_what(event: Event, aggregate_id: str, line: str) -> None:
    [envelope] = Story().envelopes([(aggregate_id, APP_IDS, event)])
    reason = f": {envelope.reason}" if envelope.reason else ""

    assert summarize(envelope, event) == line + reason


def test_activity_has_a_line_for_every_event() -> None:
    given = Given(ACTIVITY).then(APP, APP_IDS, AppCreated(name="shop"), AppDeleted())

    assert [key for key, _ in given.memory.stored_rows(ACTIVITY_TABLE)] == [(1,), (2,)]
    assert given.row(ACTIVITY_TABLE, 1)["aggregate_type"] == "app"


def samples() -> Iterator[tuple[Envelope, Event]]:
    """Give every sample of every version of every event, as stored."""
    for file in sorted(files("keelson.events").joinpath("samples").iterdir(), key=lambda each: each.name):
        stored = json.loads(file.read_text(encoding="utf-8"))
        [envelope] = Story().envelopes([(stored["aggregate_id"], Ids(org_id=ORG), AppDeleted())])
        event = REGISTRY.decode(stored["type"], stored["version"], json.dumps(stored["payload"]))
        fields = {name: getattr(envelope, name) for name in Envelope.__struct_fields__}
        yield Envelope(**fields | {"type": stored["type"], "version": stored["version"]}), event


@pytest.mark.parametrize("name", PROJECTIONS)
def test_handlers_of_every_sample_say_only_what_tables_have(name: str) -> None:
    """A put has exactly its table's fields, a patch no others: the fold refuses anything else."""
    for envelope, event in samples():
        Fold(PROJECTIONS[name]).add(envelope, event)


def test_some_handler_or_own_row_listens_to_every_event_but_the_platforms() -> None:
    known = [PROJECTIONS["tenancy"], PROJECTIONS["platform"]]
    unheard = {each for each in REGISTRY.newest if not any(projection.listens_to(each) for projection in known)}

    assert unheard == {"platform.epoch_began"}


class ThingRow(Row, frozen=True, kw_only=True):
    """A row as plain as can be."""

    id: str
    name: str


THINGS = Table(name="things", row=ThingRow, aggregate="app")
OTHERS = Table(name="others", row=ThingRow)
NAMES = Table(name="names", row=ThingRow, append_only=True)
GOOD = {"id": APP, "name": "n"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (put(OTHERS, id="x"), "without"),
        (put(OTHERS, id="x", name="n", more=1), "exactly its fields|no fields"),
        (patch(OTHERS, "x", more=1), "no fields"),
        (put(THINGS, **GOOD | {"id": "another"}), "row of another aggregate"),
        (patch(THINGS, "another"), "row of another aggregate"),
        (replace(THINGS, APP, rows=[]), "aggregates' own"),
    ],
)
def test_what_no_handler_may_say_is_poison(change: Change, complaint: str) -> None:
    projection = Projection("p", version=1, tables=(THINGS, OTHERS, NAMES))
    projection.on(AppCreated)(
        lambda _envelope, _event: [put(OTHERS, **GOOD | {"id": "x"}), put(THINGS, **GOOD), change]
    )
    event = AppCreated(name="n")
    [envelope] = Story().envelopes([(APP, APP_IDS, event)])

    with pytest.raises(HandlerError, match=complaint):
        Memory(projection).apply(envelope, event)
    with pytest.raises(HandlerError, match=complaint):
        Fold(projection).add(envelope, event)


@pytest.mark.parametrize("change", [patch(NAMES, "x"), replace(NAMES, "x", rows=[])])
def test_an_append_only_table_is_only_appended_to(change: Change) -> None:
    projection = Projection("p", version=1, tables=(NAMES,))
    projection.on(AppCreated)(lambda _envelope, _event: [put(NAMES, id="x", name="n"), change])
    event = AppCreated(name="n")
    [envelope] = Story().envelopes([(APP, APP_IDS, event)])

    with pytest.raises(HandlerError, match="append-only"):
        Fold(projection).add(envelope, event)


def test_a_patch_of_a_missing_row_names_table_and_key() -> None:
    with pytest.raises(MissingRowError, match=f"apps has no row {APP}"):
        Given(PLATFORM).then(APP, APP_IDS, AppRenamed(name="store"))


def test_one_event_has_one_handler() -> None:
    projection = Projection("p", version=1, tables=(OTHERS,))
    projection.on(ReleaseCreated)(lambda _envelope, _event: [])

    with pytest.raises(HandlerError, match=r"two handlers of release\.created"):
        projection.on(ReleaseCreated)(lambda _envelope, _event: [])


def test_f25_the_order_of_a_map_makes_no_difference() -> None:
    """Rows are the same whatever order a map's keys came in: JSON is kept canonical."""
    random = Random(1)
    kept: set[str] = set()
    for _ in range(20):
        names = random.sample("ABCDEFG", k=7)
        given = Given(PLATFORM).then(
            ENV, ENV_IDS, EnvCreated(name="production"), EnvConfigSet(variables=dict.fromkeys(names, "v"))
        )
        kept.update(str(row["variables"]) for _, row in given.memory.stored_rows(ENVS))

    assert len(kept) == 1


def test_changes_are_compared_by_value() -> None:
    assert put(APPS, id="a") == Put(APPS, {"id": "a"})
    assert happened(1, [])[0].position == 1
