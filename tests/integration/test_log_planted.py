"""The promises that only show when writers and readers meet, and that their checks can fail: each has a planted bug.

A check is a function of a database. It passes on the log as it is, and must fail on one with a bug planted.
"""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest
from structlog.testing import capture_logs

from keelson.events import Event, Ids
from keelson.events.app import AppCreated, AppRenamed
from keelson.events.base import ClaimChange, Release, Take
from keelson.events.ids import Position
from keelson.log.append import Appender, AppendUnavailableError
from keelson.log.claims import rebuild_claims, verify_claims
from keelson.log.database import Connection
from keelson.log.decision import Done, KeyTaken, Limit, Moved, OverLimit, Replayed, TakenKey
from keelson.log.group import Group
from keelson.log.listen import Listener
from keelson.log.read import Filter, read_filtered, read_page
from keelson.log.tail import LOG_CHANNEL, Tail
from support.database import Database
from support.decisions import PROJECT, an_app, an_event, decide, made_id
from support.log import (
    PATIENCE_S,
    append,
    append_group,
    appending,
    assert_sound,
    begin_epoch,
    connected,
    plant,
    read_epoch,
    running,
    waits_for_lock,
)
from support.waiting import eventually

Check = Callable[[Database], Awaitable[None]]

LOCK = "SELECT * INTO STRICT h FROM log.head FOR UPDATE;"
# Gives other writers and readers time to come in between; under the lock it must not matter.
PAUSE = " PERFORM pg_sleep(random() * 0.01);"
READS = """WHERE r.decision <> ALL (settled) AND r.seq <> coalesce((
            SELECT e.seq FROM log.events AS e WHERE e.aggregate_id = r.aggregate_id ORDER BY e.seq DESC LIMIT 1
        ), 0)"""


async def _no_reader_is_overtaken(database: Database) -> None:
    """Let writers of several processes append while a reader goes from page to page; it sees every event, in order."""
    appenders = [Appender(database.command_dsn) for _ in range(3)]
    seen: list[int] = []
    async with running(*appenders), connected(database.command_dsn) as reader:
        epoch = await read_epoch(reader)

        async def write(appender: Appender) -> None:
            for _ in range(25):
                decision = decide(epoch, an_app(), an_app())
                assert isinstance(await appender.append(decision, PATIENCE_S), Done)

        writing = asyncio.gather(*(write(appender) for appender in appenders))
        finished = False
        while not finished:
            finished = writing.done()
            page = await read_page(reader, Position(seen[-1] if seen else 0), 3)
            assert not page.envelopes or page.envelopes[-1].command_end
            seen.extend(each.position for each in page.envelopes)
            finished = finished and seen[-1] >= page.head
            await asyncio.sleep(0)
        await writing
        assert seen == list(range(1, 152)), "a reader was overtaken"
        await assert_sound(reader)


async def test_f1_no_reader_is_ever_overtaken_by_a_commit(database: Database) -> None:
    await _no_reader_is_overtaken(database)


async def test_f1_nor_if_the_append_takes_its_time(database: Database) -> None:
    await plant(database.admin_dsn, "append_v2", (LOCK, LOCK + PAUSE))
    await _no_reader_is_overtaken(database)


async def test_planted_f1_positions_from_a_sequence_instead_of_the_lock(database: Database) -> None:
    async with connected(database.owner_dsn) as owner:
        await owner.execute("CREATE SEQUENCE log.planted INCREMENT 2 START 1")
    await plant(
        database.admin_dsn,
        "append_v2",
        (LOCK, LOCK.replace(" FOR UPDATE", "") + " h.position := nextval('log.planted');" + PAUSE),
        ("SET position = h.position + appended", "SET position = greatest(position, h.position + appended)"),
    )
    with pytest.raises(AssertionError, match="overtaken"):
        await _no_reader_is_overtaken(database)


async def _what_moves_while_waiting_for_the_lock_is_seen(database: Database) -> None:
    """Check a decision that waits for the head's lock against what was committed meanwhile."""
    async with (
        connected(database.command_dsn) as first,
        connected(database.command_dsn, "second") as second,
        connected(database.admin_dsn) as admin,
    ):
        epoch = await read_epoch(first)
        app = made_id("app")
        await append_group(second, decide(epoch, an_app()))
        transaction = first.transaction()
        await transaction.start()
        await append_group(first, decide(epoch, an_app(app_id=app)))
        waiting = asyncio.create_task(append_group(second, decide(epoch, an_app(), reads={app: 0})))
        await eventually(lambda: waits_for_lock(admin, "second"))
        await transaction.commit()
        assert await waiting == [Moved()]


async def test_f12_what_moves_while_waiting_for_the_lock_is_seen(database: Database) -> None:
    await _what_moves_while_waiting_for_the_lock_is_seen(database)


async def test_planted_f12_checks_in_one_statement_with_the_lock(database: Database) -> None:
    early = READS.replace("r.decision <> ALL (settled) AND ", "")
    await plant(
        database.admin_dsn,
        "append_v2",
        ("freed_amount bigint[];", "freed_amount bigint[]; early integer[];"),
        (
            LOCK,
            f"""SELECT epoch, position, recorded_at, ARRAY(
                SELECT r.decision FROM unnest(r_decision, r_aggregate_id, r_seq) AS r (decision, aggregate_id, seq)
                {early}
            ) INTO STRICT h.epoch, h.position, h.recorded_at, early FROM log.head FOR UPDATE;""",  # noqa: S608 - a bug to plant
        ),
        (READS, "WHERE r.decision = ANY (early)"),
    )
    with pytest.raises(AssertionError):
        await _what_moves_while_waiting_for_the_lock_is_seen(database)


async def _of_one_group_exactly_one_wins(database: Database) -> None:
    """Let two decisions of one process, queued at once, want one name, and a quota's last place."""
    async with appending(database.command_dsn) as (appender, epoch):
        pass
    limit = Limit("quota", 1, None)
    names = [decide(epoch, an_app("name")) for _ in range(2)]
    places = [
        decide(epoch, taken=[TakenKey("quota", str(number), made_id("app"), 1)], limits=[limit]) for number in range(2)
    ]
    outcomes = asyncio.gather(*(appender.append(each, PATIENCE_S) for each in [*names, *places]))
    async with running(appender):
        assert [type(outcome) for outcome in await outcomes] == [Done, KeyTaken, Done, OverLimit]


async def test_f12_of_one_group_exactly_one_wins(database: Database) -> None:
    await _of_one_group_exactly_one_wins(database)


@pytest.mark.parametrize("asserted", [False, True])
async def test_planted_f12_dependent_decisions_in_one_group_unchecked(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, asserted: bool
) -> None:
    """Nobody checks: both get the last place. Only the function does: it says so, and the group goes one by one."""
    monkeypatch.setattr(Group, "_depends", lambda *_: False)
    if asserted:
        with capture_logs() as logged:
            await _of_one_group_exactly_one_wins(database)
        assert [(each["event"], each["sqlstate"]) for each in logged] == [("group_refused", "KE002")]
        return
    await plant(database.admin_dsn, "append_v2", ("PERFORM log.assert_independent_v1(", "PERFORM jsonb_build_array("))
    with pytest.raises(AssertionError):
        await _of_one_group_exactly_one_wins(database)


async def _claims_are_what_the_log_says(database: Database) -> None:
    """Free the old name by a new one, for the append and for whoever derives the claims again."""
    async with appending(database.command_dsn) as (appender, epoch), connected(database.owner_dsn) as owner:
        app = made_id("app")
        await append(appender, decide(epoch, an_app("old", app_id=app)))
        await append(appender, decide(epoch, an_event(app, 2, AppRenamed(name="new"), project_id=PROJECT)))
        assert await verify_claims(owner) == []
        assert isinstance((await append(appender, decide(epoch, an_app("old"))))[0], Done)
        assert await verify_claims(owner) == []
        assert await rebuild_claims(owner) == []


async def test_claims_are_what_the_log_says(database: Database) -> None:
    await _claims_are_what_the_log_says(database)


async def test_planted_claims_derived_otherwise_in_append_and_rebuild(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = count(1)

    def forgets_every_second_time(self: Event, ids: Ids) -> tuple[ClaimChange, ...]:
        assert isinstance(self, AppRenamed)
        take = Take(f"app.name:{ids.project_id}", self.name)
        return (Release(take.scope), take) if next(turns) % 2 else (take,)

    monkeypatch.setattr(AppRenamed, "claims_of", forgets_every_second_time)
    with pytest.raises(AssertionError):
        await _claims_are_what_the_log_says(database)


async def _what_was_answered_is_answered_again(database: Database) -> None:
    """Submit the same decision twice under its key: it is one."""
    async with appending(database.command_dsn) as (appender, epoch), connected(database.command_dsn) as connection:
        decision = decide(epoch, an_app())
        (first,) = await append(appender, decision)
        (again,) = await append(appender, decision)
        assert again == Replayed(decision.command_id, Position(2), Position(2), "{}")
        assert isinstance(first, Done)
        assert len(await assert_sound(connection)) == 2


async def test_f14_what_was_answered_is_answered_again(database: Database) -> None:
    await _what_was_answered_is_answered_again(database)


async def test_planted_f14_the_key_is_not_looked_up_in_the_append(database: Database) -> None:
    lookup = "AND i.name = d.name AND i.key = d.key\n        )\n"
    await plant(database.admin_dsn, "append_v2", (lookup, lookup.replace("i.key = d.key", "false")))
    with pytest.raises(AssertionError):
        await _what_was_answered_is_answered_again(database)


async def _the_tail_wakes(database: Database, *, poll_interval_s: float, within_s: float) -> None:
    """Wait for the tail until it tells of an append."""
    listener = Listener(database.projector_dsn, LOG_CHANNEL)
    tail = Tail(listener, poll_interval_s=poll_interval_s)
    async with asyncio.TaskGroup() as tasks, appending(database.command_dsn) as (appender, epoch):
        listening = tasks.create_task(listener.run())
        try:
            await tail.wait_beyond(1)  # the first connection says: look
            await append(appender, decide(epoch, an_app()))
            async with asyncio.timeout(within_s):
                await tail.wait_beyond(1)
        finally:
            listening.cancel()


async def test_f19_the_tail_wakes_by_notification(database: Database) -> None:
    await _the_tail_wakes(database, poll_interval_s=PATIENCE_S, within_s=PATIENCE_S / 2)


NOTIFY = "PERFORM pg_notify('keelson_log', (h.position + appended)::text);"


async def test_f19_without_any_notification_the_tail_wakes_within_a_poll(database: Database) -> None:
    await plant(database.admin_dsn, "append_v2", (NOTIFY, ""))
    await _the_tail_wakes(database, poll_interval_s=0.3, within_s=PATIENCE_S / 2)


async def test_planted_f19_a_notification_lost_without_a_poll(database: Database) -> None:
    await plant(database.admin_dsn, "append_v2", (NOTIFY, ""))
    with pytest.raises(ExceptionGroup) as raised:
        await _the_tail_wakes(database, poll_interval_s=PATIENCE_S, within_s=0.5)
    assert raised.group_contains(TimeoutError)


async def test_f3_head_and_page_are_of_one_snapshot(database: Database) -> None:
    """Whatever is committed meanwhile, a page reaches the head that came with it."""
    async with appending(database.command_dsn) as (appender, epoch), connected(database.projector_dsn) as reader:
        writing = asyncio.gather(append(appender, *(decide(epoch, an_app()) for _ in range(300))))
        pages = 0
        while not writing.done():
            page = await read_page(reader, Position(0), 1000)
            assert page.envelopes[-1].position == page.head == len(page.envelopes)
            pages += 1
        assert pages > 1
        await writing


class BusyLog:
    """Reads a log that grows after each statement, before the reader can make another."""

    def __init__(self, connection: Connection, appender: Appender, epoch: str) -> None:
        self._connection = connection
        self._appender = appender
        self._epoch = epoch

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        """Run one statement."""
        rows = await self._connection.fetch(query, *arguments)
        await append(self._appender, decide(self._epoch, an_app()))
        return rows

    async def fetchrow(self, query: str, *arguments: Any) -> Any:
        """Give the first row, which there always is."""
        return (await self.fetch(query, *arguments))[0]

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        """Give the first column of it."""
        return (await self.fetchrow(query, *arguments))[0]


async def test_f3_a_page_is_one_statement_with_its_head(database: Database) -> None:
    async with appending(database.command_dsn) as (appender, epoch), connected(database.query_dsn) as connection:
        log = BusyLog(connection, appender, epoch)
        for _ in range(3):
            page = await read_page(log, Position(0), 1000)
            assert page.envelopes[-1].position == page.head
            filtered = await read_filtered(log, Position(0), 1000, Filter())
            assert filtered.envelopes[-1].position == filtered.head == page.head + 1


async def test_a_page_says_the_epoch_of_its_head(database: Database) -> None:
    async with connected(database.owner_dsn) as owner:
        first = await read_epoch(owner)
        await begin_epoch(owner, "later")
        page = await read_page(owner, Position(1), 10)
        assert (first == "later", page.epoch, page.head) == (False, "later", 2)
        assert page.envelopes[0].payload == (
            f'{{"epoch" : "later", "previous" : "{first}", "forked_at" : 1, "cause" : "operator"}}'
        )


async def test_an_appender_that_does_not_run_promises_nothing(database: Database) -> None:
    appender = Appender(database.command_dsn)
    with pytest.raises(AppendUnavailableError):
        await appender.append(decide("epoch", an_event(made_id("app"), 1, AppCreated(name="a"))), 0.01)
