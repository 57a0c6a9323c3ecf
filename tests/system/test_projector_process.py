"""The projector as a process: health, status, the operator's commands, and SIGKILL."""

import asyncio
import os
import random
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from keelson.projector.rebuild import LEASE_DURATION_S
from keelson.service.standing import read_standing
from keelson.views.platform import PLATFORM
from support.database import Database
from support.projecting import assert_views_equal_fold, caught_up, connected, item_of, pooled, read_rows, stopped
from support.story import Story, insert, raw_command
from support.waiting import eventually, free_port

TOKEN = "the-operators-token"


def environ_of(database: Database, port: int) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "KEELSON_DATABASE_URL": database.projector_dsn,
        "KEELSON_PORT": str(port),
        "KEELSON_OPERATOR_TOKEN": TOKEN,
    }


async def start(database: Database, *arguments: str, port: int = 8083) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "keelson.projector", *arguments, env=environ_of(database, port), stdout=PIPE, stderr=PIPE
    )


async def command(database: Database, *arguments: str, timeout_s: float = 60) -> tuple[int, str, str]:
    """Run an operator's command to its end; give exit code, output and errors."""
    process = await start(database, *arguments)
    async with asyncio.timeout(timeout_s):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@asynccontextmanager
async def service(database: Database) -> AsyncIterator[tuple[Process, str]]:
    """Run the service; give its process and URL. SIGTERM ends it, and must end it well, unless it is dead."""
    port = free_port()
    process = await start(database, port=port)
    reading = asyncio.create_task(process.communicate())
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(20):
            await reading
        assert process.returncode in (0, -signal.SIGKILL)


async def get(url: str, *, token: str = TOKEN) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        body = await response.json() if "json" in response.content_type else await response.text()
        return response.status, body


async def ready(url: str) -> bool:
    status, _ = await get(f"{url}/readyz")
    return status == 200


async def shows(url: str, metric: str) -> bool:
    _, metrics = await get(f"{url}/metrics")
    return metric in metrics


async def test_it_runs_says_how_it_stands_and_stops(database: Database) -> None:
    async with (
        connected(database.owner_dsn) as owner,
        pooled(database.query_dsn) as observer,
        service(database) as (_, url),
    ):
        await eventually(lambda: ready(url), timeout_s=30)
        await insert(owner, Story(seed=61, first=2).tell(50))
        head = await caught_up(observer)

        status, body = await get(f"{url}/status")
        assert status == 200
        assert body["head"] == head
        assert [item["name"] for item in body["items"]] == ["activity", "platform", "tenancy"]
        assert {item["holder"] for item in body["items"]} == {body["replica"]}
        assert {item["checkpoint"] for item in body["items"]} == {head}
        assert body["complaints"] == []
        assert (await get(f"{url}/status", token="another-token-altogether"))[0] == 401
        assert (await get(f"{url}/healthz"))[0] == 200
        assert await shows(url, 'keelson_projection_events_total{projection="platform"}')
    async with pooled(database.query_dsn) as observer:
        assert {item.holder for item in (await read_standing(observer)).items} == {None}, "leases were given back"


async def test_a_stopped_projection_is_not_ready_and_an_operator_mends_it(database: Database) -> None:
    unknown = "org_" + "7" * 26
    async with (
        connected(database.owner_dsn) as owner,
        pooled(database.query_dsn) as observer,
        service(database) as (_, url),
    ):
        await eventually(lambda: ready(url), timeout_s=30)
        await insert(owner, raw_command(2, (unknown, "org.renamed", '{"name":"x"}')))
        await stopped(observer, "tenancy")

        status, body = await get(f"{url}/readyz")
        assert status == 503
        complaint = f"tenancy is stopped at 2 (org.renamed): orgs has no row {unknown}"
        assert body["checks"]["projections"] == complaint
        assert (await get(f"{url}/status"))[1]["complaints"] == [complaint]
        await eventually(lambda: shows(url, 'keelson_projection_running{projection="tenancy"} 0.0'))

        code, out, err = await command(database, "skip", "tenancy", "2", "--reason", "it renames nothing")
        assert (code, out, err) == (0, "tenancy skips event 2 and goes on\n", "")
        await eventually(lambda: ready(url))
        assert await caught_up(observer) == 2


async def test_commands_say_what_they_did_by_their_exit_code(database: Database) -> None:
    async with (
        connected(database.owner_dsn) as owner,
        pooled(database.projector_dsn) as pool,
        service(database) as (_, url),
    ):
        await eventually(lambda: ready(url), timeout_s=30)
        await insert(owner, Story(seed=63, first=2).tell(100))
        head = await caught_up(pool)

        code, out, err = await command(database, "rebuild", "platform")
        assert (code, err) == (0, "")
        assert f"swapped at position {head:,}" in out
        assert f"platform at position {head:,}: as the log says" in out

        code, out, _ = await command(database, "verify")
        assert code == 0
        assert out.count("as the log says") == 3

        await pool.fetch("UPDATE views.orgs SET name = 'drifted'")
        code, out, _ = await command(database, "verify", "tenancy")
        assert code == 1
        assert "DRIFT" in out
        assert "name is 'drifted', should be" in out

        code, _, err = await command(database, "resume", "platform")
        assert (code, err) == (1, "keelson: platform has not stopped\n")
        code, _, err = await command(database, "skip", "platform", "3")
        assert code == 2
        assert "--reason" in err
        code, _, err = await command(database, "rebuild", "nothing")
        assert code == 2


async def test_commands_without_settings_or_database_fail_in_one_line(database: Database) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "keelson.projector", "verify", env={"PATH": os.environ["PATH"]}, stdout=PIPE, stderr=PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert "KEELSON_DATABASE_URL" in err.decode()

    away = environ_of(database, 8083) | {"KEELSON_DATABASE_URL": f"postgresql://u:p@127.0.0.1:{free_port()}/x"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "keelson.projector", "verify", env=away, stdout=PIPE, stderr=PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == 1
    assert err.decode().startswith("keelson: the database cannot be reached")
    assert len(err.decode().splitlines()) == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_f23_a_rebuild_killed_at_any_moment_leaves_the_live_tables(database: Database, seed: int) -> None:
    """And the next one starts over, as soon as the dead one's lease has lapsed."""
    moments = random.Random(seed)
    codes = []
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool:
        await insert(owner, Story(seed=64, first=2).tell(4000))
        async with service(database):
            head = await caught_up(pool)
        before = await read_rows(pool, PLATFORM)
        length_s, _ = await rebuild_until(database, pool, None)
        for _ in range(3):
            await owner.execute("UPDATE ops.leases SET expires_at = clock_timestamp()")
            # The moment is what the seed chooses; how long a whole one takes is the machine's affair.
            _, code = await rebuild_until(database, pool, moments.uniform(0, 0.8) * length_s)
            codes.append(code)
            assert (await item_of(pool, "platform")).checkpoint == head
            assert await read_rows(pool, PLATFORM) == before
        assert -signal.SIGKILL in codes, "no rebuild was killed in its course"

        code, out, err = await command(database, "rebuild", "platform", timeout_s=60 + LEASE_DURATION_S)
        assert (code, err) == (0, ""), out
        await assert_views_equal_fold(pool, {"platform": PLATFORM})


async def rebuild_until(database: Database, pool: Any, moment_s: float | None) -> tuple[float, int | None]:
    """Rebuild `platform`, killed that long after it began unless it is over; give how long it ran, and its code."""
    rebuilding = await start(database, "rebuild", "platform")
    ended = asyncio.create_task(rebuilding.communicate())
    await eventually(lambda: begun(pool))
    began = time.monotonic()
    await asyncio.wait([ended], timeout=moment_s)
    if rebuilding.returncode is None:
        rebuilding.kill()
    await ended
    return time.monotonic() - began, rebuilding.returncode


async def begun(pool: Any) -> bool:
    held = "SELECT count(*) FROM ops.leases WHERE name = 'rebuild:platform' AND expires_at > clock_timestamp()"
    return bool(await pool.fetchval(held))


async def test_projectors_killed_in_turn_apply_everything_once(database: Database) -> None:
    story = Story(seed=65, first=2)
    async with (
        connected(database.owner_dsn) as owner,
        pooled(database.projector_dsn) as pool,
        AsyncExitStack() as stack,
    ):
        oldest, url = await stack.enter_async_context(service(database))
        await eventually(lambda: ready(url), timeout_s=30)
        for _ in range(3):
            youngest, _ = await stack.enter_async_context(service(database))
            await insert(owner, story.tell(400))
            oldest.kill()
            await insert(owner, story.tell(400))
            await caught_up(pool, timeout_s=30)
            oldest = youngest
        await assert_views_equal_fold(pool)
