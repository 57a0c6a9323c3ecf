"""A canary in every field, header and unfit request: found where it belongs, and nowhere else (F43).

Everything is sent to real processes by everybody, also while the database refuses, and is away. Then all that was
logged, measured, refused, told and stored is searched. A second run, of services with planted leaks, must find them.
"""

import asyncio
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest

from integration.test_cli import run_cli
from keelson.access.rights import READS
from keelson.log.database import connect
from support.canaries import PERSONAL_FIELDS, SECRET_FIELDS, Canaries, Canary, Maker, find, spoil
from support.database import Cluster, Database, running_cluster
from support.judging import read_when_caught_up
from support.stack import Stack, running_stack

IMPATIENT: dict[str, Any] = {"acquire_timeout_s": "0.5", "statement_timeout_s": "1", "command_timeout_s": "1"}
# So that nothing is refused for coming too often.
UNLIMITED: dict[str, Any] = {"rate_limit_per_s": "0"}
REQUEST_ID = "a-request-id-is-logged"
GIB = 2**30

# Run by each process of the second run before anything else; each line opens one channel.
PLANTED_LEAKS = """
import sys

if any(each.startswith("keelson.") for each in sys.orig_argv):
    from keelson.service import metrics, problems, tracebacks, validation
    tracebacks.message_of = str
    refuse, shown = validation._refuse, []
    def repeat(value, type_, message, at):
        try:
            refuse(value, type_, message, at)
        except problems.Problem as problem:
            if len(shown) < 20:
                shown.append(metrics.PROBLEMS.labels("planted", str(value)[:500]))
            problem.detail += f": {str(value)[:500]}"
            raise
    validation._refuse = repeat
    from keelson.query import people
    people._is_told = lambda row, grants: True
    from keelson.command import answers, sealing
    answers.once_only = lambda result: ()
    sealing.Sealer.digest = lambda self, secret_id, values: str(values)
"""


class Told(NamedTuple):
    """An answer: to whom, on what, and what it said."""

    who: str
    path: str
    status: int
    body: str


@dataclass
class Journey:
    """Somebody who sends everything; `known` are ids by fields' names, `tokens` whose they are."""

    stack: Stack
    session: aiohttp.ClientSession
    maker: Maker
    canaries: Canaries
    tokens: dict[str, str | None]
    known: dict[str, str] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    told: list[Told] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    async def ask(self, who: str, method: str, url: str, headers: Mapping[str, str], data: bytes | None = None) -> Told:
        """Send anything and note what comes back."""
        token = self.tokens.get(who)
        sent = {"X-Request-Id": REQUEST_ID, **({"Authorization": f"Bearer {token}"} if token else {}), **headers}
        async with self.session.request(method, url, headers=sent, data=data) as response:
            told = Told(who, f"{method} {response.url.path}", response.status, await response.text())
        self.told.append(told)
        self.statuses[told.status] += 1
        return told

    async def send(
        self, who: str, command: str, body: Any, headers: Mapping[str, str] | None = None, cut: int | None = None
    ) -> Told:
        """Send a command with a canary in each of its headers."""
        given = {
            "Content-Type": "application/json",
            "Keelson-Reason": f"because of {self.canaries.plant('text', f'the reason of {command}')}",
            "Keelson-Correlation-Id": self.canaries.plant("name", f"the correlation id of {command}"),
            "Idempotency-Key": self.canaries.plant("name", f"the key of {command}"),
            **(headers or {}),
        }
        data = msgspec.json.encode(body)[:cut]
        return await self.ask(who, "POST", f"{self.stack.commands[0].url}/v1/commands/{command}", given, data)

    async def do(
        self, command: str, who: str = "operator", *, leave_out: tuple[str, ...] = (), **fields: Any
    ) -> dict[str, Any]:
        """Send a command that must succeed; remember what it made, and for secret what it shows once."""
        body = self.maker.make(command, self.known, (*leave_out, *fields)) | fields
        told = await self.send(who, command, body)
        assert told.status == 200, (command, told.body, body)
        self.done.add(command)
        result: dict[str, Any] = msgspec.json.decode(told.body)["result"]
        for name, value in result.items():
            if name in ("token", "credential"):
                self.canaries.note_token(f"{name} of {command}", value)
            elif name.endswith("_id") and value:
                self.known[name] = value
        return result

    async def issue(self, who: str) -> None:
        """Give the member that was added last a credential."""
        self.tokens[who] = (await self.do("org.issue_credential"))["token"]


async def settle(journey: Journey) -> None:
    """Make one of everything, in two organisations."""
    await journey.do("org.create")
    await journey.issue("foreign")
    journey.known.clear()
    await journey.do("org.create")
    await journey.issue("owner")
    await journey.do("org.rename")
    await journey.do("org.set_quota", quota={"projects": 3})
    for role in ("readonly", "developer"):
        await journey.do("org.add_member", role=role)
        await journey.issue(role)
    await journey.do("principal.create")
    await journey.do("principal.set_scopes", scopes=["audit:read"])
    await journey.do("principal.issue_credential")
    for command in ("project.create", "project.rename", "app.create", "app.rename", "env.create", "env.rename"):
        await journey.do(command)
    await journey.do("env.set_config")
    await release(journey)
    await journey.do("deploy.create")
    await journey.do("deploy.set_status", status="rolling")
    await journey.do("env.scale", replicas={"web": 2})
    for command in ("route.create", "route.update"):
        await journey.do(command, process="web", port="http")
    await journey.do("secret.set", "owner")
    await run_instance(journey)
    before = journey.known["release_id"]
    await release(journey)
    await journey.do("deploy.create")
    await journey.do("env.rollback", leave_out=("deploy_id", "position"), release_id=before)


async def release(journey: Journey) -> None:
    """Make a release whose process and port have names that others use."""
    body = journey.maker.make("release.create", journey.known)
    [process] = body["processes"].values()
    process |= {"ports": [{"name": "http", "port": 8080}], "health": None, "needs_secrets": True}
    await journey.do("release.create", **body | {"processes": {"web": process}})


async def enroll(journey: Journey) -> str:
    """Let a node enrol; give its credential."""
    token = (await journey.do("node.create_enrollment_token"))["token"]
    return str((await journey.do("node.enroll", "nobody", token=token))["credential"])


async def run_instance(journey: Journey) -> None:
    """Run an instance on a node that is told the secret."""
    journey.tokens["node"] = await enroll(journey)
    await journey.do("node.set_capacity", memory_bytes=GIB)
    await journey.do("node.set_state", state="active")
    await journey.do("instance.allocate", process="web")
    revealed = await journey.do("secret.reveal", "node")
    assert find(str(revealed), journey.canaries.of("secret")), "the node is told"
    await journey.do("instance.report_status", "node", status="booting", leave_out=("endpoints",))


async def clear(journey: Journey) -> None:
    """Delete what can be deleted, in things of their own."""
    kept = dict(journey.known)
    await journey.do("instance.set_desired_state", desired_state="stopped")
    for command in ("project.create", "app.create", "env.create", "secret.set", "secret.delete"):
        await journey.do(command)
    for command in ("env.delete", "app.delete", "project.delete"):
        await journey.do(command)
    await enroll(journey)
    await journey.do("node.remove")
    journey.known |= kept
    await journey.do("route.delete")
    for command in ("org.remove_member", "org.erase_member"):
        await journey.do("org.add_member", role="readonly")
        await journey.do("org.issue_credential")
        await journey.do("org.change_member_role", role="developer")
        if command == "org.remove_member":
            await journey.do("org.revoke_credential")
        await journey.do(command)
    await journey.do("principal.create", scopes=["audit:read"])
    await journey.do("principal.issue_credential")
    await journey.do("principal.revoke_credential")
    await journey.do("principal.delete")
    journey.known |= kept


async def misuse(journey: Journey) -> None:
    """Send every command in every wrong way: unfit, by who may not, on what is not there, and twice."""
    absent = {name: f"{value.partition('_')[0]}_{'0' * 26}" for name, value in journey.known.items()}
    for command in journey.maker.schemas:
        body = journey.maker.make(command, journey.known)
        for spoilt in spoil(body, journey.canaries, command):
            await journey.send("operator", command, spoilt)
        await journey.send("operator", command, body, cut=-2)
        for who in ("nobody", "foreign", "readonly", "node", "garbage"):
            await journey.send(who, command, journey.maker.make(command, journey.known))
        await journey.send("operator", command, journey.maker.make(command, absent))
        for header in ("Keelson-Reason", "Keelson-Correlation-Id", "Idempotency-Key", "If-Match", "Keelson-Other"):
            core = journey.canaries.plant("secret", f"{header} of {command}")
            await journey.send("operator", command, body, {header: core + "é" * 600})
        core = journey.canaries.plant("secret", f"an Authorization of {command}")
        for wrong in (core, f"Basic {core}", f"Bearer {core}", f"Bearer kls_{core}", f"Bearer {core}, Bearer {core}"):
            await journey.send("nobody", command, body, {"Authorization": wrong})
    # Names and the quota are taken; a key is used for something else.
    for command, known in (("project.create", {"name": "taken"}), ("org.add_member", {}), ("org.create", {})):
        body = journey.maker.make(command, journey.known) | known
        if "role" in body:
            body["role"] = "readonly"
        key = {"Idempotency-Key": "the-same"}
        answers = [(await journey.send("operator", command, body)).status for _ in range(3)]
        assert set(answers) <= {200, 409, 422}, answers
        await journey.send("operator", command, body, key)
        await journey.send("operator", command, journey.maker.make(command, journey.known), key)


def paths(known: Mapping[str, str]) -> Iterator[str]:
    """Give every read, of what is known."""
    for template in READS:
        noun = template.split("/")[2].removesuffix("s")
        yield template.replace("{aggregate_id}", known["env_id"]).replace("{id}", known.get(f"{noun}_id", "none"))


async def read(journey: Journey) -> None:
    """Read everything as everybody, and with parameters that do not fit."""
    url = journey.stack.queries[0].url
    for who in ("operator", "owner", "developer", "readonly", "foreign", "node", "nobody", "garbage"):
        for path in paths(journey.known):
            await journey.ask(who, "GET", f"{url}{path}", {})
    for path in paths(journey.known):
        core = journey.canaries.plant("secret", f"a parameter of {path}")
        for query in (
            f"limit={core}",
            f"cursor={core}",
            f"after={core}",
            f"name={core}",
            f"order={core}",
            f"%zz{core}",
        ):
            await journey.ask("owner", "GET", f"{url}{path}?{query}", {})
        await journey.ask("owner", "GET", f"{url}{path}", {"If-None-Match": core, "Prefer": f"wait={core}"})


async def repeat(journey: Journey) -> None:
    """Send every command and every read once more, fitting as they are."""
    for command in journey.maker.schemas:
        await journey.send("operator", command, journey.maker.make(command, journey.known))
    for path in paths(journey.known):
        await journey.ask("owner", "GET", f"{journey.stack.queries[0].url}{path}", {})


async def read_metrics(journey: Journey) -> str:
    """Give the metrics of all processes."""
    texts = []
    for process in journey.stack:
        async with journey.session.get(f"{process.url}/metrics") as response:
            texts.append(await response.text())
    return "\n".join(texts)


async def break_people(database: Database) -> None:
    """Let the database refuse whoever is new, quoting who it is."""
    connection = await connect(database.admin_dsn, application_name="keelson-tests")
    try:
        await connection.execute(
            "ALTER TABLE vault.people ADD CONSTRAINT nobody_new CHECK (email NOT LIKE '%@person.example') NOT VALID"
        )
    finally:
        await connection.close()


def dump(cluster: Cluster, database: Database) -> str:
    """Give the whole database as pg_dump writes it."""
    beside = cluster.server.binaries / "pg_dump"
    program = str(beside) if beside.exists() else shutil.which("pg_dump")
    assert program, "there is no pg_dump"
    done = subprocess.run([program, database.admin_dsn], capture_output=True, text=True, timeout=60, check=True)  # noqa: S603
    return done.stdout


def without_people(dumped: str) -> str:
    """Give a dump without the rows of people."""
    return re.sub(r"^COPY vault\.people .*?^\\\.$", "", dumped, flags=re.DOTALL | re.MULTILINE)


@dataclass
class Evidence:
    """All that came of a journey."""

    journey: Journey
    logs: str
    metrics: str
    dump: str

    def of_members(self, *roles: str) -> str:
        """Give what those of some names were told by reads."""
        return "\n".join(each.body for each in self.journey.told if each.who in roles and each.path.startswith("GET"))


def leaks(evidence: Evidence) -> dict[str, set[str]]:
    """Name what was found where it must not be, by channel."""
    canaries, told = evidence.journey.canaries, evidence.journey.told
    everything, hidden = canaries.planted, canaries.of("secret", "personal")
    refused = "\n".join(each.body for each in told if each.status >= 400)
    foreign = [each for each in canaries.of("text", "name", "personal", "secret") if not is_foreign(each, evidence)]
    # Whoever asks is told who it is itself.
    others = [each for each in hidden if each.core not in own_person(evidence)]
    read_by_all = "\n".join(each.body for each in told if each.path.startswith("GET"))
    return {
        "log": find(evidence.logs, everything),
        "metric": find(evidence.metrics, everything),
        "problem": find(refused, canaries.of("secret", "personal", "text")),
        "read by strangers": find(evidence.of_members("foreign", "nobody", "garbage"), foreign),
        "read by members": find(evidence.of_members("developer", "readonly", "node"), others),
        "read at all": find(read_by_all, canaries.of("secret")),
        "dump": find(evidence.dump, canaries.of("secret")) | find(without_people(evidence.dump), hidden),
    }


def is_foreign(canary: Canary, evidence: Evidence) -> bool:
    """Whether a canary stands in what the foreign owner may see of its own organisation, by the operator's reading."""
    return canary.core in evidence.journey.known["foreign canaries"]


def own_person(evidence: Evidence) -> str:
    """Give what developer and readonly are told of themselves."""
    return evidence.journey.known["own canaries"]


async def note_exceptions(journey: Journey) -> None:
    """Note which canaries the foreign organisation, and the members who read, have of their own."""
    connection = await connect(journey.stack.database.admin_dsn, application_name="keelson-tests")
    try:
        events = await connection.fetch(
            "SELECT e::text FROM log.events AS e WHERE org_id IS DISTINCT FROM $1", journey.known["org_id"]
        )
        people = await connection.fetch("SELECT p.email || coalesce(p.name, '') FROM vault.people AS p")
    finally:
        await connection.close()
    journey.known["foreign canaries"] = " ".join(row[0] for row in events) + people[0][0]
    journey.known["own canaries"] = " ".join(row[0] for row in people[2:4])


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    """Start a server of its own: it gets killed."""
    with running_cluster() as cluster:
        yield cluster


@asynccontextmanager
async def begun(
    cluster: Cluster, database: Database, folder: Path, environ: Mapping[str, str]
) -> AsyncIterator[Journey]:
    """Start everything, with an operator that was made by `keelson bootstrap`."""
    canaries = Canaries()
    operator = (await run_cli(database.command_dsn, "bootstrap")).said[1]
    canaries.note_token("keelson bootstrap", operator)
    async with (
        running_stack(
            cluster, database, folder, environ_of=lambda _: environ, log_level="debug", **IMPATIENT, **UNLIMITED
        ) as stack,
        aiohttp.ClientSession() as session,
    ):
        canaries.note_token("the operator of the settings", stack.operator_token)
        headers = {"Authorization": f"Bearer {operator}"}
        async with session.get(f"{stack.commands[0].url}/v1/commands", headers=headers) as response:
            items = (await response.json())["items"]
        garbage = canaries.plant("secret", "a token that is none")
        maker = Maker({item["name"]: item["schema"] for item in items}, canaries)
        yield Journey(stack, session, maker, canaries, {"operator": operator, "nobody": None, "garbage": garbage})


async def travel(cluster: Cluster, folder: Path, environ: Mapping[str, str]) -> Evidence:
    """Send everything, and gather all that came of it."""
    async with cluster.fresh_database() as database, begun(cluster, database, folder, environ) as journey:
        await settle(journey)
        await note_exceptions(journey)
        await clear(journey)
        assert journey.done == journey.maker.schemas.keys(), "every command succeeded once"
        await misuse(journey)
        await read_when_caught_up(database)
        await read(journey)
        dumped = await asyncio.to_thread(dump, cluster, database)
        await break_people(database)
        await repeat(journey)
        await journey.stack.kill_database()
        await repeat(journey)
        metrics = await read_metrics(journey)
        await journey.stack.restart_database()
        await journey.stack.wait_until_ready()
        processes = list(journey.stack)
    files = [process.log for process in processes]
    logs = "\n".join(file.read_text() for file in files)
    return Evidence(journey, logs, metrics, dumped)


def assert_thorough(evidence: Evidence) -> None:
    """Hold the journey to have been where leaks would be, and canaries to be found where they belong."""
    journey, canaries = evidence.journey, evidence.journey.canaries
    assert {
        (path.split(" ")[0], path.split(" ")[1].split("/")[0])
        for path, kind in journey.maker.fields.items()
        if kind == "secret"
    } == SECRET_FIELDS
    assert {
        tuple(path.split(" ")) for path, kind in journey.maker.fields.items() if kind == "personal"
    } == PERSONAL_FIELDS
    assert {200, 400, 401, 403, 404, 409, 422, 500, 503} <= journey.statuses.keys()
    assert all(
        words in evidence.logs for words in ("request_failed", "decision_refused", "database_unavailable", REQUEST_ID)
    )
    assert "Traceback" in evidence.logs
    assert find(evidence.dump, canaries.of("text")), "events are in a dump"
    shown_once = ("token", "credential", "values")
    assert all(re.search(rf'"{name}": ?null', evidence.dump) for name in shown_once), "answers are kept without"
    assert find(evidence.dump, canaries.of("personal")), "people are in the vault"
    assert find(evidence.of_members("owner"), canaries.of("personal")), "an owner sees who members are"
    assert find(evidence.of_members("developer"), canaries.of("text")), "members see what is written"
    assert find(evidence.of_members("foreign"), canaries.planted), "everybody sees their own"


async def test_f43_a_canary_is_found_where_it_belongs_and_nowhere_else(own_cluster: Cluster, tmp_path: Path) -> None:
    evidence = await travel(own_cluster, tmp_path, {})
    assert_thorough(evidence)
    found = {channel: names for channel, names in leaks(evidence).items() if names}
    assert not found
    server = own_cluster.server.log.read_text()
    assert "FATAL" in server or "ERROR" in server
    assert not find(server, evidence.journey.canaries.planted)


async def test_planted_leaks_are_found_in_every_channel(own_cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(PLANTED_LEAKS)
    evidence = await travel(own_cluster, tmp_path, {"PYTHONPATH": str(tmp_path)})
    found = leaks(evidence)
    for channel in ("log", "metric", "problem", "read at all", "read by members", "dump"):
        assert found[channel], channel
