"""Claims against the log: what drifts is named, mended, and nothing decided on it is appended."""

import asyncio

import asyncpg
import pytest

from keelson.events.ids import Position
from keelson.events.project import ProjectCreated
from keelson.log import claims as module
from keelson.log.claims import Claim, Difference, ScopeSum, rebuild_claims, verify_claims
from keelson.log.confirm import read_scope
from keelson.log.database import Connection
from keelson.log.decision import Done, KeyTaken, Moved
from support.database import Database
from support.decisions import PROJECT, an_app, an_event, decide, made_id
from support.log import append, append_group, appending, assert_sound, connected, read_epoch, waits_for_lock
from support.story import Story, insert
from support.waiting import eventually

NAMES = f"app.name:{PROJECT}"
MINE, THINE = made_id("app"), made_id("app")

# What a superuser does to the claims of two apps, `mine` and `thine`, and the places that must then be named.
DRIFTS = {
    "UPDATE log.claims SET aggregate_id = 'app_other' WHERE key = 'mine'": [
        Difference(NAMES, "mine", Claim(MINE, 0), Claim("app_other", 0))
    ],
    "UPDATE log.claims SET amount = 3 WHERE key = 'mine'": [Difference(NAMES, "mine", Claim(MINE, 0), Claim(MINE, 3))],
    "DELETE FROM log.claims WHERE key = 'mine'": [Difference(NAMES, "mine", Claim(MINE, 0), None)],
    "INSERT INTO log.claims VALUES ('other', 'key', 'app_other', 2)": [
        Difference("other", "key", None, Claim("app_other", 2))
    ],
    f"UPDATE log.claim_scopes SET held = 5, amount = 7 WHERE scope = '{NAMES}'": [  # noqa: S608 - a test's own text
        Difference(NAMES, None, ScopeSum(2, 0), ScopeSum(5, 7))
    ],
    f"DELETE FROM log.claim_scopes WHERE scope = '{NAMES}'": [  # noqa: S608 - likewise
        Difference(NAMES, None, ScopeSum(2, 0), None)
    ],
    "INSERT INTO log.claim_scopes VALUES ('other', 1, 0, 1)": [Difference("other", None, None, ScopeSum(1, 0))],
    "INSERT INTO log.claim_scopes VALUES ('other', 0, 0, 1)": [],
}


async def _two_apps(database: Database) -> str:
    async with connected(database.command_dsn) as connection:
        epoch = await read_epoch(connection)
        apps = [decide(epoch, an_app("mine", app_id=MINE)), decide(epoch, an_app("thine", app_id=THINE))]
        assert all(isinstance(each, Done) for each in await append_group(connection, *apps))
    return epoch


@pytest.mark.parametrize("drift", DRIFTS)
async def test_what_drifted_is_named_place_by_place_and_mended(database: Database, drift: str) -> None:
    epoch = await _two_apps(database)
    async with (
        connected(database.command_dsn) as command,
        connected(database.owner_dsn) as owner,
        connected(database.admin_dsn) as admin,
    ):
        await admin.execute(drift)
        before = await read_scope(command, NAMES)
        assert await verify_claims(command) == DRIFTS[drift]
        assert await rebuild_claims(owner) == DRIFTS[drift]
        assert await verify_claims(command) == []
        assert await rebuild_claims(owner) == []
        after = await read_scope(command, NAMES)
        assert (after.held, after.amount) == (2, 0)
        if DRIFTS[drift]:
            assert after.version > before.version
            stale = decide(epoch, an_app(), scopes={NAMES: before.version})
            assert await append_group(command, stale) == [Moved()]
        await assert_sound(command)


async def test_a_long_history_has_the_claims_that_the_append_would_have_made(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The story was never appended by decisions: all its claims are missing, and a rebuild makes them, page by page."""
    monkeypatch.setattr(module, "PAGE", 50)
    async with connected(database.owner_dsn) as owner:
        await insert(owner, Story(seed=5, first=2).tell(200))
        missing = await verify_claims(owner)
        assert len(missing) > 20
        assert all(each.found is None for each in missing)
        assert await rebuild_claims(owner) == missing
        assert await verify_claims(owner) == []


async def test_what_is_appended_while_the_claims_are_rebuilt_is_in_them(database: Database) -> None:
    async with (
        appending(database.command_dsn, application_name="appending") as (appender, epoch),
        connected(database.owner_dsn) as owner,
        connected(database.admin_dsn) as admin,
    ):
        project = made_id("project")
        await append(appender, decide(epoch, an_event(project, 1, ProjectCreated(name="a"), org_id="org_1")))
        for _ in range(5):
            await admin.execute("DELETE FROM log.claims")
            appended = asyncio.gather(*(append(appender, decide(epoch, an_app())) for _ in range(40)))
            await rebuild_claims(owner)
            await appended
            assert await verify_claims(owner) == []


async def test_an_append_waits_for_the_end_of_a_rebuild_only(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And sees what the rebuild made: the name that had drifted away is taken."""
    epoch = await _two_apps(database)
    async with (
        connected(database.command_dsn, "appending") as command,
        connected(database.owner_dsn) as owner,
        connected(database.admin_dsn) as admin,
    ):
        await admin.execute("DELETE FROM log.claims")
        appended: list[asyncio.Task[object]] = []
        compare = module._compare

        async def compare_slowly(connection: Connection, fold: module.ClaimsFold) -> list[Difference]:
            appended.append(asyncio.create_task(append_group(command, decide(epoch, an_app("mine")))))
            await eventually(lambda: waits_for_lock(admin, "appending"))
            return await compare(connection, fold)

        monkeypatch.setattr(module, "_compare", compare_slowly)
        await rebuild_claims(owner)
        (outcomes,) = await asyncio.gather(*appended)
        monkeypatch.undo()
        assert outcomes == [KeyTaken(NAMES, "mine", MINE)]
        assert await verify_claims(owner) == []


async def test_only_the_owner_rebuilds(database: Database) -> None:
    async with connected(database.command_dsn) as command:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await rebuild_claims(command)


async def test_the_fold_stands_where_the_log_does(database: Database) -> None:
    await _two_apps(database)
    async with connected(database.command_dsn) as command:
        fold = await module._fold(command, module.ClaimsFold())
    assert fold.position == Position(3)
    assert fold.scopes == {NAMES: ScopeSum(2, 0), "app.of:None": ScopeSum(2, 0)}
