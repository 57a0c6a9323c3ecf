"""What the append promises of one group: atomic, ordered, checked, each decision by itself."""

import asyncio
from datetime import timedelta
from random import Random
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from keelson.events import Actor, Ids
from keelson.events.env import EnvConfigSet
from keelson.events.ids import AggregateId, Position, Seq
from keelson.events.org import OrgCreated, OrgRenamed
from keelson.events.project import ProjectCreated, ProjectDeleted
from keelson.log.append import Appender
from keelson.log.confirm import confirm, count_held, read_holder, read_holders, read_scope
from keelson.log.database import Connection
from keelson.log.decision import (
    Context,
    CredentialRow,
    Done,
    FreedScope,
    KeyReused,
    KeyTaken,
    Limit,
    Moved,
    OverLimit,
    Person,
    ReadSet,
    Replayed,
    SecretRow,
    TakenKey,
)
from keelson.log.group import MAX_DECISIONS
from keelson.log.read import read_head
from support.database import Database
from support.decisions import DEPENDENT, PROJECT, an_app, an_event, decide, done, made_id
from support.log import (
    PATIENCE_S,
    append,
    append_group,
    appending,
    assert_sound,
    begin_epoch,
    connected,
    read_all,
    read_epoch,
    running,
)

NAMES = f"app.name:{PROJECT}"


async def test_a_decision_answered_for_two_reasons_costs_no_other_decision(database: Database) -> None:
    """It was once counted twice, as replayed and as over its limit; the group then seemed to be settled."""
    async with connected(database.command_dsn) as connection:
        epoch = await read_epoch(connection)
        only_one = Limit(NAMES, 1, None)
        await append_group(connection, decide(epoch, an_app(), key="key", limits=[only_one]))
        again = decide(epoch, an_app(), key="key", limits=[only_one])
        other = decide(epoch, an_app(project_id="project_other"))
        outcomes = await append_group(connection, again, other)
        assert isinstance(outcomes[0], Replayed)
        assert outcomes[1] == done(3)
        assert (await assert_sound(connection))[-1].aggregate_id == other.events[0].aggregate_id


async def test_every_column_says_what_was_decided(database: Database) -> None:
    env, ancestors = (
        made_id("env"),
        {"org_id": "org_1", "project_id": "project_1", "app_id": "app_1", "node_id": "node_1"},
    )
    config = EnvConfigSet(variables={"TEXT": 'ü \\ " \n \t \u2028 \x7f', "EMPTY": ""})
    context = Context(
        actor=Actor("user", "member_1"),
        reason="weil's so ist",
        request_id="request-1",
        correlation_id="correlation-1",
        causation_id=Position(1),
        traceparent="00-trace-01",
    )
    async with appending(database.command_dsn) as (appender, epoch), connected(database.query_dsn) as connection:
        events = [an_event(env, 1, config, **ancestors), an_event(env, 2, EnvConfigSet(variables={}), **ancestors)]
        decision = decide(epoch, *events, context=context, actor=context.actor)
        before = (await read_head(connection)).recorded_at
        assert await append(appender, decision) == [done(2, 3)]
        _, first, second = await assert_sound(connection, claims=False)
    assert (first.position, first.aggregate_id, first.seq, first.type, first.version) == (
        2,
        env,
        1,
        "env.config_set",
        1,
    )
    assert first.ids == Ids(**ancestors, env_id=env)
    assert (first.actor_type, first.actor_id, first.reason) == ("user", "member_1", "weil's so ist")
    assert (first.request_id, first.correlation_id, first.causation_id) == ("request-1", "correlation-1", 1)
    assert (first.traceparent, first.command_id) == ("00-trace-01", decision.command_id)
    assert (first.command_end, second.command_end) == (False, True)
    assert first.payload == events[0].payload
    assert before <= first.recorded_at == second.recorded_at


async def test_what_is_left_out_is_null(database: Database) -> None:
    async with appending(database.command_dsn) as (appender, epoch), connected(database.query_dsn) as connection:
        org = made_id("org")
        await append(appender, decide(epoch, an_event(org, 1, OrgCreated(name="a"))))
        event = (await read_all(connection))[-1]
    assert event.ids == Ids(org_id=org)
    assert (event.reason, event.correlation_id, event.causation_id, event.traceparent) == (None, None, None, None)


async def test_f2_an_append_that_rolls_back_leaves_no_gap(database: Database) -> None:
    async with connected(database.command_dsn) as connection, connected(database.command_dsn) as other:
        epoch = await read_epoch(connection)
        transaction = connection.transaction()
        await transaction.start()
        assert await append_group(connection, decide(epoch, an_app(), an_app())) == [done(2, 3)]
        await transaction.rollback()
        assert await append_group(other, decide(epoch, an_app())) == [done(2)]
        await assert_sound(connection)


@pytest.mark.parametrize("kind", DEPENDENT)
async def test_f12_the_function_refuses_a_group_whose_decisions_depend_on_one_another(
    database: Database, kind: str
) -> None:
    async with connected(database.command_dsn) as connection:
        epoch = await read_epoch(connection)
        for first, second in (DEPENDENT[kind](epoch), reversed(DEPENDENT[kind](epoch))):
            with pytest.raises(asyncpg.PostgresError) as raised:
                await append_group(connection, decide(epoch, an_app()), first, decide(epoch, an_app()), second)
            assert raised.value.sqlstate == "KE002"
        assert len(await read_all(connection)) == 1


async def test_an_event_continues_its_aggregate_as_it_was_read(database: Database) -> None:
    org = made_id("org")
    created, gap = an_event(org, 1, OrgCreated(name="a")), an_event(org, 3, OrgRenamed(name="b"))
    async with connected(database.command_dsn) as connection:
        epoch = await read_epoch(connection)
        unread = decide(epoch, created)
        unread.reads.aggregates.clear()
        for wrong in (decide(epoch, created, gap), decide(epoch, gap, reads={org: 0}), unread):
            wrong.taken.clear()
            wrong.freed.clear()
            with pytest.raises(asyncpg.PostgresError) as raised:
                await append_group(connection, wrong, decide(epoch, an_app()))
            assert raised.value.sqlstate == "KE003"
        assert len(await read_all(connection)) == 1


async def test_another_epoch_is_refused_and_named(database: Database) -> None:
    async with connected(database.command_dsn) as connection:
        with pytest.raises(asyncpg.PostgresError) as raised:
            await append_group(connection, decide("another", an_app()))
        assert raised.value.sqlstate == "KE001"
        assert raised.value.detail == await read_epoch(connection)


async def test_f13_a_decision_whose_read_set_has_moved_is_refused_by_each_kind_of_read(database: Database) -> None:
    org = made_id("org")
    async with connected(database.command_dsn) as connection:
        epoch = await read_epoch(connection)
        await append_group(connection, decide(epoch, an_event(org, 1, OrgCreated(name="a"))))
        decisions = [
            decide(epoch, an_app(), reads={org: 0}),
            decide(epoch, an_app(), reads={org: 2}),
            decide(epoch, an_app(), scopes={"org.name": 0}),
            decide(epoch, an_app(), keys={("org.name", "a"): None}),
            decide(epoch, an_app(), keys={("org.name", "a"): made_id("org")}),
            decide(epoch, an_app(), keys={("org.name", "b"): org}),
            decide(epoch, an_app(), reads={org: 1}, scopes={"org.name": 1}, keys={("org.name", "a"): org}),
        ]
        assert await append_group(connection, *decisions) == [Moved()] * 6 + [done(3)]
        await assert_sound(connection)


async def test_f13a_a_refusal_is_confirmed_by_each_kind_of_read(database: Database) -> None:
    org = made_id("org")
    async with connected(database.command_dsn) as connection:
        epoch = await read_epoch(connection)
        await append_group(connection, decide(epoch, an_event(org, 1, OrgCreated(name="a"))))
        right = ReadSet({org: Seq(1)}, {"org.name": 1}, {("org.name", "a"): org, ("org.name", "b"): None})
        confirmation = await confirm(connection, None, right)
        assert (confirmation.epoch, confirmation.position) == (epoch, 2)
        assert not confirmation.moved
        assert confirmation.known_key is None
        for wrong in (
            ReadSet(aggregates={org: Seq(0)}),
            ReadSet(aggregates={made_id("org"): Seq(1)}),
            ReadSet(scopes={"org.name": 0}),
            ReadSet(keys={("org.name", "a"): None}),
            ReadSet(keys={("org.name", "b"): org}),
        ):
            assert (await confirm(connection, None, wrong)).moved


async def test_f14_one_key_is_answered_once_and_its_answer_given_again(database: Database) -> None:
    async with appending(database.command_dsn) as (appender, epoch), connected(database.command_dsn) as connection:
        decisions = [decide(epoch, an_app(), key="key", answer=f'"{number}"') for number in range(50)]
        outcomes = await append(appender, *decisions)
        (first,) = [outcome for outcome in outcomes if isinstance(outcome, Done)]
        assert first == done(2)
        replays = [outcome for outcome in outcomes if isinstance(outcome, Replayed)]
        winner = decisions[outcomes.index(first)]
        assert replays == [Replayed(winner.command_id, Position(2), Position(2), winner.answer)] * 49
        assert len(await assert_sound(connection)) == 2
        known = (await confirm(connection, winner.key, ReadSet())).known_key
        assert known is not None
        assert (known.request_hash, known.replayed) == (winner.request_hash, replays[0])


async def test_f14_the_key_comes_before_the_read_set(database: Database) -> None:
    """A delete that is retried finds its answer, although what it read has moved by itself."""
    async with appending(database.command_dsn) as (appender, epoch):
        app = an_app()
        first, again = (decide(epoch, app, key="key") for _ in range(2))
        await append(appender, first)
        assert await append(appender, again) == [Replayed(first.command_id, Position(2), Position(2), "{}")]


async def test_f14_a_command_without_events_is_kept_too(database: Database) -> None:
    async with appending(database.command_dsn) as (appender, epoch), connected(database.command_dsn) as connection:
        first, again = decide(epoch, key="key"), decide(epoch, an_app(), key="key")
        assert await append(appender, first) == [Done(None, Position(1))]
        assert await append(appender, again) == [Replayed(first.command_id, None, Position(1), "{}")]
        assert len(await assert_sound(connection)) == 1


async def test_f15_a_key_belongs_to_one_request_of_one_actor_and_command(database: Database) -> None:
    async with appending(database.command_dsn) as (appender, epoch), connected(database.command_dsn) as connection:
        await append(appender, decide(epoch, an_app(), key="key"))
        assert await append(appender, decide(epoch, an_app(), key="key", request_hash=b"other")) == [KeyReused()]
        others = [
            decide(epoch, an_app(), key="key", actor=Actor("user", "operator")),
            decide(epoch, an_app(), key="key", actor=Actor("system", "other")),
            decide(epoch, an_app(), key="key", name="other.command"),
        ]
        assert await append(appender, *others) == [done(3), done(4), done(5)]
        assert len(await assert_sound(connection)) == 5


async def test_f12_of_two_that_take_one_name_exactly_one_wins(database: Database) -> None:
    """At once in one process, and at once in two."""
    appenders = [Appender(database.command_dsn) for _ in range(2)]
    async with running(*appenders), connected(database.command_dsn) as connection:
        epoch = await read_epoch(connection)
        for number in range(20):
            decisions = [decide(epoch, an_app(f"name-{number}")) for _ in range(4)]
            outcomes = await asyncio.gather(
                *(appenders[index % 2].append(each, PATIENCE_S) for index, each in enumerate(decisions))
            )
            winner = next(each for each, outcome in zip(decisions, outcomes, strict=True) if isinstance(outcome, Done))
            taken = KeyTaken(NAMES, f"name-{number}", winner.events[0].aggregate_id)
            assert outcomes.count(taken) == 3
        assert len(await assert_sound(connection)) == 21


@pytest.mark.parametrize("limit", [Limit("quota", 3, None), Limit("quota", None, 30), Limit("quota", 3, 30)])
async def test_f12_of_many_that_want_a_quotas_last_place_exactly_one_wins(database: Database, limit: Limit) -> None:
    appenders = [Appender(database.command_dsn) for _ in range(2)]
    async with running(*appenders), connected(database.command_dsn) as connection:
        epoch = await read_epoch(connection)
        scope = limit.scope
        taken = [[TakenKey(scope, str(number), made_id("app"), 10)] for number in range(8)]
        await append(appenders[0], decide(epoch, taken=taken[0]), decide(epoch, taken=taken[1]))
        decisions = [decide(epoch, an_app(), taken=each, limits=[limit]) for each in taken[2:]]
        outcomes = await asyncio.gather(
            *(appenders[index % 2].append(each, PATIENCE_S) for index, each in enumerate(decisions))
        )
        assert sum(isinstance(outcome, Done) for outcome in outcomes) == 1
        assert outcomes.count(OverLimit(scope, 4, 40)) == 5
        state = await read_scope(connection, scope)
        assert (state.held, state.amount, state.version) == (3, 30, 2)


async def test_f12_a_parent_is_deleted_only_when_empty_and_a_child_made_only_in_what_lives(database: Database) -> None:
    async with appending(database.command_dsn) as (appender, epoch), connected(database.command_dsn) as connection:
        for _ in range(10):
            project_id = made_id("project")
            await append(appender, decide(epoch, an_event(project_id, 1, ProjectCreated(name=project_id))))
            child = decide(epoch, an_app(project_id=project_id), reads={project_id: 1})
            gone = an_event(project_id, 2, ProjectDeleted())
            parent = decide(epoch, gone, limits=[Limit(f"app.name:{project_id}", 0, None)])
            outcomes = await append(appender, child, parent)
            assert sum(isinstance(outcome, Done) for outcome in outcomes) == 1
        await assert_sound(connection)


async def test_what_a_decision_frees_counts_no_more_and_may_be_taken_by_itself(database: Database) -> None:
    one, two = made_id("app"), made_id("app")
    async with connected(database.command_dsn) as connection:
        epoch = await read_epoch(connection)
        held = [TakenKey("scope", "a", one, 5), TakenKey("scope", "b", one, 6), TakenKey("scope", "c", two, 7)]
        await append_group(connection, decide(epoch, taken=held))
        assert (await read_scope(connection, "scope")).amount == 18
        exchanged = decide(
            epoch,
            freed=[FreedScope("scope", one)],
            taken=[TakenKey("scope", "a", two, 1), TakenKey("scope", "d", one, 2)],
            limits=[Limit("scope", 3, 10), Limit("elsewhere", 0, 0)],
        )
        assert await append_group(connection, exchanged) == [Done(None, Position(1))]
        state = await read_scope(connection, "scope")
        assert (state.held, state.amount, state.version) == (3, 10, 2)
        assert await read_holder(connection, "scope", "a") == two
        assert await read_holder(connection, "scope", "b") is None
        assert await count_held(connection, "scope", [one]) == 1
        assert await read_holders(connection, "scope") == sorted([one, two])
        assert await read_holders(connection, "elsewhere") == []
        foreign = decide(epoch, freed=[FreedScope("scope", two)], taken=[TakenKey("scope", "d", two, 0)])
        assert await append_group(connection, foreign) == [KeyTaken("scope", "d", one)]


async def test_decisions_of_a_group_succeed_or_fail_one_by_one(database: Database) -> None:
    known = decide("", an_app("known"), key="known")
    async with connected(database.command_dsn) as connection:
        known.epoch = epoch = await read_epoch(connection)
        await append_group(connection, known, decide(epoch, taken=[TakenKey("full", "1", made_id("app"), 0)]))
        written = [_vault_rows(number) for number in range(4)]
        org = made_id("org")
        outcomes = await append_group(
            connection,
            decide(epoch, an_app()),
            decide(epoch, an_app(), key="known", **written[0]),
            decide(epoch, an_app(), key="known", name="other", reads={known.events[0].aggregate_id: 0}, **written[1]),
            decide(epoch, an_app("known"), **written[2]),
            decide(epoch, an_event(org, 1, OrgCreated(name="a")), an_event(org, 2, EnvConfigSet(variables={}))),
            decide(epoch, an_app(project_id="p2"), limits=[Limit("full", 0, None)], **written[3]),
            decide(epoch, an_app(project_id="p3")),
        )
        assert outcomes == [
            done(3),
            Replayed(known.command_id, Position(2), Position(2), "{}"),
            Moved(),
            KeyTaken(NAMES, "known", known.events[0].aggregate_id),
            done(4, 5),
            OverLimit("full", 1, 0),
            done(6),
        ]
        await _assert_only(connection, "log.idempotency_keys", 5)
        for table in ("vault.people", "vault.credentials", "vault.secrets"):
            await _assert_only(connection, table, 0)
        assert len(await read_all(connection)) == 6


def _vault_rows(number: int = 0) -> dict[str, Any]:
    """Make a row of each kind."""
    member = f"member_{number}"
    return {
        "people": [Person(f"person_{number}", f"{number}@example.org", None)],
        "credentials": [CredentialRow(f"credential_{number}", b"hash %d" % number, "member", made_id("org"), member)],
        "secrets": [SecretRow(f"secret_{number}", 1, "key", b"sealed")],
    }


async def _assert_only(connection: Connection, table: str, rows: int) -> None:
    assert await connection.fetchval(f"SELECT count(*) FROM {table}") == rows  # noqa: S608 - a test's own text


async def test_the_vault_changes_with_the_event_and_forgets(database: Database) -> None:
    async with appending(database.command_dsn) as (appender, epoch), connected(database.query_dsn) as connection:
        ada, bob = Person("person_ada", "ada@example.org", "Ada"), Person("person_bob", "bob@example.org", None)
        await append(appender, decide(epoch, an_app(), people=[ada, bob]))
        await append(appender, decide(epoch, an_app(), people=[ada._replace(name=None), bob._replace(name="Bob")]))
        people = await connection.fetch("SELECT person_id, email, name FROM vault.people ORDER BY person_id")
        assert [tuple(row) for row in people] == [ada._replace(name=None), bob._replace(name="Bob")]
        await append(appender, decide(epoch, an_app(), people=[Person("person_ada", None, None)]))
        assert await connection.fetchval("SELECT array_agg(person_id) FROM vault.people") == ["person_bob"]


async def test_credentials_and_secrets_change_with_the_event_and_are_erased(database: Database) -> None:
    async with appending(database.command_dsn) as (appender, epoch), connected(database.command_dsn) as connection:
        await append(appender, decide(epoch, an_app(), **_vault_rows(1)), decide(epoch, an_app(), **_vault_rows(2)))
        credentials = await connection.fetch("SELECT * FROM vault.credentials ORDER BY credential_id")
        assert [tuple(row)[:3] for row in credentials] == [
            ("credential_1", b"hash 1", "member"),
            ("credential_2", b"hash 2", "member"),
        ]
        later = [SecretRow("secret_1", 2, "other", b"\0"), SecretRow("secret_2", None, None, None)]
        revoked = CredentialRow("credential_1", None, None, None, None)
        await append(appender, decide(epoch, an_app(), secrets=later, credentials=[revoked]))
        secrets = await connection.fetch("SELECT * FROM vault.secrets ORDER BY version")
        assert [tuple(row) for row in secrets] == [("secret_1", 1, "key", b"sealed"), ("secret_1", 2, "other", b"\0")]
        assert await connection.fetchval("SELECT array_agg(credential_id) FROM vault.credentials") == ["credential_2"]
        anew = [SecretRow("secret_1", None, None, None), SecretRow("secret_1", 3, "key", b"new")]
        await append(appender, decide(epoch, an_app(), secrets=anew))
        assert await connection.fetchval("SELECT array_agg(version) FROM vault.secrets") == [3]


async def test_f12_an_email_is_one_persons_in_whichever_case(database: Database) -> None:
    """Two replicas add one person: whoever is second decides again, and finds them."""
    ada, other = Person("person_1", "Ada@example.org", None), Person("person_2", "ada@EXAMPLE.org", None)
    async with (
        appending(database.command_dsn) as (one, epoch),
        appending(database.command_dsn) as (two, _),
        connected(database.query_dsn) as connection,
    ):
        outcomes = await asyncio.gather(
            one.append(decide(epoch, an_app(), people=[ada], looked_up={ada.email or "": None}), PATIENCE_S),
            two.append(decide(epoch, an_app(), people=[other], looked_up={other.email or "": None}), PATIENCE_S),
        )
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Done", "Moved"]
        late = decide(epoch, an_app(), people=[Person("person_3", "ADA@example.org", None)])
        async with connected(database.command_dsn) as command:
            both = await append_group(command, late, decide(epoch, an_app()))
        assert [type(outcome) for outcome in both] == [Moved, Done]
        people = await connection.fetch("SELECT person_id FROM vault.people")
        winner = ada if isinstance(outcomes[0], Done) else other
        assert [tuple(row) for row in people] == [(winner.person_id,)]
        found = {"ada@example.ORG": winner.person_id}
        again = decide(epoch, an_app(), looked_up=found, people=[winner._replace(name="Ada")])
        assert isinstance((await append(one, again))[0], Done)


async def test_what_the_server_quotes_of_the_vault_is_not_logged(database: Database) -> None:
    twice = [Person("person_1", "a@example.org", None), Person("person_2", "a@example.org", None)]
    nameless = [CredentialRow("credential_1", b"hash", "member", "holder_1", None)]
    async with appending(database.command_dsn) as (appender, epoch):
        with capture_logs() as logged:
            assert await append(appender, decide(epoch, an_app(), people=twice)) == [Moved()]
            with pytest.raises(asyncpg.NotNullViolationError, match="holder_1"):
                await append(appender, decide(epoch, an_app(), credentials=nameless))
    assert [each["event"] for each in logged] == ["append_lost_race", "decision_refused"]
    assert "a@example.org" not in str(logged)
    assert "holder_1" not in str(logged)


async def test_f13_who_was_found_and_is_erased_meanwhile_is_not_what_was_decided_on(database: Database) -> None:
    ada = Person("person_1", "a@example.org", None)
    erased = Person("person_1", None, None)
    anew = Person("person_2", "a@example.org", None)
    async with appending(database.command_dsn) as (appender, epoch):
        await append(appender, decide(epoch, an_app(), people=[ada]))
        found = decide(epoch, an_app(), looked_up={"a@example.org": "person_1"})
        both = await append(appender, decide(epoch, an_app(), people=[erased]), found)
        assert [type(outcome) for outcome in both] == [Done, Moved]
        await append(appender, decide(epoch, an_app(), people=[ada]))
        swapped = decide(epoch, an_app(), people=[erased, anew], looked_up={"a@example.org": "person_1"})
        assert isinstance((await append(appender, swapped))[0], Done)


@pytest.mark.parametrize(
    "bad",
    [
        {"context": Context(actor=Actor("system", "operator"), request_id="r", reason="a\0b")},
        {"answer": "a\0b"},
        {"context": Context(actor=Actor("system", "operator"), request_id="r", causation_id=Position(2**63))},
        {"context": Context(actor=Actor("system", "operator"), request_id="\ud800")},
        {"taken": [TakenKey("scope", "amount", AggregateId("app"), 2**63)]},
        {"taken": [TakenKey("scope", Random(0).randbytes(9000).hex(), AggregateId("app"), 0)]},
        {"people": [Person("person_1", "a", None), Person("person_1", "b", None)]},
        {"credentials": [CredentialRow("credential_1", b"hash", "nobody", "org_1", "member_1")]},  # type: ignore[arg-type]
        {"credentials": [CredentialRow("credential_1", b"hash", "member", None, "member_1")]},
        {"secrets": [SecretRow("secret_1", 1, "key", None)]},
        {"secrets": [SecretRow("secret_1", 0, "key", b"sealed")]},
    ],
)
async def test_one_bad_decision_harms_no_other(database: Database, bad: dict[str, object]) -> None:
    async with appending(database.command_dsn) as (appender, epoch), connected(database.command_dsn) as connection:
        pass
    good = [decide(epoch, an_app()) for _ in range(3)]
    tasks = [asyncio.create_task(appender.append(each, PATIENCE_S)) for each in good]
    wrong = asyncio.create_task(appender.append(decide(epoch, an_app(), **bad), PATIENCE_S))  # type: ignore[arg-type]
    async with running(appender), connected(database.command_dsn) as connection:
        assert [await task for task in tasks] == [done(2), done(3), done(4)]
        with pytest.raises((asyncpg.PostgresError, ValueError)):
            await wrong
        assert len(await assert_sound(connection)) == 4


async def test_groups_are_as_large_as_may_be(database: Database) -> None:
    sizes: list[int] = []
    async with appending(database.command_dsn, on_group=lambda size, _: sizes.append(size)) as (appender, epoch):
        outcomes = await append(appender, *(decide(epoch, an_app()) for _ in range(2 * MAX_DECISIONS + 88)))
    assert all(isinstance(outcome, Done) for outcome in outcomes)
    assert sizes == [MAX_DECISIONS, MAX_DECISIONS, 88]


async def test_f11_recorded_times_never_go_back(database: Database) -> None:
    async with appending(database.command_dsn) as (appender, epoch), connected(database.admin_dsn) as admin:
        future = (await read_head(admin)).recorded_at + timedelta(days=1)
        await admin.execute("UPDATE log.head SET recorded_at = $1", future)
        await append(appender, decide(epoch, an_app()))
        await append(appender, decide(epoch, an_app()))
        envelopes = await assert_sound(admin)
    assert [each.recorded_at for each in envelopes[1:]] == [future, future]


async def test_f11_an_epoch_does_not_begin_before_what_it_follows(database: Database) -> None:
    async with connected(database.admin_dsn) as admin:
        future = (await read_head(admin)).recorded_at + timedelta(days=1)
        await admin.execute("UPDATE log.head SET recorded_at = $1", future)
        await begin_epoch(admin, "later")
        assert (await assert_sound(admin))[-1].recorded_at == future == (await read_head(admin)).recorded_at
