"""`python -m keelson.cli` as a process: what it says, and with which code it ends."""

import asyncio
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import asyncpg
import msgspec
import pytest

from keelson.local.database import with_role
from keelson.log.migrate import MIGRATIONS
from keelson.log.prune import prune_keys
from keelson.log.read import read_head
from keelson.log.roles import SERVICE_ROLES
from support.database import Cluster, Database, running_server
from support.decisions import PROJECT, an_app, decide, made_id
from support.log import append_group, assert_sound, connected, read_all, read_epoch
from support.waiting import free_port

NAMES = sorted(path.stem for path in Path(MIGRATIONS).glob("*.sql"))
UP_TO_DATE = "the schema is up to date"


class Ended(NamedTuple):
    """How it ended, and what it said."""

    code: int
    said: list[str]
    complained: str


async def run_cli(dsn: str | None, *arguments: str, **variables: str | Path) -> Ended:
    """Run a command of the command line, with the environment that it needs beside."""
    environ = {name: value for name, value in os.environ.items() if name != "KEELSON_DATABASE_URL"}
    environ |= {name: str(value) for name, value in variables.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "keelson.cli",
        *arguments,
        env=environ if dsn is None else {**environ, "KEELSON_DATABASE_URL": dsn},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        said, complained = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, said.decode().splitlines(), complained.decode())


def _is_one_clear_line(ended: Ended) -> bool:
    return ended.said == [] and ended.complained.startswith("keelson: ") and ended.complained.count("\n") == 1


async def test_migrate_says_what_it_applied_and_changes_nothing_the_second_time(cluster: Cluster) -> None:
    async with cluster.fresh_database(migrated=False) as database:
        assert await run_cli(database.owner_dsn, "migrate") == (
            0,
            [*(f"applied {name}" for name in NAMES), UP_TO_DATE],
            "",
        )
        async with connected(database.owner_dsn) as owner:
            assert (await read_head(owner)).position == 1
        assert await run_cli(database.owner_dsn, "migrate") == (0, [UP_TO_DATE], "")


async def test_the_password_may_come_from_a_file_of_its_own(database: Database, tmp_path: Path) -> None:
    role, _, rest = database.owner_dsn.partition("@")
    role, _, password = role.rpartition(":")
    (tmp_path / "password").write_text(f"{password}\n")
    (tmp_path / "url").write_text(f"{role}@{rest}\n")
    files = {"KEELSON_DATABASE_URL_FILE": tmp_path / "url", "KEELSON_DATABASE_PASSWORD_FILE": tmp_path / "password"}
    assert await run_cli(None, "migrate", **files) == (0, [UP_TO_DATE], "")
    (tmp_path / "password").write_text("other")
    ended = await run_cli(None, "migrate", **files)
    assert (ended.code, _is_one_clear_line(ended)) == (2, True)
    assert "password authentication failed" in ended.complained


async def test_migrate_sets_the_passwords_of_the_services_roles_from_files(tmp_path: Path) -> None:
    """On a server of its own, as an owner who may create roles and is no superuser; a second time with others."""
    with running_server() as server:
        async with connected(server.url()) as admin:
            await admin.execute("CREATE ROLE keelson LOGIN CREATEROLE PASSWORD 'owner'")
            await admin.execute("CREATE DATABASE keelson OWNER keelson")
        owner = with_role(server.url("keelson"), "keelson", "owner")
        for attempt in ("first", "second"):
            for role in SERVICE_ROLES:
                (tmp_path / role).write_text(f"{attempt}/of {role}'s\n")
            ended = await run_cli(owner, "migrate", "--passwords", str(tmp_path))
            assert (ended.code, ended.said[0]) == (0, "the services' roles have their passwords"), ended
            for role in SERVICE_ROLES:
                async with connected(with_role(owner, role, f"{attempt}/of {role}'s")) as connection:
                    assert await connection.fetchval("SELECT current_user") == role


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read (No such"), (b"", "empty"), (b"\xff", "UTF-8")])
async def test_a_password_that_cannot_be_read_is_told_by_its_file(
    database: Database, tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "keelson_command").write_bytes(content)
    ended = await run_cli(database.owner_dsn, "migrate", "--passwords", str(tmp_path))
    assert ended.code == 2
    assert _is_one_clear_line(ended)
    assert f"{tmp_path}/keelson_command" in ended.complained
    assert said in ended.complained


async def test_claims_are_verified_and_rebuilt(database: Database) -> None:
    right = "the claims are what the log says"
    assert await run_cli(database.command_dsn, "claims", "verify") == (0, [right], "")
    app = made_id("app")
    async with connected(database.command_dsn) as command, connected(database.admin_dsn) as admin:
        await append_group(command, decide(await read_epoch(command), an_app("mine", app_id=app)))
        await admin.execute("UPDATE log.claims SET amount = 5 WHERE key = 'mine'")
        await admin.execute("UPDATE log.claim_scopes SET held = 2 WHERE scope LIKE 'app.name:%'")
    scope = f"app.name:{PROJECT}"
    named = [
        f"{scope} mine: held by {app} for 0 by the log, held by {app} for 5 by the table",
        f"{scope}: 1 keys for 0 by the log, 2 keys for 0 by the table",
    ]
    assert await run_cli(database.command_dsn, "claims", "verify") == (1, [*named, "differences: 2"], "")
    assert await run_cli(database.owner_dsn, "claims", "rebuild") == (0, [*named, "differences mended: 2"], "")
    assert await run_cli(database.owner_dsn, "claims", "verify") == (0, [right], "")
    assert await run_cli(database.owner_dsn, "claims", "rebuild") == (0, ["the claims were what the log says"], "")


async def test_what_the_log_says_and_the_code_does_not_know_is_named(database: Database) -> None:
    async with connected(database.owner_dsn) as owner:
        await owner.execute(
            "INSERT INTO log.events (position, aggregate_id, seq, type, version, actor_type, actor_id, request_id,"
            " command_id, command_end, recorded_at, payload) VALUES (2, 'x_1', 1, 'x.made', 1, 'system', 'a', 'r', 'c',"
            " true, clock_timestamp(), '{}')"
        )
        await owner.execute("UPDATE log.head SET position = 2")
    ended = await run_cli(database.command_dsn, "claims", "verify")
    assert ended.code == 2
    assert _is_one_clear_line(ended)
    assert "x.made" in ended.complained


@pytest.mark.parametrize("arguments", [["migrate"], ["claims", "rebuild"]])
async def test_a_role_without_the_right_is_told_so(cluster: Cluster, database: Database, arguments: list[str]) -> None:
    async with connected(database.admin_dsn) as admin:
        await admin.execute("DELETE FROM log.claim_scopes; INSERT INTO log.claim_scopes VALUES ('other', 1, 0, 1)")
    if arguments == ["migrate"]:
        async with cluster.fresh_database(migrated=False) as empty:
            ended = await run_cli(empty.command_dsn, *arguments)
    else:
        ended = await run_cli(database.command_dsn, *arguments)
    assert ended.code == 2
    assert _is_one_clear_line(ended), ended
    assert "may not do this" in ended.complained


async def test_a_database_that_is_no_log_is_told_of(cluster: Cluster) -> None:
    async with cluster.fresh_database(migrated=False) as database:
        ended = await run_cli(database.owner_dsn, "claims", "verify")
    assert ended.code == 2
    assert _is_one_clear_line(ended), ended


async def test_a_database_that_cannot_be_used_is_told_of_and_no_password_shown(database: Database) -> None:
    head, _, tail = database.owner_dsn.partition("@")
    password = head.rpartition(":")[2]
    host, _, name = tail.partition("/")
    for dsn in (
        f"{head}@127.0.0.1:{free_port()}/{name}",
        f"{head}@{host}/nowhere",
        f"{head}x@{host}/{name}",
        f"{head}@127.0.0.1:port/{name}",
        f"{head}/@127.0.0.1/{name}",
        f"{head}@127.0.0.1/{name}?sslmode={password}",
        f"{password}://{name}",
    ):
        ended = await run_cli(dsn, "migrate")
        assert ended.code == 2
        assert _is_one_clear_line(ended), (dsn, ended)
        assert password not in ended.complained


async def test_no_database_no_command_and_help() -> None:
    ended = await run_cli(None, "migrate")
    assert (ended.code, _is_one_clear_line(ended)) == (2, True)
    assert "KEELSON_DATABASE_URL: is not set" in ended.complained
    for wrong in ([], ["claims"], ["unknown"]):
        assert (await run_cli(None, *wrong)).code == 2
    ended = await run_cli(None, "--help")
    assert ended.code == 0
    assert "migrate" in "\n".join(ended.said)


async def test_keys_are_pruned_once_they_are_old_and_never_before(database: Database) -> None:
    async with connected(database.owner_dsn) as owner:
        for name in ("old", "young"):
            await append_group(owner, decide(await read_epoch(owner), an_app(name)))
        await owner.execute(
            "UPDATE log.idempotency_keys SET recorded_at = recorded_at - interval '8 days' "
            "WHERE position = (SELECT min(position) FROM log.idempotency_keys)"
        )
        assert await run_cli(database.command_dsn, "keys", "prune", "--older-than-days", "9") == (
            0,
            ["keys deleted: 0"],
            "",
        )
        assert await run_cli(database.command_dsn, "keys", "prune") == (0, ["keys deleted: 1"], "")
        assert await owner.fetchval("SELECT count(*) FROM log.idempotency_keys") == 1
        assert (await run_cli(database.command_dsn, "keys", "prune", "--older-than-days", "6")).code == 2
        with pytest.raises(asyncpg.PostgresError, match="at least 7 days") as refused:
            await prune_keys(owner, datetime.now(tz=UTC) - timedelta(days=6))
        assert refused.value.sqlstate == "KE005"
        await assert_sound(owner)


async def test_keys_are_pruned_batch_by_batch(database: Database) -> None:
    async with connected(database.owner_dsn) as owner:
        epoch = await read_epoch(owner)
        await append_group(owner, *(decide(epoch, an_app(f"app-{number}")) for number in range(5)))
        await owner.execute("UPDATE log.idempotency_keys SET recorded_at = recorded_at - interval '8 days'")
        assert await prune_keys(owner, datetime.now(tz=UTC) - timedelta(days=7), batch=2) == 5


async def test_an_epoch_begins_with_who_when_and_why(database: Database) -> None:
    async with connected(database.owner_dsn) as owner:
        for dsn in (database.command_dsn, database.owner_dsn):
            before = await read_head(owner)
            ended = await run_cli(dsn, "epoch", "new", "--reason", "put back, wie gewünscht")
            after = await read_head(owner)
            position = before.position + 1
            assert ended == (
                0,
                [f"epoch {before.epoch} ended, epoch {after.epoch} began at position {position}"],
                "",
            )
            assert after.epoch != before.epoch
            assert after.position == position
            event = (await read_all(owner))[-1]
            assert (event.type, event.actor_type, event.actor_id) == ("platform.epoch_began", "system", "operator")
            assert event.reason == "put back, wie gewünscht"
            assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", event.request_id)
            assert msgspec.json.decode(event.payload) == {
                "epoch": after.epoch,
                "previous": before.epoch,
                "forked_at": before.position,
                "cause": "operator",
            }
        await assert_sound(owner)


async def test_no_epoch_begins_without_a_reason_or_the_right(database: Database) -> None:
    async with connected(database.owner_dsn) as owner:
        before = await read_head(owner)
        for wrong in (
            [],
            ["--reason", " "],
            ["--reason", "x" * 501],
            ["--reason", "two\nlines"],
            ["--reason", "\udcff"],
        ):
            ended = await run_cli(database.owner_dsn, "epoch", "new", *wrong)
            assert ended.code == 2, wrong
            assert "--reason" in ended.complained
        for dsn in (database.projector_dsn, database.query_dsn):
            ended = await run_cli(dsn, "epoch", "new", "--reason", "why")
            assert ended.code == 2
            assert _is_one_clear_line(ended), ended
            assert "may not do this" in ended.complained
        assert await read_head(owner) == before
