"""Reading the log: pages, aggregates, filtered, by time; each against the plainest possible reading of it all."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from random import Random
from typing import Any, Literal

import msgspec
import pytest

from keelson.events import Envelope
from keelson.events.ids import Position
from keelson.log import read
from keelson.log.confirm import confirm
from keelson.log.database import Connection
from keelson.log.decision import CredentialRow, Decision, FreedScope, IdempotencyKey, Limit, Person, ReadSet, SecretRow
from keelson.log.read import Filter, FilteredPage, read_aggregate, read_filtered, read_head, read_page, read_position_at
from support.database import Database
from support.decisions import an_app, decide, made_id
from support.log import append_group, connected, nodes_of, plans_of, read_all
from support.story import Story, insert

Order = Literal["asc", "desc"]


@asynccontextmanager
async def a_story(database: Database, commands: int = 300) -> AsyncIterator[tuple[Connection, list[Envelope]]]:
    """Lend a connection that reads, and all events of a log of so many commands."""
    async with connected(database.owner_dsn) as owner, connected(database.query_dsn) as connection:
        await insert(owner, Story(seed=7, first=2).tell(commands))
        yield connection, await read_all(connection)


def _sought(envelopes: list[Envelope]) -> Iterator[Filter]:
    """Give every filter, by what there is, by what there is not, and two at once."""
    random = Random(3)
    for field in Filter.__struct_fields__:
        present = sorted({value for each in envelopes if (value := getattr(each, field)) is not None})
        for value in random.sample(present, min(2, len(present))):
            yield Filter(**{field: value})
        yield Filter(**{field: "nothing"})
    some = next(each for each in envelopes if each.env_id)
    yield Filter(org_id=some.org_id, env_id=some.env_id)
    yield Filter(app_id=some.app_id, type=some.type)
    yield Filter(env_id=some.env_id, aggregate_type="deploy")
    yield Filter()


def _matches(envelope: Envelope, sought: Filter) -> bool:
    wanted = {field: value for field, value in msgspec.structs.asdict(sought).items() if value is not None}
    return all(getattr(envelope, field) == value for field, value in wanted.items())


async def _read_through(
    connection: Connection, sought: Filter, order: Order, limit: int
) -> tuple[list[Envelope], list[int]]:
    """Read page after page as a client would; give what was found and the cursors."""
    found: list[Envelope] = []
    cursors = [0]
    while True:
        page = await read_filtered(connection, Position(cursors[-1]), limit, sought, order=order)
        found.extend(page.envelopes)
        cursors.append(page.examined)
        if page.examined == (page.head if order == "asc" else 0):
            return found, cursors


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize(("limit", "window"), [(1, 10_000), (3, 7), (50, 100), (1000, 10_000)])
async def test_f4_filtered_pages_are_what_a_look_at_everything_finds(
    database: Database, monkeypatch: pytest.MonkeyPatch, order: Order, limit: int, window: int
) -> None:
    monkeypatch.setattr(read, "WINDOW", window)
    async with a_story(database, 120) as (connection, envelopes):
        ends = {each.position for each in envelopes if each.command_end}
        step = 1 if order == "asc" else -1
        for sought in _sought(envelopes):
            found, cursors = await _read_through(connection, sought, order, limit)
            assert found == [each for each in envelopes if _matches(each, sought)][::step], sought
            between = cursors[1:-1]
            # Each page ends where a command ends, or, read backwards, where one starts; each goes on from the last.
            assert all((cursor if order == "asc" else cursor - 1) in ends for cursor in between), (sought, cursors)
            assert all((later - earlier) * step > 0 for earlier, later in pairwise(between))
            if between and sought == Filter(type="nothing"):
                assert len(cursors) >= len(envelopes) // (window + 20)


async def test_a_filtered_page_without_a_match_has_a_cursor_and_the_head(database: Database) -> None:
    async with a_story(database, 20) as (connection, envelopes):
        head = Position(len(envelopes))
        page = await read_filtered(connection, Position(0), 10, Filter(type="nothing"))
        assert (page.envelopes, page.examined, page.head) == ([], head, head)
        page = await read_filtered(connection, Position(0), 10, Filter(type="nothing"), order="desc")
        assert (page.envelopes, page.examined, page.head) == ([], 0, head)
        for beyond in (head, Position(head + 1), Position(2**63 - 1)):
            page = await read_filtered(connection, beyond, 10, Filter())
            assert (page.envelopes, page.examined, page.head) == ([], head, head)


@pytest.mark.parametrize("limit", [1, 2, 7, 100, 10_000])
async def test_pages_follow_one_another_and_end_where_commands_end(database: Database, limit: int) -> None:
    async with a_story(database) as (connection, envelopes):
        ends = [each.position for each in envelopes if each.command_end]
        seen: list[Envelope] = []
        while True:
            page = await read_page(connection, Position(len(seen)), limit)
            assert page.head == len(envelopes)
            if not page.envelopes:
                break
            seen.extend(page.envelopes)
            wanted = min(len(seen) - len(page.envelopes) + limit, len(envelopes))
            assert seen[-1].position == next(end for end in ends if end >= wanted)
        assert seen == envelopes
        for beyond in (10**6, 2**63 - 1):
            page = await read_page(connection, Position(beyond), limit)
            assert (page.envelopes, page.head) == ([], len(envelopes))


@pytest.mark.parametrize("max_bytes", [1, 300, 5_000, 10**9])
async def test_pages_are_full_by_bytes_too(database: Database, max_bytes: int) -> None:
    async with a_story(database) as (connection, envelopes):
        seen: list[Envelope] = []
        while len(seen) < len(envelopes):
            page = await read_page(connection, Position(len(seen)), 1000, max_bytes=max_bytes)
            assert page.envelopes == envelopes[len(seen) : len(seen) + _full(envelopes[len(seen) :], max_bytes)]
            seen.extend(page.envelopes)


def _full(envelopes: list[Envelope], max_bytes: int) -> int:
    """Give how many events fill a page: up to the end of the command in which their payloads hold so many bytes."""
    held = 0
    for number, each in enumerate(envelopes, start=1):
        held += len(each.payload.encode())
        if held >= max_bytes and each.command_end:
            return number
    return len(envelopes)


async def test_an_aggregates_events_come_in_order_of_seq(database: Database) -> None:
    async with a_story(database) as (connection, envelopes):
        for aggregate_id in {each.aggregate_id for each in envelopes}:
            own = [each for each in envelopes if each.aggregate_id == aggregate_id]
            assert await read_aggregate(connection, aggregate_id) == own
            assert await read_aggregate(connection, aggregate_id, after_seq=1, limit=2) == own[1:3]
        assert await read_aggregate(connection, made_id("app")) == []


async def test_a_time_names_the_last_position_recorded_until_then(database: Database) -> None:
    async with connected(database.owner_dsn) as owner:
        (created,) = await read_all(owner)
        times = (created.recorded_at + timedelta(milliseconds=each.position // 3) for each in Story(first=2).tell(40))
        later = [
            msgspec.structs.replace(each, recorded_at=time)
            for each, time in zip(Story(first=2).tell(40), times, strict=True)
        ]
        await insert(owner, later)
        envelopes = await read_all(owner)
        tick = timedelta(microseconds=1)
        moments = {each.recorded_at for each in envelopes}
        for moment in moments | {each + tick for each in moments} | {each - tick for each in moments}:
            naive = max((each.position for each in envelopes if each.recorded_at <= moment), default=0)
            assert await read_position_at(owner, moment) == naive


# Events as no story tells them, but many: 40 organisations, 400 environments, 4 events of each of 12,500 aggregates.
_MANY = """
    INSERT INTO log.events (
        position, aggregate_id, seq, type, version, org_id, env_id, actor_type, actor_id, request_id, command_id,
        command_end, recorded_at, payload
    )
    SELECT n, 'env_' || n / 4, n % 4 + 1, 'env.renamed', 1, 'org_' || n % 40, 'env_' || n % 400, 'system', 'operator',
        'request', 'command_' || n, true, clock_timestamp(), '{"name":"a"}'
    FROM generate_series(2, 50000) AS n
"""


async def _grow(database: Database) -> None:
    async with connected(database.admin_dsn) as admin:
        await admin.execute(_MANY)
        await admin.execute("UPDATE log.head SET position = 50000")
        await admin.execute("VACUUM ANALYZE log.events")


async def test_no_hot_query_reads_a_whole_table_and_filters_use_their_indexes(database: Database) -> None:
    await _grow(database)
    async with connected(database.admin_dsn, plan_cache_mode="force_generic_plan", jit="off") as admin:
        middle = Position(25_000)
        some = (await read_page(admin, middle, 1)).envelopes[0]
        key = IdempotencyKey("system", "operator", "app.create", "key")
        reads = ReadSet(aggregates={some.aggregate_id: some.seq}, scopes={"s": 0}, keys={("s", "k"): None})

        async def examined(run: Callable[[Connection], Any], *, indexes: set[str]) -> float:
            nodes = nodes_of(await plans_of(admin, run))
            read_whole = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}
            whole = {name for name in read_whole - {"head"} if not name.startswith("pg_")}
            assert not whole
            assert indexes <= {node["Index Name"] for node in nodes if "Index Name" in node}
            return max(
                (
                    node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
                    for node in nodes
                    if node.get("Relation Name") == "events"
                ),
                default=0,
            )

        position, seq = "events_pkey", "events_aggregate_id_seq_key"
        assert await examined(lambda c: read_page(c, middle, 100), indexes={position}) < 150
        assert await examined(lambda c: read_aggregate(c, some.aggregate_id), indexes={seq}) == 4
        assert await examined(lambda c: read_position_at(c, some.recorded_at), indexes={position}) <= 1
        assert await examined(lambda c: confirm(c, key, reads), indexes={seq}) <= 1
        orders: tuple[Order, Order] = ("asc", "desc")
        for order in orders:
            for sought, index in (
                (Filter(org_id=some.org_id), "events_org"),
                (Filter(env_id=some.env_id), "events_env"),
                (Filter(type="nothing"), position),
            ):
                bound = read.WINDOW + 200

                async def read_some(
                    connection: Connection, sought: Filter = sought, order: Order = order
                ) -> FilteredPage:
                    return await read_filtered(connection, middle, 50, sought, order=order)

                found = await examined(read_some, indexes={index})
                assert found <= bound, (sought, order)


async def test_the_append_looks_everything_up_in_an_index_also_while_tables_are_small(database: Database) -> None:
    """Its plans outlive a session's first call; one that reads a whole small table would read a whole large one."""
    async with connected(database.admin_dsn, plan_cache_mode="force_generic_plan", jit="off") as admin:
        epoch = (await read_head(admin)).epoch
        await admin.execute("ANALYZE")

        def decisions() -> list[Decision]:
            scope = made_id("project")
            return [
                decide(
                    epoch,
                    an_app(project_id=scope),
                    reads={made_id("org"): 0},
                    scopes={made_id("org"): 0},
                    keys={(made_id("org"), "key"): None},
                    freed=[FreedScope(f"app.name:{scope}", made_id("app"))],
                    limits=[Limit(f"app.name:{scope}", 5, None)],
                    people=[Person(made_id("person"), f"{scope}@example.org", None)],
                    looked_up={f"{scope}@example.net": None},
                    credentials=[
                        CredentialRow(made_id("credential"), scope.encode(), "member", scope, scope),
                        CredentialRow(made_id("credential"), None, None, None, None),
                    ],
                    secrets=[
                        SecretRow(made_id("secret"), 1, "key", b"sealed"),
                        SecretRow(made_id("secret"), None, None, None),
                    ],
                ),
                decide(epoch, an_app(), reads={made_id("org"): 1}),
                decide(epoch, an_app("taken")),
                decide(epoch, limits=[Limit(made_id("app"), -1, None)], people=[Person("person_1", None, None)]),
                decide(epoch, key="known"),
            ]

        assert len(await append_group(admin, *decisions())) == 5
        await admin.execute("ANALYZE")
        nodes = nodes_of(await plans_of(admin, lambda c: append_group(c, *decisions())))
        assert {node.get("Relation Name") for node in nodes if node["Node Type"] == "Seq Scan"} <= {"head"}
        looked_up = {"events", "claims", "claim_scopes", "idempotency_keys", "people", "credentials", "secrets"}
        assert looked_up <= {node.get("Relation Name") for node in nodes if node["Node Type"].startswith("Index")}
