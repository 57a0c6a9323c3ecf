"""Rotation of the master keys, on a real vault, beside a service that goes on."""

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from keelson.command import rotation
from keelson.command.rotation import rotate
from keelson.command.sealing import EXPECTED_KEYS, Sealer, read_keys
from keelson.log.database import Connection
from support.command_world import World, open_world
from support.database import Database
from support.keys import DIGEST_KEY, SECRET_KEYS
from support.log import connected, read_all

NEW_KEYS = f"new:{base64.b64encode(os.urandom(32)).decode()}"
BOTH = f"{NEW_KEYS},{SECRET_KEYS}"


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database) as world:
        yield world


@pytest.fixture
async def command_role(database: Database) -> AsyncIterator[Connection]:
    async with connected(database.command_dsn) as connection:
        yield connection


def sealer(keys: str = BOTH) -> Sealer:
    return Sealer(read_keys(keys), DIGEST_KEY)


async def set_secrets(world: World, number: int) -> list[str]:
    """Give each of several environments a secret of two versions."""
    app_id = await world.create_app()
    envs = [await world.create_env(app_id) for _ in range(number)]
    for env_id in envs:
        for value in ("1", "2"):
            assert (await world.replica.command("secret.set", env_id=env_id, values={"A": value})).status == 200
    return envs


async def opened(connection: Connection, keys: str) -> dict[tuple[str, int], dict[str, str]]:
    rows = await connection.fetch("SELECT secret_id, version, key_id, sealed FROM vault.secrets")
    return {(row["secret_id"], row["version"]): sealer(keys).open(*row) for row in rows}


async def test_all_comes_under_the_new_key_and_opens_by_it_alone(world: World, command_role: Connection) -> None:
    await set_secrets(world, 3)
    before = await opened(command_role, SECRET_KEYS)
    rotated = await rotate(command_role, sealer(), batch=4)
    assert rotated == (6, [], {"new": 6})
    assert await opened(command_role, NEW_KEYS) == before
    assert await rotate(command_role, sealer(), batch=4) == (0, [], {"new": 6})


async def test_what_was_cut_short_is_gone_on_with(world: World, command_role: Connection) -> None:
    await set_secrets(world, 3)

    class CutShortError(Exception):
        pass

    class Cut:
        """A connection that is lost after one batch."""

        batches = 0

        async def fetch(self, *arguments: Any) -> Sequence[Any]:
            self.batches += 1
            if self.batches > 1:
                raise CutShortError
            return await command_role.fetch(*arguments)

        async def fetchval(self, *arguments: Any) -> Any:
            return await command_role.fetchval(*arguments)

    with pytest.raises(CutShortError):
        await rotate(Cut(), sealer(), batch=2)  # type: ignore[arg-type] # all that is asked of it
    assert await rotate(command_role, sealer(), batch=2) == (4, [], {"new": 6})


async def test_services_go_on_meanwhile(database: Database, command_role: Connection) -> None:
    """Values are set and environments deleted while batches of one are exchanged; nothing is lost or comes back."""
    async with open_world(database, replicas=2, secret_keys=f"{SECRET_KEYS},{NEW_KEYS}") as world:
        envs = await set_secrets(world, 20)

        async def write() -> None:
            for turn, env_id in enumerate(envs):
                replica = world.replicas[turn % 2]
                if turn % 2:
                    answer = await replica.command("env.delete", env_id=env_id)
                else:
                    answer = await replica.command("secret.set", env_id=env_id, values={"B": "3"})
                assert answer.status == 200, answer.body

        rotated, _ = await asyncio.gather(rotate(command_role, sealer(), batch=1), write())
        assert not rotated.faults
        kept = await opened(command_role, BOTH)
        assert len(kept) == 30
        assert {tuple(values) for (_, version), values in kept.items() if version == 3} == {("A", "B")}
        for env_id in envs[::2]:
            answer = await world.replica.command("secret.set", env_id=env_id, values={"A": "4"})
            assert answer.result["version"] == 4
    last = await rotate(command_role, sealer())
    assert last.under == {"new": 40}


async def test_a_row_that_somebody_holds_is_not_waited_for(
    world: World, command_role: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_secrets(world, 1)
    monkeypatch.setattr(rotation, "PASSES", 1)
    async with world.log.transaction():
        await world.log.execute("SELECT FROM vault.secrets WHERE version = 1 FOR UPDATE")
        async with asyncio.timeout(10):
            assert await rotate(command_role, sealer()) == (1, [], {"new": 1, "tests": 1})
    assert (await rotate(command_role, sealer())).under == {"new": 2}


async def test_what_does_not_open_is_named_and_left_as_it_is(world: World, command_role: Connection) -> None:
    await set_secrets(world, 1)
    await world.log.execute(
        "UPDATE vault.secrets SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1) WHERE version = 1"
    )
    await world.log.execute("UPDATE vault.secrets SET key_id = 'lost' WHERE version = 2")
    held = await world.log.fetch("SELECT * FROM vault.secrets ORDER BY version")
    secret_id = held[0]["secret_id"]
    rotated = await rotate(command_role, sealer())
    assert (rotated.rewrapped, rotated.under) == (0, {"lost": 1, "tests": 1})
    assert rotated.faults[1] == f"version 2 of {secret_id} is sealed by lost, a key that is not set"
    assert await world.log.fetch("SELECT * FROM vault.secrets ORDER BY version") == held


async def run(database: Database, keys: str, dsn: str | None = None) -> tuple[int | None, str]:
    """Run the command line; give its exit code and what it wrote."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KEELSON_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "keelson.command", "secrets", "rotate"),
        env={**inherited, "KEELSON_DATABASE_URL": dsn or database.command_dsn, "KEELSON_SECRET_KEYS": keys},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        written, _ = await process.communicate()
    return process.returncode, written.decode()


async def test_f26_the_command_line_enters_the_log_as_every_connection(database: Database) -> None:
    """It writes the vault: in whichever lineage that is, it shall be known to be."""
    async with connected(database.admin_dsn) as admin:
        await admin.execute("UPDATE log.head SET timeline = '00000007'")
        assert await run(database, BOTH) == (0, "versions of secrets that were wrapped anew: 0\nall are under new\n")
        *_, began = await read_all(admin)
    assert (began.type, began.position) == ("platform.epoch_began", 2)
    assert (began.reason or "").endswith("found by keelson-rotation")
    code, written = await run(database, BOTH, database.command_dsn.removesuffix(database.name) + "postgres")
    assert (code, "the database cannot be used: there is no log" in written) == (1, True)


async def test_the_command_line_says_what_came_of_it(database: Database, world: World) -> None:
    await set_secrets(world, 1)
    assert await run(database, NEW_KEYS) == (
        1,
        "".join(
            [
                *(
                    f"version {row['version']} of {row['secret_id']} is sealed by tests, a key that is not set\n"
                    for row in await world.log.fetch("SELECT * FROM vault.secrets ORDER BY version")
                ),
                "versions of secrets that were wrapped anew: 0\nstill under tests: 2\n",
            ]
        ),
    )
    assert await run(database, BOTH) == (0, "versions of secrets that were wrapped anew: 2\nall are under new\n")
    wrong = f"keelson: wrong settings: KEELSON_SECRET_KEYS: expected {EXPECTED_KEYS}\n"
    assert await run(database, "b1rd") == (2, wrong)
    code, written = await run(database, BOTH, database.query_dsn)
    assert (code, "may not do this" in written) == (1, True)
