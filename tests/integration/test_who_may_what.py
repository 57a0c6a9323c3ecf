"""Every command and every read, as everybody: each outcome is what the one table of rights says (F41, F42).

Commands are sent in a way that changes nothing and tells apart whether they were let through: acting on a version that
was never there (412), or creating under an id that is taken (409). What handlers deny is tested with their rules.
"""

from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any

import msgspec
import pytest

from keelson.access.rights import COMMANDS, READS, Right
from keelson.access.scopes import COLLECTION_OF, SCOPES_OF_ROLE, expand
from keelson.access.tokens import new_token
from keelson.command import authorize
from keelson.command.app import build_app as build_command
from keelson.command.registry import HANDLERS
from keelson.command.settings import CommandSettings
from keelson.query import confinement
from keelson.query.app import NOT_BUILT_PATHS
from keelson.query.app import build_app as build_query
from keelson.query.settings import QuerySettings
from keelson.service.app import PUBLIC_PATHS, Application
from keelson.service.limits import GuessLimit
from support.cast import PRINCIPALS, ROLES, Cast, assemble
from support.command_world import IMAGE, Answer, World, open_world
from support.database import Database
from support.keys import SEALING
from support.query_world import Reader, served
from support.query_world import open_world as open_views
from support.sse import streamed
from support.waiting import eventually

NOT_GOOD = ("nobody", "garbage", "unknown", "revoked", "expired")
# Bodies by the names of their fields: as everybody sends them, about the things of the first organisation.
VALUES: dict[str, Any] = {
    "name": "another",
    "email": "another@here.example",
    "role": "readonly",
    "scopes": ["apps:read"],
    "image": IMAGE,
    "quota": {},
    "processes": {"web": {"command": ["x"]}},
    "replicas": {"web": 2},
    "variables": {"A": "b"},
    "hostname": "another.example",
    "process": "web",
    "port": "http",
    "values": {"KEY": "another"},
    "status": "rolling",
    "state": "draining",
    "cpu_millis": 1,
    "memory_bytes": 1,
    "desired_state": "draining",
    # Well-formed, and nobody's.
    "token": new_token(),
}
# Where the field of that name is not the first organisation's, or means another thing.
SPECIAL: dict[str, dict[str, Any]] = {
    "org.create": {"org_id": "org_id"},
    "principal.create": {"principal_id": "principal_id"},
    "principal.revoke_credential": {"credential_id": "principal_credential_id"},
    "project.create": {"project_id": "project_id"},
    "app.create": {"app_id": "app_id"},
    "env.create": {"env_id": "env_id"},
    "release.create": {"release_id": "release_id"},
    "deploy.create": {"deploy_id": "deploy_id"},
    "route.create": {"route_id": "route_id"},
    "node.create_enrollment_token": {"node_id": "node_id"},
    "instance.allocate": {"instance_id": "instance_id"},
}
# What cannot be tried in a way that changes nothing: the answer is a 200 then, and what it makes is harmless.
HARMLESS = {"secret.set", "secret.reveal"}
LET_THROUGH = {409, 412, 422}


@pytest.fixture
async def stage(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[World, Cast, Reader]]:
    """Lend both services, with everybody and everything in the log and the views."""
    # Credentials that are good no more are tried hundreds of times here, faster than anybody may guess.
    monkeypatch.setattr(GuessLimit, "looking_up", lambda _: nullcontext())
    async with open_world(database) as world, open_views(database) as views, served(database) as reader:
        cast = await assemble(world)
        await views.project()
        yield world, cast, reader


def body_of(name: str, ids: Any) -> dict[str, Any]:
    """Give a command's body: each field that must be there, and the id of what it would create."""
    handler = HANDLERS[name]
    required = [field for field in handler.command.__struct_fields__ if _is_required(handler.command, field)]
    body = {field: ids[field] if field in ids and field not in VALUES else VALUES.get(field) for field in required}
    body |= {field: ids[key] for field, key in SPECIAL.get(name, {}).items()}
    if (on := COMMANDS[name].on) is not None:
        body[on] = ids[on]
    if name == "env.rollback":
        body["release_id"] = ids["release_id"]
    if name == "instance.report_status":
        body["status"] = "failed"
        body["reason_code"] = "exited"
    return body


def _is_required(command: type, field: str) -> bool:
    return any(each.required for each in msgspec.structs.fields(command) if each.name == field)


async def send(world: World, cast: Cast, who: str, name: str) -> Answer:
    """Send a command as somebody."""
    headers = {"If-Match": '"999999"'} if HANDLERS[name].target is not None else {}
    return await world.replica.send_as(cast.tokens[who], name, headers=headers, **body_of(name, cast.ids))


def expected(who: str, name: str) -> set[int]:
    """Say by which status a command is answered, as the table has it; worked out apart from the code that decides."""
    right = COMMANDS[name]
    if who in NOT_GOOD or right.who == "enrollment":
        return {401}
    if who == "operator":
        return {403} if right.who == "node" else _let_through(name)
    if right.on is None:
        return {403}
    if who.startswith("node-"):
        return _expected_of_node(who, name, right)
    return _expected_of_tenant(who, name, right)


def _expected_of_node(who: str, name: str, right: Right) -> set[int]:
    """Say it of a node, which sees itself and what is on it."""
    if who != "node-1" or right.on not in ("instance_id", "node_id"):
        return {404}
    return _let_through(name) if right.who == "node" else {403}


def _expected_of_tenant(who: str, name: str, right: Right) -> set[int]:
    if who.startswith("foreign ") or right.on == "node_id":
        return {404}
    scopes = SCOPES_OF_ROLE[who] if who in ROLES else expand(PRINCIPALS[who])  # type: ignore[index]
    # Members that commands name are the one who is `readonly`.
    itself = right.own is not None and who == "readonly"
    if right.who == "scope" and (itself or scopes.issuperset(right.scopes)):
        return _let_through(name)
    return {403} if f"{_collection(right)}:read" in scopes else {404}


def _collection(right: Right) -> str:
    return COLLECTION_OF[(right.on or "").removesuffix("_id")]


def _let_through(name: str) -> set[int]:
    return {*LET_THROUGH, 200} if name in HARMLESS else LET_THROUGH


async def test_f41_every_command_as_everybody(stage: tuple[World, Cast, Reader]) -> None:
    world, cast, _ = stage
    wrong = []
    before = await world.head()
    for name in HANDLERS:
        for who in cast.everybody:
            answer = await send(world, cast, who, name)
            if answer.status not in expected(who, name):
                wrong.append(f"{who}: {name} {answer.status} {answer.body}")
    assert not wrong, "\n".join(wrong)
    changed = {event.type for event in await world.events(before)}
    assert changed <= {"secret.version_set", "secret.revealed"}, changed


# Reads.

# In each path, whose id it is.
_IDS = {"history": "app_id", "desired": "node_id"}


def path_of(template: str, ids: Any) -> str:
    """Give a path with the first organisation's id in it."""
    parts = template.split("/")
    field = next((_IDS[part] for part in parts if part in _IDS), f"{parts[2].rstrip('s')}_id")
    return template.replace("{id}", str(ids.get(field))).replace("{aggregate_id}", str(ids.get(field)))


def readable(who: str, template: str) -> int:
    """Say by which status a read is answered, as the table has it."""
    right = READS[template]
    if who in NOT_GOOD:
        return 401
    if who == "operator" or (who == "node-1" and right.node):
        return 200
    single = "{" in template
    if who.startswith(("foreign ", "node-")):
        scopes = SCOPES_OF_ROLE[who.removeprefix("foreign ")] if who.startswith("foreign") else frozenset()  # type: ignore[index]
        if single:
            return 404
        return 200 if right.scope in scopes else 403
    scopes = SCOPES_OF_ROLE[who] if who in ROLES else expand(PRINCIPALS[who])  # type: ignore[index]
    if right.scope in scopes:
        return 200
    return 404 if single else 403


async def test_f41_every_read_as_everybody(stage: tuple[World, Cast, Reader]) -> None:
    _, cast, reader = stage
    wrong = []
    for template in READS:
        for who in cast.everybody:
            answer = await reader.get(path_of(template, cast.ids), token=cast.tokens[who])
            if answer.status != readable(who, template):
                wrong.append(f"{who}: {template} {answer.status} {answer.body}")
    assert not wrong, "\n".join(wrong)


async def test_f41_nothing_that_is_read_is_somebody_elses(stage: tuple[World, Cast, Reader]) -> None:
    """By what is in the answers, also where somebody asks for what is not theirs."""
    _, cast, reader = stage
    tenants = [who for who in cast.everybody if who in ROLES or who in PRINCIPALS or who.startswith("foreign ")]
    seen = 0
    for who in tenants:
        own, other = (cast.foreign, cast.ids) if who.startswith("foreign ") else (cast.ids, cast.foreign)
        for template in READS:
            if "{" in template:
                continue
            for params in ({}, {"org_id": other["org_id"]}):
                if template in ("/v1/orgs", "/v1/projections", "/v1/edge/desired") and params:
                    continue
                answer = await reader.get(template, token=cast.tokens[who], **params)
                if answer.status != 200:
                    continue
                items = answer.body["items"]
                assert not (items and params), (who, template)
                strangers = [each for each in items if each.get("org_id", each.get("id")) != own["org_id"]]
                assert not strangers, (who, template, strangers)
                seen += len(items)
    assert seen > 200


async def test_f41_the_feed_as_everybody(stage: tuple[World, Cast, Reader]) -> None:
    """As a stream and as a page that is waited for, each is answered as the audit log is: with one's own alone."""
    world, cast, reader = stage
    head = await world.head()
    await eventually(lambda: reader.app.state.feed.hub.end == head)
    told = 0
    for who in cast.everybody:
        waited = await reader.get("/v1/events", token=cast.tokens[who], wait=5)
        async with streamed(reader.url, cast.tokens[who]) as stream:
            assert (stream.status, waited.status) == (readable(who, "/v1/events"),) * 2, who
            if stream.status != 200:
                continue
            events = [frame.data for frame in await stream.events_to(head)]
        assert events[: len(waited.body["items"])] == waited.body["items"]
        if who != "operator":
            own = cast.foreign if who.startswith("foreign ") else cast.ids
            assert {each["org_id"] for each in events} == {own["org_id"]}, who
        told += len(events)
    assert told > 200


async def test_f41_an_operator_sees_both(stage: tuple[World, Cast, Reader]) -> None:
    _, cast, reader = stage
    for template in ("/v1/apps", "/v1/secrets", "/v1/members", "/v1/activity"):
        items = await reader.get_all(template, token=cast.tokens["operator"])
        assert {cast.ids["org_id"], cast.foreign["org_id"]} <= {each["org_id"] for each in items}


async def test_emails_are_told_to_those_who_may_change_members_and_to_oneself(
    stage: tuple[World, Cast, Reader],
) -> None:
    _, cast, reader = stage
    for who, told in {"owner": 4, "admin": 4, "star": 4, "operator": 8, "readonly": 1, "developer": 1}.items():
        items = await reader.get_all("/v1/members", token=cast.tokens[who])
        assert sum(each["email"] is not None for each in items) == told, who
        one = await reader.get(f"/v1/members/{cast.ids['member_id']}", token=cast.tokens[who])
        assert (one.body["email"] is not None) is (told > 1 or who == "readonly")


def test_f41_a_path_without_an_entry_is_found() -> None:
    """Every path of both services is public, or in the table, or one that only leads to commands."""
    command = build_command(CommandSettings(**{**_SETTINGS, **SEALING, "idempotency_secret": "x" * 16}))
    query = build_query(QuerySettings(**_SETTINGS))
    of_commands = {"/v1/commands/{name}", "/v1/commands", "/v1/nodes/{id}/heartbeat"}
    assert _paths(command) == {*of_commands, *PUBLIC_PATHS}
    assert _paths(query) == {*READS, *NOT_BUILT_PATHS, *PUBLIC_PATHS}
    assert HANDLERS.keys() == COMMANDS.keys()


_SETTINGS: dict[str, Any] = {"database_url": "postgresql://nobody@127.0.0.1/nothing"}


def _paths(app: Application) -> set[str]:
    return {getattr(route, "path", "") for route in app.routes}


def test_f41_an_endpoint_without_a_right_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "READS", {path: READS[path] for path in READS if path != "/v1/apps"})
    with pytest.raises(KeyError):
        build_query(QuerySettings(**_SETTINGS))


async def test_f41_a_command_without_a_right_is_nobodys(
    stage: tuple[World, Cast, Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, cast, _ = stage
    monkeypatch.setattr(authorize, "COMMANDS", {name: COMMANDS[name] for name in COMMANDS if name != "app.rename"})
    for who in ("operator", "owner"):
        answer = await world.replica.send_as(cast.tokens[who], "app.rename", app_id=cast.ids["app_id"], name="x")
        assert (answer.status, answer.code) == (403, "forbidden")


async def test_only_a_node_says_that_it_is_there(stage: tuple[World, Cast, Reader]) -> None:
    world, cast, _ = stage
    path = f"/v1/nodes/{cast.ids['node_id']}/heartbeat"
    statuses = {"node-1": 200, "operator": 403} | dict.fromkeys(NOT_GOOD, 401)
    for who in cast.everybody:
        answer = await world.replica.send(
            *("POST", path),
            token=cast.tokens[who],
            headers={"Content-Type": "application/json"},
            body=b'{"observed_position": 1}',
        )
        assert answer.status == statuses.get(who, 404), who


async def test_in_a_bundle_each_command_needs_its_own_right(stage: tuple[World, Cast, Reader]) -> None:
    world, cast, _ = stage
    before = await world.head()
    rename = {"name": "app.rename", "data": {"app_id": cast.ids["app_id"], "name": "store"}}
    forbidden = {"name": "project.rename", "data": {"project_id": cast.ids["project_id"], "name": "x"}}
    foreign = {"name": "app.rename", "data": {"app_id": cast.foreign["app_id"], "name": "x"}}
    for second, status in ((forbidden, 403), (foreign, 404)):
        answer = await world.replica.bundle(rename, second, token=cast.tokens["developer"] or "")
        assert (answer.status, answer.body["command_index"]) == (status, 1)
    assert await world.head() == before


async def test_what_another_organisation_has_cannot_be_named_beside_ones_own(
    stage: tuple[World, Cast, Reader],
) -> None:
    world, cast, _ = stage
    deploy = {"env_id": cast.ids["env_id"], "release_id": cast.foreign["release_id"]}
    answer = await world.replica.send_as(cast.tokens["owner"], "deploy.create", **deploy)
    assert (answer.status, answer.code) == (404, "not_found")
    missing = await world.replica.send_as(
        cast.tokens["owner"], "deploy.create", **{**deploy, "release_id": f"release_{'0' * 26}"}
    )
    assert missing.status == 404
    assert _without(answer, cast.foreign["release_id"]) == _without(missing, f"release_{'0' * 26}")


def _without(answer: Answer, own_id: str) -> str:
    return str(answer.body["detail"]).replace(own_id, "")
