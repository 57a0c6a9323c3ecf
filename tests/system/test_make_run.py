"""`make run`: ready when it says so, the same data after a restart, and nothing left behind."""

import signal
import socket
import time
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from keelson.client import Client
from keelson.client.commands.release import Process
from keelson.client.reads.instances import InstanceRow
from keelson.local.child import Child
from keelson.local.process import Identity
from support.database import running_server
from support.instances import IMAGE
from support.supervised import READY, Supervised, read_json, supervised
from support.waiting import eventually

SERVICES = ("command", "projector", "query")
CONVERGING = ("scheduler", "node-a", "node-b")
CHILDREN = (*SERVICES, *CONVERGING)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Supervised]:
    with supervised(tmp_path / "home") as stack:
        yield stack


def client_of(stack: Supervised) -> Client:
    dev = stack.dev
    return Client(dev.command_url, dev.query_url, dev.operator_token)


async def create_org(stack: Supervised, name: str) -> str:
    async with client_of(stack) as client:
        answer = await client.command("org.create", {"name": name}, reason="a test", wait_s=10)
    assert answer.projected
    return str(answer.result["org_id"])


async def read_org(stack: Supervised, org_id: str) -> str:
    async with client_of(stack) as client:
        return str((await client.read("orgs", org_id))["name"])


async def read_nodes(stack: Supervised) -> dict[str, str]:
    async with client_of(stack) as client:
        return {str(node.name): node.id async for node in client.nodes.list()}


async def run_something(stack: Supervised) -> str:
    """Deploy one process that waits; return its environment."""
    async with client_of(stack) as client:
        org_id = (await client.org.create(name="tenant")).result.org_id
        project_id = (await client.project.create(org_id=org_id, name="all")).result.project_id
        app_id = (await client.app.create(project_id=project_id, name="waiter")).result.app_id
        waits = {"waiter": Process(command=["sleep", "infinity"], memory_bytes=2**24)}
        release = (await client.release.create(app_id=app_id, image=IMAGE, processes=waits)).result
        env_id = (await client.env.create(app_id=app_id, name="production")).result.env_id
        await client.deploy.create(env_id=env_id, release_id=release.release_id)
    return env_id


async def read_ready(stack: Supervised, env_id: str, node_ids: Collection[str]) -> list[InstanceRow]:
    async with client_of(stack) as client:
        rows = [row async for row in client.instances.list(env_id=env_id, status="ready")]
    return [row for row in rows if row.node_id in node_ids]


async def read_status(stack: Supervised, instance_id: str) -> tuple[str, str | None]:
    async with client_of(stack) as client:
        row = await client.instances.get(instance_id)
    return row.status, row.reason_code


def is_replaced(stack: Supervised, name: str, killed: Identity) -> bool:
    return stack.pids.get(name, killed) != killed


def is_listening(url: str) -> bool:
    parts = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((str(parts.hostname), parts.port or 0)) == 0


async def test_it_says_ready_once_and_how_to_reach_it_and_leaves_nothing_behind(stack: Supervised) -> None:
    await stack.start()
    assert stack.output.count(READY) == 1
    file = stack.home / "dev.json"
    assert file.stat().st_mode & 0o777 == 0o600
    dev = read_json(file)
    assert set(dev) == {"command_url", "query_url", "projector_url", "operator_token", "database_url"}
    for url in (dev["command_url"], dev["query_url"], dev["projector_url"], dev["operator_token"]):
        assert url in stack.output
    connection = await asyncpg.connect(dev["database_url"], timeout=5)
    try:
        assert await connection.fetchval("SELECT tableowner = current_user FROM pg_tables WHERE tablename = 'events'")
    finally:
        await connection.close()
    pids = stack.pids
    assert set(pids) == {"supervisor", "database", *CHILDREN}
    assert await stack.end(signal.SIGINT) == 0
    assert not file.exists()
    assert not [name for name, identity in pids.items() if identity.is_running()]
    assert not [url for url in (dev["command_url"], dev["database_url"]) if is_listening(url)]


async def test_views_of_an_older_version_are_rebuilt_before_it_is_ready(stack: Supervised) -> None:
    await stack.start()
    org_id = await create_org(stack, "kept")
    connection = await asyncpg.connect(stack.dev.database_url, timeout=5)
    try:
        await connection.execute("SET ROLE keelson_projector; UPDATE ops.checkpoints SET version = version - 1")
    finally:
        await connection.close()
    await stack.end(signal.SIGINT)
    await stack.start()
    for projection in ("activity", "platform", "tenancy"):
        assert f"rebuilding {projection}, whose version was raised" in stack.output
    assert await read_org(stack, org_id) == "kept"
    await stack.end(signal.SIGINT)
    await stack.start()
    assert "rebuilding" not in stack.output


async def test_a_restart_goes_on_with_the_same_data_and_token(stack: Supervised) -> None:
    await stack.start()
    before, nodes = stack.dev, await read_nodes(stack)
    org_id = await create_org(stack, "kept")
    assert await stack.end() == 0
    await stack.start()
    assert stack.dev == before
    assert await read_org(stack, org_id) == "kept"
    assert await read_nodes(stack) == nodes
    assert await stack.end() == 0


async def test_what_is_killed_is_started_again(stack: Supervised) -> None:
    await stack.start()
    org_id = await create_org(stack, "survivor")
    for name in (*CHILDREN, "database"):
        killed = stack.pids[name]
        killed.signal(signal.SIGKILL)
        await eventually(partial(is_replaced, stack, name, killed), 30.0)
        assert f"{name.ljust(11)}was ended by SIGKILL; starting it again" in stack.output
    async with client_of(stack) as client:

        async def works() -> bool:
            answer = await client.command("org.rename", {"org_id": org_id, "name": "survived"}, wait_s=5)
            return answer.projected

        assert await eventually(works, 60.0)
    assert await read_org(stack, org_id) == "survived"
    assert await stack.end() == 0


async def test_orphans_of_a_killed_supervisor_are_ended_by_the_next_start(stack: Supervised) -> None:
    await stack.start()
    org_id = await create_org(stack, "orphaned")
    assert await stack.end(signal.SIGKILL) == -signal.SIGKILL
    orphans = stack.pids
    assert set(orphans) == {"database", *CHILDREN}
    await stack.start()
    assert not [name for name, identity in orphans.items() if identity.is_running()]
    assert stack.output.count("left behind") == len(orphans)
    assert await read_org(stack, org_id) == "orphaned"
    assert await stack.end() == 0


async def test_a_second_start_on_the_same_home_is_refused_and_one_on_another_runs_beside(
    stack: Supervised, tmp_path: Path
) -> None:
    await stack.start()
    twin = Supervised(stack.home, stack.environ)
    assert twin.launch().wait(30.0) == 1
    assert "runs on" in twin.output
    assert "KEELSON_HOME" in twin.output
    with supervised(tmp_path / "other") as other:
        await other.start()
        org_id = await create_org(other, "neighbour")
        async with client_of(stack) as client:
            assert org_id not in [row["id"] async for row in client.list("orgs")]
        assert await other.end() == 0
    assert await create_org(stack, "neighbour")
    assert await stack.end() == 0


async def test_a_terminal_that_was_closed_leaves_nothing_running(stack: Supervised) -> None:
    stack.launch(Path("/dev/full"))  # whatever is printed fails, as on a closed terminal
    await eventually((stack.home / "dev.json").exists, 60.0)
    pids = stack.pids
    assert len(pids) == 2 + len(CHILDREN)
    await stack.end(signal.SIGHUP)
    assert not [name for name, identity in pids.items() if identity.is_running()]


async def test_a_signal_while_it_starts_ends_it_cleanly(stack: Supervised) -> None:
    stack.launch()
    await eventually(lambda: "starting PostgreSQL" in stack.output, 30.0)
    assert await stack.end() == 0
    assert READY not in stack.output
    assert not stack.pids


def test_ports_in_use_are_told_with_the_variables_that_choose_others(stack: Supervised) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert stack.launch(KEELSON_QUERY_PORT=port).wait(30.0) == 1
    assert f"port {port} is in use: choose another by KEELSON_QUERY_PORT" in stack.output
    assert "Traceback" not in stack.output


async def test_a_database_of_somebody_else_is_used_as_its_role_and_can_be_left_and_come_back_to(
    stack: Supervised,
) -> None:
    with running_server() as server:
        connection = await asyncpg.connect(server.url(), timeout=5)
        try:
            await connection.execute("CREATE ROLE landlord LOGIN CREATEROLE PASSWORD 'rent'")
            await connection.execute("CREATE DATABASE flat OWNER landlord")
        finally:
            await connection.close()
        url = f"postgresql://landlord:rent@127.0.0.1:{server.port}/flat"
        await stack.start(KEELSON_DATABASE_URL=url)
        assert stack.dev.database_url == url
        assert "database" not in stack.pids
        assert "rent@" not in stack.output
        env_id = await run_something(stack)
        there = await read_nodes(stack)
        [ran] = await eventually(lambda: read_ready(stack, env_id, there.values()), 60.0)
        assert await stack.end() == 0
        # On the same home with a log of its own, the nodes are others, and are let in as such.
        await stack.start()
        here = await read_nodes(stack)
        assert set(here) == set(there) == {"node-a", "node-b"}
        assert not set(here.values()) & set(there.values())
        assert await stack.end() == 0
        # Back on the first, of whose nodes the home has kept nothing: they are retired, and what they ran runs again.
        await stack.start(KEELSON_DATABASE_URL=url)
        back = await read_nodes(stack)
        assert set(back) == set(there)
        assert not set(back.values()) & {*here.values(), *there.values()}
        assert await eventually(lambda: read_ready(stack, env_id, back.values()), 60.0)
        assert await read_status(stack, ran.id) == ("stopped", "node_lost")
        assert await stack.end() == 0


async def test_a_database_that_cannot_be_used_is_told_without_its_password(stack: Supervised) -> None:
    url = f"postgresql://nobody:hidden@127.0.0.1:{stack.environ['KEELSON_DATABASE_PORT']}/none"
    assert stack.launch(KEELSON_DATABASE_URL=url).wait(60.0) == 1
    assert "KEELSON_DATABASE_URL" in stack.output
    assert "hidden" not in stack.output
    assert "Traceback" not in stack.output


async def test_a_child_that_ignores_a_polite_stop_is_ended_within_its_grace(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('here', flush=True)\nsignal.pause()\n"
    )
    child = Child("stubborn", "stubborn", {"PYTHONPATH": str(tmp_path)}, tmp_path / "log")
    await child.start()
    await eventually(lambda: "here" in child.log.read_text())
    started = time.monotonic()
    await child.stop(grace_s=0.5)
    assert child.pid is None
    assert time.monotonic() - started < 5
    assert await child.wait() == "was ended by SIGKILL"
