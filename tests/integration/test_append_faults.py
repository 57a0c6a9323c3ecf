"""The writer among faults: replies lost in each phase, the database away, writers killed, epochs that end meanwhile."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from keelson.log.append import Appender, AppendUnavailableError
from keelson.log.database import Connection
from keelson.log.decision import Done, Moved, Replayed
from support.database import Cluster, Database, running_cluster
from support.decisions import an_app, decide
from support.log import PATIENCE_S, append, appending, assert_sound, begin_epoch, connected, is_own, read_all, running
from support.proxy import Proxy, proxied
from support.waiting import eventually

Fault = Callable[[Proxy], None]


def _hold_statements(proxy: Proxy) -> None:
    proxy.to_server.hold()


def _hold_replies(proxy: Proxy) -> None:
    proxy.to_client.hold()


async def _append_through_cut(database: Database, hold: Fault) -> tuple[bool, int]:
    """Append one decision whose connection is cut while a direction is held; tell whether it was there by then."""
    async with (
        proxied(database.command_dsn) as proxy,
        appending(proxy.url(database.command_dsn), call_timeout_s=30) as (appender, epoch),
        connected(database.command_dsn) as connection,
    ):
        await append(appender, decide(epoch, an_app()))  # its plans are made: a call is one exchange from here on
        hold(proxy)
        decision = decide(epoch, an_app())
        outcome = asyncio.create_task(appender.append(decision, PATIENCE_S))

        async def is_decided() -> bool:
            return len(await read_all(connection)) == 3 or proxy.to_server.held_bytes > 0

        await eventually(is_decided)
        committed = len(await read_all(connection)) == 3
        proxy.cut()
        proxy.to_server.release()
        proxy.to_client.release()
        assert is_own(decision, await outcome)
        if committed:
            assert isinstance(outcome.result(), Replayed)
        return committed, len(await assert_sound(connection))


async def test_f6_a_call_that_never_arrives_is_submitted_again(database: Database) -> None:
    assert await _append_through_cut(database, _hold_statements) == (False, 3)


async def test_f6_a_reply_to_commit_that_is_lost_is_asked_for_again_and_nothing_doubled(database: Database) -> None:
    assert await _append_through_cut(database, _hold_replies) == (True, 3)


async def test_f6_a_call_that_arrives_after_it_was_submitted_again_appends_nothing(database: Database) -> None:
    async with (
        proxied(database.command_dsn) as proxy,
        appending(proxy.url(database.command_dsn), call_timeout_s=0.5) as (appender, epoch),
        connected(database.command_dsn) as connection,
    ):
        await append(appender, decide(epoch, an_app()))
        proxy.to_server.hold()
        decision = decide(epoch, an_app())
        outcome = asyncio.create_task(appender.append(decision, PATIENCE_S))
        await eventually(lambda: proxy.to_server.held_bytes > 0)
        proxy.cut_clients()
        accepted = proxy.accepted
        await eventually(lambda: proxy.accepted > accepted)
        proxy.to_server.release()
        assert is_own(decision, await outcome)
        await append(appender, decide(epoch, an_app()))
        assert len(await assert_sound(connection)) == 4


async def test_f6_an_answer_that_never_comes_is_unknown_after_a_bound(database: Database) -> None:
    async with (
        proxied(database.command_dsn) as proxy,
        appending(proxy.url(database.command_dsn)) as (appender, epoch),
        connected(database.command_dsn) as connection,
    ):
        await append(appender, decide(epoch, an_app()))
        proxy.to_client.swallow()
        decision = decide(epoch, an_app(), key="key")
        with pytest.raises(AppendUnavailableError):
            await appender.append(decision, 0.5)
        await eventually(lambda: _has_events(connection, 3))
        proxy.cut()
        proxy.to_client.release()
        (again,) = await append(appender, decide(epoch, an_app(), key="key"))
        assert isinstance(again, Replayed)
        assert again.command_id == decision.command_id
        assert len(await assert_sound(connection)) == 3


async def _has_events(connection: Connection, number: int) -> bool:
    return len(await read_all(connection)) == number


async def test_f6_what_is_in_doubt_when_its_epoch_ends_stays_in_doubt(database: Database) -> None:
    """To decide it again might do twice what was committed before the new epoch began."""
    async with (
        proxied(database.command_dsn) as proxy,
        appending(proxy.url(database.command_dsn), call_timeout_s=30) as (appender, epoch),
        connected(database.owner_dsn) as owner,
    ):
        await append(appender, decide(epoch, an_app()))
        proxy.to_client.hold()
        outcome = asyncio.create_task(appender.append(decide(epoch, an_app()), PATIENCE_S))
        await eventually(lambda: _has_events(owner, 3))
        await begin_epoch(owner, "later")
        proxy.cut()
        proxy.to_client.release()
        with pytest.raises(AppendUnavailableError):
            await outcome
        assert isinstance((await append(appender, decide("later", an_app())))[0], Done)
        assert len(await assert_sound(owner)) == 5


async def test_an_epoch_that_ended_is_refused_told_of_and_the_next_one_worked_in(database: Database) -> None:
    async with appending(database.command_dsn) as (appender, epoch), connected(database.owner_dsn) as owner:
        heard: list[str] = []
        appender.on_epoch(heard.append)
        await begin_epoch(owner, "later")
        assert await append(appender, decide(epoch, an_app()), decide(epoch, an_app())) == [Moved(), Moved()]
        assert heard == ["later"]
        assert appender.epoch == "later"
        assert isinstance((await append(appender, decide("later", an_app())))[0], Done)
        assert await append(appender, decide(epoch, an_app())) == [Moved()]
        assert len(await assert_sound(owner)) == 3


async def test_an_epoch_learnt_elsewhere_takes_nothing_from_what_is_in_flight(database: Database) -> None:
    """A group that was sent in the old epoch and committed there is done, whatever this process learns meanwhile."""
    async with (
        proxied(database.command_dsn) as proxy,
        appending(proxy.url(database.command_dsn), call_timeout_s=30) as (appender, epoch),
        connected(database.owner_dsn) as owner,
    ):
        await append(appender, decide(epoch, an_app()))
        proxy.to_client.hold()
        outcome = asyncio.create_task(appender.append(decide(epoch, an_app()), PATIENCE_S))
        await eventually(lambda: _has_events(owner, 3))
        await begin_epoch(owner, "later")
        appender.enter_epoch("later")
        proxy.to_client.release()
        assert isinstance(await outcome, Done)


async def test_f8_decisions_wait_for_a_database_that_is_away_and_are_then_appended(database: Database) -> None:
    async with proxied(database.command_dsn) as proxy, connected(database.command_dsn) as connection:
        proxy.refuses = True
        appender = Appender(proxy.url(database.command_dsn))
        async with running(appender, ready=False):
            await eventually(lambda: proxy.accepted >= 2)
            proxy.refuses = False
            epoch = await eventually(lambda: appender.epoch or "")
            proxy.refuses = True
            proxy.cut()
            decisions = [decide(epoch, an_app()) for _ in range(3)]
            outcomes = asyncio.create_task(append(appender, *decisions))
            refused = proxy.accepted + 2
            await eventually(lambda: proxy.accepted >= refused)
            proxy.refuses = False
            assert all(map(is_own, decisions, await outcomes))
        assert len(await assert_sound(connection)) == 4


async def test_f8_the_writer_backs_off_while_the_database_is_away(database: Database) -> None:
    """Seven tries take 0.05 + 0.1 + 0.2 + 0.4 + 0.8 + 1 s; how much longer is the machine's."""
    async with proxied(database.command_dsn) as proxy:
        proxy.refuses = True
        began = time.monotonic()
        async with running(Appender(proxy.url(database.command_dsn)), ready=False):
            await eventually(lambda: proxy.accepted >= 7)
        assert time.monotonic() - began > 2.5


async def test_f8_a_server_that_has_no_such_schema_yet_is_asked_again(cluster: Cluster) -> None:
    async with cluster.fresh_database(migrated=False) as database:
        appender = Appender(database.command_dsn)
        async with running(appender, ready=False):
            with pytest.raises(AppendUnavailableError):
                await appender.append(decide("epoch", an_app()), 0.5)


async def test_f39_whoever_gives_up_while_the_database_is_away_leaves_nothing_behind(database: Database) -> None:
    async with appending(database.command_dsn) as (appender, epoch):
        pass
    for _ in range(3):
        with pytest.raises(AppendUnavailableError):
            await appender.append(decide(epoch, an_app()), 0.01)
    assert not appender._queue


async def test_an_abandoned_decision_is_not_submitted(database: Database) -> None:
    async with connected(database.command_dsn) as connection:
        async with appending(database.command_dsn) as (appender, epoch):
            pass
        with pytest.raises(AppendUnavailableError):
            await appender.append(decide(epoch, an_app()), 0.01)
        kept = decide(epoch, an_app())
        waiting = asyncio.create_task(appender.append(kept, PATIENCE_S))
        async with running(appender):
            assert isinstance(await waiting, Done)
        assert [each.command_id for each in (await read_all(connection))[1:]] == [kept.command_id]


async def test_f5_a_head_that_somebody_holds_is_waited_for_within_a_bound(database: Database) -> None:
    async with (
        appending(database.command_dsn, call_timeout_s=0.5) as (appender, epoch),
        connected(database.owner_dsn) as holder,
    ):
        decision = decide(epoch, an_app())
        async with holder.transaction():
            await holder.execute("SELECT FROM log.head FOR UPDATE")
            async with asyncio.timeout(8):
                with pytest.raises(AppendUnavailableError):
                    await appender.append(decision, 1.5)
            waiting = asyncio.create_task(appender.append(decision, PATIENCE_S))
            await asyncio.wait([waiting], timeout=0.1)
        assert is_own(decision, await waiting)
        assert len(await assert_sound(holder)) == 2


async def test_f13_a_backend_that_is_terminated_costs_no_decision(database: Database) -> None:
    async with (
        appending(database.command_dsn, application_name="victim") as (appender, epoch),
        connected(database.admin_dsn) as admin,
    ):
        decisions = [decide(epoch, an_app()) for _ in range(200)]
        outcomes = asyncio.create_task(append(appender, *decisions))
        pause_s = 0.05
        while not outcomes.done():
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'"
            )
            await asyncio.wait([outcomes], timeout=pause_s)
            pause_s *= 1.1  # in the end there is time for a whole group, however slow the machine
        assert all(map(is_own, decisions, outcomes.result()))
        assert len(await assert_sound(admin)) == 201


@pytest.fixture(scope="module")
def standby_cluster() -> Iterator[Cluster]:
    """Start a server of our own: all commits of a server wait when its standbys are away."""
    with running_cluster() as cluster:
        yield cluster


@asynccontextmanager
async def _standby_away(admin: Connection) -> AsyncIterator[None]:
    """Have every commit wait for a standby that does not exist; the body may end that itself."""
    await admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    await admin.fetchval("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        await _give_standby_up(admin)


async def _give_standby_up(admin: Connection) -> None:
    await admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
    await admin.fetchval("SELECT pg_reload_conf()")


async def _waiting_for_standby(admin: Connection) -> int:
    """Give the process of the append that waits for the standby; 0 if there is none."""
    sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'unreplicated' AND wait_event = 'SyncRep'"
    return int(await admin.fetchval(sql) or 0)


async def test_f9_a_cancelled_wait_for_the_standby_is_no_success(standby_cluster: Cluster) -> None:
    async with (
        standby_cluster.fresh_database() as database,
        connected(database.admin_dsn, synchronous_commit="local") as admin,
        appending(database.command_dsn, application_name="unreplicated", call_timeout_s=30) as (appender, epoch),
    ):
        decision = decide(epoch, an_app())
        async with _standby_away(admin):
            outcome = asyncio.create_task(appender.append(decision, 2 * PATIENCE_S))
            first = await eventually(lambda: _waiting_for_standby(admin))
            assert await admin.fetchval("SELECT pg_cancel_backend($1)", first)

            async def again() -> bool:
                return await _waiting_for_standby(admin) not in (0, first)

            await eventually(again)
            assert not outcome.done()
            await _give_standby_up(admin)
            assert isinstance(await outcome, Replayed)
        assert is_own(decision, outcome.result())
        assert len(await assert_sound(admin)) == 2
        assert isinstance((await append(appender, decide(epoch, an_app())))[0], Done)


async def test_f9_without_the_guard_it_would_be_reported_as_done(
    standby_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Appender, "_hear", lambda *_: None)
    async with (
        standby_cluster.fresh_database() as database,
        connected(database.admin_dsn, synchronous_commit="local") as admin,
        appending(database.command_dsn, application_name="unreplicated", call_timeout_s=30) as (appender, epoch),
        _standby_away(admin),
    ):
        outcome = asyncio.create_task(appender.append(decide(epoch, an_app()), PATIENCE_S))
        first = await eventually(lambda: _waiting_for_standby(admin))
        await admin.fetchval("SELECT pg_cancel_backend($1)", first)
        assert isinstance(await outcome, Done)


WRITER = Path(__file__).parents[1] / "support" / "writing.py"


async def test_f7_a_writer_killed_at_any_instruction_leaves_all_of_a_command_or_nothing(database: Database) -> None:
    acknowledged: set[str] = set()
    async with connected(database.command_dsn) as connection:
        for run in range(6):
            writer = await asyncio.create_subprocess_exec(
                sys.executable, str(WRITER), database.command_dsn, str(run), stdout=asyncio.subprocess.PIPE
            )
            assert writer.stdout is not None
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(1 + 7 * run):
                    acknowledged.add((await writer.stdout.readline()).decode().strip())
            writer.kill()
            rest = await writer.stdout.read()
            acknowledged.update(rest.decode().split("\n")[:-1])
            await writer.wait()
        await eventually(lambda: _is_quiet(connection))
        envelopes = await assert_sound(connection)
    committed = [each.command_id for each in envelopes if each.command_end]
    assert len(committed) == len(set(committed))
    assert acknowledged <= set(committed)
    assert len(acknowledged) > 20
    assert sum(not each.command_end for each in envelopes) == 2 * (len(committed) - 1)


async def _is_quiet(connection: Connection) -> bool:
    writers = await connection.fetch(
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'writing'"
    )
    return not writers


async def test_f13_what_lost_a_race_is_decided_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another order of events can only show as a unique violation if the checks fail; it is then no defect's 500."""
    async with appending(database.command_dsn) as (appender, epoch):
        for error in (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.UniqueViolationError):

            async def lose(*_: object, error: type[Exception] = error) -> None:
                raise error("lost")

            with monkeypatch.context() as patch:
                patch.setattr(asyncpg.Connection, "fetch", lose)
                assert await append(appender, decide(epoch, an_app())) == [Moved()]
        assert isinstance((await append(appender, decide(epoch, an_app())))[0], Done)
