"""What the pages of operations say is so: every command is run, in order, in the situation that it is written for."""

import asyncio
import base64
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec
import pytest

from keelson.access.tokens import new_token
from keelson.local.child import in_thread
from keelson.local.database import OWNER
from keelson.local.postgres import Postgres
from keelson.log.database import connect
from keelson.log.read import read_head
from keelson.log.roles import SERVICE_ROLES
from support.database import Cluster, Database, reachable_folder, running_server
from support.keys import SECRET_KEYS
from support.programs import needs
from support.projecting import caught_up, connected, pooled, stopped
from support.repository import ROOT
from support.stack import Stack, running_stack
from support.story import insert, raw_command
from support.waiting import eventually, free_port

PAGES = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("operations.md", "backup.md")]
PAGE = "\n".join(PAGES)
# What one service has beside what all have stands on a page about it.
FEED_PAGE = (ROOT / "docs" / "feed.md").read_text(encoding="utf-8")
SERVICES = ("command", "query", "projector")

HEADING_OR_BLOCK = re.compile(r"^##+ (?P<heading>[^\n]+)$|^```sh\n(?P<command>.*?)^```$", re.MULTILINE | re.DOTALL)
ANSWER = re.compile(r"^#> (.*)\n", re.MULTILINE)
EXIT_CODE = re.compile(r"^# exits (\d)$", re.MULTILINE)


class Block(NamedTuple):
    """A block of commands, the heading that it stands under, and what the page says that it answers."""

    heading: str
    command: str
    answer: list[str]

    @property
    def exit_code(self) -> int:
        """The code that the block ends with: 0 unless it says another."""
        said = EXIT_CODE.search(self.command)
        return int(said[1]) if said else 0


def blocks() -> Iterator[Block]:
    """Give the page's blocks in order."""
    heading = ""
    for match in HEADING_OR_BLOCK.finditer(PAGE):
        heading = match["heading"] or heading
        if command := match["command"]:
            yield Block(heading, command, ANSWER.findall(command))


def rows(heading: str, page: str = PAGE) -> Iterator[list[str]]:
    """Give the cells of the table under a heading, by default the page's own, but for the table's head."""
    _, _, text = page.partition(f"\n## {heading}\n" if heading else "\n")
    text, _, _ = text.partition("\n## ")
    for line in re.findall(r"^\|(.*)\|$", text, re.MULTILINE)[2:]:
        yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]


def names(cell: str) -> list[str]:
    """Give what a cell marks as code."""
    return re.findall(r"`([^`]+)`", cell)


def services_of(cell: str) -> set[str]:
    """Give the services that a cell names."""
    return set(SERVICES) if cell == "all" else set(cell.split(", "))


class Operator:
    """Whoever follows the page: a bare server at first, then a stack on what was installed."""

    def __init__(self, cluster: Cluster, folder: Path, exits: AsyncExitStack) -> None:
        self.cluster = cluster
        self.database = cluster.database(OWNER)
        self.restored: Database | None = None
        self.stack: Stack | None = None
        self._folder = folder
        self._exits = exits
        self._running: AsyncExitStack | None = None
        passwords = {role.removeprefix("keelson_"): password for role, password in cluster.passwords.items()}
        self.variables = {
            "KEELSON_OPERATOR_TOKEN": new_token(),
            "ADMIN_DB": cluster.server.url(),
            "OWNER_DB": self.database.owner_dsn,
            "COMMAND_DB": self.database.command_dsn,
            "PROJECTOR_DB": self.database.projector_dsn,
            "OWNER_PASSWORD": passwords[OWNER],
            "COMMAND_PASSWORD": passwords["command"],
            "PROJECTOR_PASSWORD": passwords["projector"],
            "QUERY_PASSWORD": passwords["query"],
            "KEELSON_SECRET_KEYS": f"new:{base64.b64encode(secrets.token_bytes(32)).decode()},{SECRET_KEYS}",
            "QUERY": "",
            "PROJECTOR": "",
            "POSITION": "",
            "PID": "",
            "CURSOR": "",
            "BACKUP": str(folder / "backup"),
            "BACKUP_DB": "",
            "DUMP": str(folder / "keelson.dump"),
            "RESTORED_DB": cluster.database("keelson_restored").admin_dsn,
        }

    async def run(self, block: Block) -> tuple[int, str]:
        """Run a block by the shell; give its exit code and all that it printed."""
        path = os.pathsep.join(
            [str(Path(sys.executable).parent), str(self.cluster.server.binaries), os.environ["PATH"]]
        )
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KEELSON_")}
        shell = await asyncio.create_subprocess_exec(
            *("sh", "-e", "-c", block.command),
            env={**inherited, **self.variables, "PATH": path},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(120):
            output, _ = await shell.communicate()
        assert shell.returncode is not None
        return shell.returncode, output.decode()

    async def create_org(self, name: str) -> str:
        """Create an organisation, to be seen in the views; give its position with its epoch."""
        assert self.stack is not None
        headers = {"Authorization": f"Bearer {self.variables['KEELSON_OPERATOR_TOKEN']}", "Prefer": "wait=5"}
        url = f"{self.stack.commands[0].url}/v1/commands/org.create"
        async with aiohttp.ClientSession() as session, session.post(url, json={"name": name}, headers=headers) as made:
            assert made.status == 200, await made.text()
            return f"{made.headers['Keelson-Epoch']}-{(await made.json())['position']}"

    async def start_on_backup(self) -> None:
        """Start a server on a copy of the base backup, by the account that runs servers."""
        folder = self._exits.enter_context(reachable_folder())
        original = self.cluster.server
        server = Postgres(folder / "postgres", original.binaries, free_port(), folder / "log")
        shutil.copytree(original.folder, server.folder, ignore=lambda *_: [original.data.name])
        shutil.copytree(self.variables["BACKUP"], server.data)
        if server.account is not None:
            for path in (server.data, *server.data.rglob("*")):
                os.chown(path, server.account.uid, server.account.gid)
        self._exits.callback(server.stop)
        await in_thread(server.start)
        self.restored = Cluster(server, self.cluster.passwords).database(OWNER)
        self.variables["BACKUP_DB"] = self.restored.admin_dsn

    async def hold_head(self) -> None:
        """Have somebody hold the log's head until they are ended."""
        holder = await connect(self.database.owner_dsn, application_name="keelson-stuck")
        self._exits.callback(holder.terminate)
        await holder.execute("SET idle_in_transaction_session_timeout = 0; BEGIN; SELECT FROM log.head FOR UPDATE")
        self.variables["PID"] = str(holder.get_server_pid())

    async def start(self, database: Database) -> None:
        """Start the services on a database."""
        self._running = await self._exits.enter_async_context(AsyncExitStack())
        logs = Path(tempfile.mkdtemp(dir=self._folder))
        self.stack = await self._running.enter_async_context(
            running_stack(self.cluster, database, logs, operator_token=self.variables["KEELSON_OPERATOR_TOKEN"])
        )
        self.variables |= {"QUERY": self.stack.queries[0].url, "PROJECTOR": self.stack.projectors[0].url}

    async def stop(self) -> None:
        """Stop the services."""
        assert self._running is not None
        await self._running.aclose()


async def is_installed(operator: Operator) -> None:
    """There are services, and somebody uses them."""
    await operator.start(operator.database)
    await operator.create_org("harbour")
    await is_caught_up(operator)


async def is_caught_up(operator: Operator) -> None:
    """All projections are at the head, and metrics show it."""
    async with pooled(operator.database.projector_dsn) as pool:
        await caught_up(pool)
    lag = re.compile(r'^keelson_projection_lag_(?:events|seconds)\{projection="platform"\} 0\.0$', re.MULTILINE)
    async with aiohttp.ClientSession() as session:
        await eventually(lambda: _finds(session, f"{operator.variables['PROJECTOR']}/metrics", lag))


async def _finds(session: aiohttp.ClientSession, url: str, pattern: re.Pattern[str]) -> bool:
    async with session.get(url) as response:
        return bool(pattern.search(await response.text()))


async def poison_is_appended(operator: Operator) -> None:
    """There is an event that the platform's handlers cannot take."""
    async with connected(operator.database.owner_dsn) as owner:
        position = (await read_head(owner)).position + 1
        await insert(owner, raw_command(position, ("env_" + "7" * 26, "env.config_set", '{"variables":{}}')))
    operator.variables["POSITION"] = str(position)
    await is_stopped(operator)


async def is_stopped(operator: Operator) -> None:
    """Nothing moves the platform's projection any more."""
    async with pooled(operator.database.projector_dsn) as pool:
        await stopped(pool, "platform")


async def claims_are_wrong(operator: Operator) -> None:
    """Somebody changed the claims."""
    async with connected(operator.database.owner_dsn) as owner:
        await owner.execute("UPDATE log.claim_scopes SET held = held + 1")


async def views_are_wrong(operator: Operator) -> None:
    """Somebody changed the views."""
    async with connected(operator.database.projector_dsn) as projector:
        await projector.execute("UPDATE views.orgs SET name = 'drifted'")


async def head_is_held(operator: Operator) -> None:
    """Somebody holds the log's head, and does not let go."""
    await operator.hold_head()


async def all_is_lost(operator: Operator) -> None:
    """After the backup there was more, which a client has seen; now nothing is served any more."""
    operator.variables["CURSOR"] = await operator.create_org("lost")
    await operator.stop()


async def base_backup_is_started(operator: Operator) -> None:
    """There is a server that runs on the base backup."""
    await operator.start_on_backup()


async def is_restored(operator: Operator) -> None:
    """Services run on what was restored, and write where the old log went on otherwise."""
    assert operator.restored is not None
    await operator.start(operator.restored)
    await operator.create_org("found")


SITUATIONS: dict[str, Callable[[Operator], Awaitable[None]]] = {
    "Health and readiness": is_installed,
    "A projection is stopped": poison_is_appended,
    "Skip the event": is_stopped,
    "Lag grows": is_caught_up,
    "Claims differ": claims_are_wrong,
    "Views differ": views_are_wrong,
    "Commands answer 503": head_is_held,
    "Restore": all_is_lost,
    "Restore a base backup": base_backup_is_started,
    "Serve what was restored": is_restored,
}


def missing(answer: list[str], output: str) -> list[str]:
    """Give the lines of an answer that an output has not, in whatever order; `…` stands for anything within a line."""
    patterns = {line: ".*".join(map(re.escape, line.split("…"))) for line in answer}
    return [line for line, pattern in patterns.items() if not re.search(pattern, output)]


@pytest.fixture(scope="module")
def bare_cluster() -> Iterator[Cluster]:
    """Start a server that has nothing of Keelson's on it, and passwords for what will be there."""
    with running_server() as server:
        yield Cluster(server, {role: secrets.token_urlsafe(24) for role in (OWNER, *SERVICE_ROLES)})


@asynccontextmanager
async def an_operator(cluster: Cluster, folder: Path) -> AsyncIterator[Operator]:
    """Lend an operator; what runs is ended afterwards."""
    async with AsyncExitStack() as exits:
        yield Operator(cluster, folder, exits)


@needs("curl", "the page's commands need it")
async def test_every_command_does_what_the_page_says(bare_cluster: Cluster, tmp_path: Path) -> None:
    found = list(blocks())
    assert len(found) == PAGE.count("```sh\n") >= 12
    assert SITUATIONS.keys() <= {block.heading for block in found}
    async with an_operator(bare_cluster, tmp_path) as operator:
        assert {name for row in rows("") for name in names(row[0])} == operator.variables.keys()
        heading = ""
        for block in found:
            if block.heading != heading and (situation := SITUATIONS.get(block.heading)):
                await situation(operator)
            heading = block.heading
            code, output = await operator.run(block)
            assert block.answer, block.command
            assert code == block.exit_code, f"{block.command}\n{output}"
            assert missing(block.answer, output) == [], f"{block.command}\n{output}"


async def test_metrics_and_checks_are_those_that_services_have(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    exported, checked = {}, {}
    async with running_stack(cluster, database, tmp_path) as stack, aiohttp.ClientSession() as session:
        for name, process in zip(("command", "projector", "query"), stack, strict=True):
            async with session.get(f"{process.url}/metrics") as response:
                kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", await response.text(), re.MULTILINE))
            exported[name] = {each for each in kinds if not each.endswith("_created")}
            async with session.get(f"{process.url}/readyz") as response:
                checked[name] = set(msgspec.json.decode(await response.read())["checks"])
    ours = {name: {each for each in metrics if each.startswith("keelson_")} for name, metrics in exported.items()}
    assert ours == {
        name: {each for shown, of in metrics_of_page() if name in of for each in shown} for name in SERVICES
    }
    others = {each.partition("_")[0] for metrics in exported.values() for each in metrics} - {"keelson"}
    assert others == {"process", "python"}
    described = [(names(row[0])[0], services_of(row[1])) for row in rows("Health and readiness") if row[0]]
    assert checked == {name: {each for each, of in described if name in of} for name in SERVICES}


def metrics_of_page() -> list[tuple[list[str], set[str]]]:
    """Give the pages' metrics and the services that they say have them."""
    of_feed = [(names(row[0]), {"query"}) for row in rows("Metrics", FEED_PAGE)]
    return [*((names(row[0]), services_of(row[1])) for row in rows("Metrics")), *of_feed]


def test_the_pages_stay_readable_and_a_missing_word_is_found() -> None:
    assert all(len(page.splitlines()) <= 300 for page in (*PAGES, FEED_PAGE))
    assert missing(["one … three"], "one two three") == []
    assert missing(["one … three", "four"], "one two\nthree") == ["one … three", "four"]
