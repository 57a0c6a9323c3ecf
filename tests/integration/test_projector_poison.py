"""F18: what a projection cannot take stops it alone, and says so; going on is an operator's recorded act."""

import msgspec
import pytest

from keelson.events import REGISTRY, Actor, Envelope, Event, Registry
from keelson.events.ids import Position
from keelson.log.database import Connection, Pool
from keelson.projector.leases import Leases
from keelson.projector.rebuild import rebuild
from keelson.projector.skips import NotStoppedError, resume, skip
from keelson.projector.status import complaints
from keelson.projector.verify import verify
from keelson.service.standing import read_standing
from keelson.views import PROJECTIONS, Projection
from keelson.views.changes import Change
from keelson.views.platform import PLATFORM
from keelson.views.tenancy import TENANCY
from support.database import Database
from support.projecting import (
    assert_views_equal_fold,
    caught_up,
    connected,
    fold_log,
    item_of,
    pooled,
    read_rows,
    replica,
    stopped,
)
from support.story import Story, insert, raw_command
from support.waiting import eventually

CANARY = "canary-8f2c"
OPERATOR = Actor("system", "operator")
UNKNOWN_ORG = "org_" + "7" * 26
OTHERS = {name: projection for name, projection in PROJECTIONS.items() if name != "tenancy"}


async def begin(owner: Connection) -> tuple[Story, int]:
    """Insert a story; give it and the position after it."""
    story = Story(seed=11, first=2)
    told = story.tell(30)
    await insert(owner, told)
    return story, told[-1].position + 1


@pytest.mark.parametrize(
    ("event_type", "payload", "message"),
    [
        ("org.renamed", f'{{"name":"{CANARY}"}}', f"orgs has no row {UNKNOWN_ORG}"),
        ("org.created", f'{{"name":["{CANARY}"]}}', "the payload does not decode at $.name"),
        ("org.created", f'{{"nome":"{CANARY}"}}', "the payload does not decode"),
        ("org.created", f'{{"name":"{CANARY}\\u0000"}}', "CharacterNotInRepertoireError in"),
    ],
)
async def test_f18_a_poison_event_stops_its_projection_only(
    database: Database, event_type: str, payload: str, message: str
) -> None:
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool, replica(database):
        _, position = await begin(owner)
        await caught_up(pool)
        good = ("org_" + "6" * 26, "org.created", '{"name":"good"}')
        await insert(owner, raw_command(position, good, (UNKNOWN_ORG, event_type, payload)))

        item = await stopped(pool, "tenancy")
        assert item.error is not None
        assert (item.error.position, item.error.event_type) == (position + 1, event_type)
        assert message in (item.error.message or "")
        assert CANARY not in (item.error.message or "")
        assert item.checkpoint == position - 1, "a command is applied as a whole or not at all"
        assert any("tenancy is stopped at" in each for each in complaints(await read_standing(pool), PROJECTIONS))
        await assert_views_equal_fold(pool, {"tenancy": TENANCY}, until=position - 1)
        if event_type == "org.renamed":
            assert await caught_up(pool, *OTHERS) == position + 1


async def test_f18_a_value_that_no_column_holds_is_found_in_its_page(database: Database) -> None:
    """The database refuses a page; which event it was is found by halving."""
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        story, position = await begin(owner)
        huge = f'{{"release_id":"r","release_number":{10**30},"kind":"deploy"}}'
        await insert(owner, raw_command(position, ("deploy_" + "5" * 26, "deploy.created", huge)))
        await insert(owner, [moved(each, by=1) for each in story.tell(30)])
        async with replica(database):
            item = await stopped(pool, "platform")

            assert item.error is not None
            assert (item.checkpoint, item.error.position) == (position - 1, position)
            assert await caught_up(pool, "tenancy", "activity") > position
            await assert_views_equal_fold(pool, {"platform": PLATFORM}, until=position - 1)


async def test_an_operator_lets_it_skip_and_the_skip_is_honoured_everywhere(database: Database) -> None:
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool, replica(database):
        _, position = await begin(owner)
        await insert(owner, raw_command(position, (UNKNOWN_ORG, "org.renamed", '{"name":"x"}')))
        await stopped(pool, "tenancy")
        await insert(owner, raw_command(position + 1, ("org_" + "5" * 26, "org.created", '{"name":"later"}')))

        with pytest.raises(NotStoppedError):
            await skip(pool, "tenancy", position + 1, OPERATOR, "not that one")
        with pytest.raises(NotStoppedError):
            await skip(pool, "platform", position, OPERATOR, "not stopped at all")
        with pytest.raises(ValueError, match="reason"):
            await skip(pool, "tenancy", position, OPERATOR, " ")
        assert await pool.fetch("SELECT * FROM ops.skips") == []

        await skip(pool, "tenancy", position, OPERATOR, "it renames nothing")
        assert await caught_up(pool) == position + 1

        skips = frozenset({position})
        assert await read_rows(pool, TENANCY) == await fold_log(pool, TENANCY, skips=skips)
        assert (await verify(TENANCY, pool)).is_good
        await rebuild(TENANCY, pool, Leases(pool, "rebuilder"), lambda _: None)
        assert await read_rows(pool, TENANCY) == await fold_log(pool, TENANCY, skips=skips)
        kept = await pool.fetchrow("SELECT projection, position, actor_type, actor_id, reason FROM ops.skips")
        assert tuple(kept) == ("tenancy", position, "system", "operator", "it renames nothing")


async def test_resuming_tries_again_and_stops_again(database: Database) -> None:
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool, replica(database):
        _, position = await begin(owner)
        await insert(owner, raw_command(position, (UNKNOWN_ORG, "org.renamed", '{"name":"x"}')))
        await stopped(pool, "tenancy")

        assert await resume(pool, "tenancy") == position - 1
        assert (await stopped(pool, "tenancy")).checkpoint == position - 1
        with pytest.raises(NotStoppedError):
            await resume(pool, "platform")


async def test_a_stopped_projection_is_tried_once_by_each_new_process(database: Database) -> None:
    """Its code may have been mended meanwhile."""
    tries: list[int] = []
    broken, mended = (Projection("tenancy", version=1, tables=TENANCY.tables) for _ in range(2))

    @broken.on(Event)
    def fail(envelope: Envelope, _event: Event) -> list[Change]:
        tries.append(envelope.position)
        raise ZeroDivisionError(CANARY)

    @mended.on(Event)
    def ignore(_envelope: Envelope, _event: Event) -> list[Change]:
        return []

    async with pooled(database.projector_dsn) as pool:
        async with replica(database, projections={"tenancy": broken}):
            item = await stopped(pool, "tenancy")
            assert item.error is not None
            assert (item.error.message or "").startswith("ZeroDivisionError in fail (test_projector_poison.py:")
            await eventually(lambda: len(tries) == 1)
        async with replica(database, projections={"tenancy": broken}):
            await eventually(lambda: len(tries) == 2)
        async with replica(database, projections={"tenancy": mended}):
            assert await caught_up(pool, "tenancy") == 1
        assert tries == [1, 1]


async def test_an_event_that_the_code_does_not_know_waits_for_newer_code(database: Database) -> None:
    """Neither skipped nor a crash: behind_schema; a newer replica goes on, and the older one after it."""
    older = Registry(cls for key, cls in REGISTRY.classes.items() if key != ("org.renamed", 1))
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        org = "org_" + "5" * 26
        created, renamed, *rest = raw_command(
            2,
            (org, "org.created", '{"name":"a"}'),
            (org, "org.renamed", '{"name":"b"}'),
            (org, "org.renamed", '{"name":"c"}'),
        )
        created = msgspec.structs.replace(created, command_end=True)
        await insert(owner, [created, renamed, *rest])
        async with replica(database, registry=older):
            for name in PROJECTIONS:
                item = await stopped(pool, name, "behind_schema")
                assert item.error is not None
                assert (item.checkpoint, item.error.position, item.error.event_type) == (2, 3, "org.renamed")
                assert item.error.message == "unknown event org.renamed version 1"
            await eventually(lambda: no_holder(pool))
            async with replica(database):
                assert await caught_up(pool) == 4
            await insert(owner, [known_org(5)])
            assert await caught_up(pool) == 5
        await assert_views_equal_fold(pool)


def moved(envelope: Envelope, *, by: int) -> Envelope:
    """Give the envelope that many positions later."""
    return msgspec.structs.replace(envelope, position=Position(envelope.position + by))


async def no_holder(pool: Pool) -> bool:
    return all(item.holder is None for item in (await read_standing(pool)).items)


def known_org(position: int) -> Envelope:
    [envelope] = raw_command(position, ("org_" + "4" * 26, "org.created", '{"name":"d"}'))
    return envelope


async def test_an_unreadable_payload_does_not_stop_who_does_not_listen_to_it(database: Database) -> None:
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool, replica(database):
        _, position = await begin(owner)
        await insert(owner, raw_command(position, (UNKNOWN_ORG, "org.created", '{"name":1}')))

        await stopped(pool, "tenancy")
        await stopped(pool, "activity")
        assert await caught_up(pool, "platform") == position


async def test_a_table_that_is_gone_stops_its_projection_only(database: Database) -> None:
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool, replica(database):
        story, _ = await begin(owner)
        await caught_up(pool)
        await pool.fetch("DROP TABLE views.orgs")
        await insert(owner, story.tell(300))

        item = await stopped(pool, "tenancy")
        assert item.error is not None
        assert (item.error.message or "").startswith("UndefinedTableError in")
        await caught_up(pool, *OTHERS)
        await rebuild(TENANCY, pool, Leases(pool, "rebuilder"), lambda _: None)
        await caught_up(pool)
        await assert_views_equal_fold(pool)
        assert (await item_of(pool, "tenancy")).error is None
