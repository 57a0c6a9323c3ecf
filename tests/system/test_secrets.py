"""No service ever prints a secret: each as a real process at level debug, with each secret wrong in every way there is.

A canary is whatever a test put where a secret belongs; all that a process wrote is searched for it, and what HTTP says.
"""

import asyncio
import base64
import os
import re
import secrets
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import aiohttp
import msgspec
import pytest

from keelson.local.child import Child
from keelson.local.settings_document import declared
from keelson.settings import is_secret, variable_of
from support.database import Database
from support.keys import SEALING
from support.waiting import eventually, free_port

CANARY = "c4n@ry/b1rd#%20"
SERVICES = ("command", "query", "projector")
SECRETS = [
    (service, field.name)
    for service in SERVICES
    for field in msgspec.structs.fields(declared()[service])
    if is_secret(field.type)
]
# A password is refused beside the one that the URL holds, a token and a secret for being short.
WRONG = {
    "url": f"postgresql://keelson:{CANARY}@127.0.0.1:1/keelson",
    "password": CANARY,
    "token": CANARY,
    "secret": CANARY,
    "keys": CANARY,
    "key": CANARY,
}


class Ended(NamedTuple):
    """How a process ended, and all that it wrote."""

    code: int
    written: str


def assert_silent(written: str, *canaries: str) -> None:
    """Hold what was written to hold no canary, nor a part of one, nor one in another coding."""
    for canary in canaries:
        forms = {canary, quote(canary, safe=""), quote(canary), base64.b64encode(canary.encode()).decode().rstrip("=")}
        forms |= {part for part in re.split(r"\W+", canary) if len(part) > 3}
        assert not [form for form in forms if form in written], written


def environ_of(service: str, database: Database, **settings: str | Path) -> dict[str, str]:
    """Give the environment of a service that would work, but for these settings; an empty one is left out."""
    given: dict[str, object] = {
        "database_url": getattr(database, f"{service}_dsn"),
        "port": free_port(),
        "operator_token": secrets.token_urlsafe(24),
        "log_level": "debug",
        **({"idempotency_secret": secrets.token_urlsafe(24), **SEALING} if service == "command" else {}),
        **settings,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KEELSON_")}
    return inherited | {variable_of(name): str(value) for name, value in given.items() if str(value)}


async def run(service: str, environ: Mapping[str, str]) -> Ended:
    """Run a service that ends by itself."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"keelson.{service}", env=environ, stdout=PIPE, stderr=STDOUT
    )
    try:
        async with asyncio.timeout(60):
            written, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return Ended(process.returncode, written.decode())


@asynccontextmanager
async def running(service: str, environ: Mapping[str, str], log: Path) -> AsyncIterator[str]:
    """Run a service that writes to a file until the body ends, asked to stop; lend its URL once it answers."""
    child = Child(service, f"keelson.{service}", environ, log)
    await child.start()
    try:
        await eventually(lambda: _is_up(child.url), 60)
        yield child.url
    finally:
        await child.stop()


def says(log: Path, words: str) -> bool:
    """Whether these words were logged."""
    return words in log.read_text()


async def _is_up(url: str) -> bool:
    return "up" in await ask(url, "/healthz")


async def ask(url: str, path: str, token: str = "") -> str:
    """Give an answer's body."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        async with aiohttp.ClientSession() as session, session.get(url + path, headers=headers) as response:
            return await response.text()
    except aiohttp.ClientConnectionError as error:
        raise ConnectionError from error


@pytest.mark.parametrize(("service", "setting"), SECRETS)
async def test_a_secret_that_is_refused_is_named_and_not_shown(
    service: str, setting: str, database: Database, tmp_path: Path
) -> None:
    value = WRONG[setting.rpartition("_")[2]]
    (tmp_path / "text").write_text(f"{value}\n")
    (tmp_path / "binary").write_bytes(value.encode() + b"\xff")
    ways: list[dict[str, str]] = [
        {setting: value},
        *({setting: "", f"{setting}_file": str(tmp_path / name)} for name in ("text", "binary")),
    ]
    environs = [environ_of(service, database, **way) for way in ways]
    for ended in await asyncio.gather(*(run(service, each) for each in environs)):
        assert ended.code == 2, ended
        assert re.fullmatch(rf"keelson: wrong settings: {variable_of(setting)}(_FILE)?: [^\n]+\n", ended.written), ended
        assert_silent(ended.written, CANARY)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_password_that_the_server_refuses_is_not_shown_while_the_service_waits(
    service: str, database: Database, tmp_path: Path
) -> None:
    role, _, rest = getattr(database, f"{service}_dsn").rpartition("@")
    bare = f"{role.rpartition(':')[0]}@{rest}"
    encoded = f"{role.rpartition(':')[0]}:{quote(CANARY, safe='')}@{rest}"
    (tmp_path / "password").write_text(CANARY)
    ways = {
        "in the URL": environ_of(service, database, database_url=encoded),
        "in a file": environ_of(service, database, database_url=bare, database_password_file=tmp_path / "password"),
    }
    for way, environ in ways.items():
        log = tmp_path / way
        async with running(service, environ, log) as url:
            await eventually(partial(says, log, "password authentication failed"), 30)
            answers = [await ask(url, path) for path in ("/readyz", "/metrics", "/openapi.json", "/status", "/v1/orgs")]
        assert "the database cannot be reached" in answers[0]
        assert_silent(log.read_text() + "".join(answers), CANARY, environ["KEELSON_OPERATOR_TOKEN"])


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_that_works_shows_none_of_its_secrets(service: str, database: Database, tmp_path: Path) -> None:
    """Its listener may not log in, and clients come with tokens that are right, wrong and no tokens."""
    role, _, rest = getattr(database, f"{service}_dsn").rpartition("@")
    password = role.rpartition(":")[2]
    listening = f"{role.rpartition(':')[0]}:{quote(CANARY, safe='')}@{rest}"
    environ = environ_of(service, database, listen_database_url=listening, pool_sze="3")
    token, log = environ["KEELSON_OPERATOR_TOKEN"], tmp_path / "log"
    async with running(service, environ, log) as url:
        await eventually(partial(says, log, "service_serving"), 30)
        await eventually(partial(says, log, "listener_lost"), 30)
        paths = (
            "/readyz",
            "/metrics",
            "/openapi.json",
            "/status",
            "/v1/orgs",
            "/v1/events",
            "/v1/commands",
            "/nothing",
        )
        answers = [await ask(url, path, sent) for path in paths for sent in (token, f"{token}x", CANARY, "")]
    written = log.read_text()
    assert "request_served" in written
    assert [msgspec.json.decode(line) for line in written.splitlines()], "it is JSON, all of it"
    [unknown] = [line for line in written.splitlines() if "setting_unknown" in line]
    assert '"variable":"KEELSON_POOL_SZE"' in unknown
    assert '"meant":"KEELSON_POOL_SIZE"' in unknown
    known = [token, password, environ.get("KEELSON_IDEMPOTENCY_SECRET", CANARY)]
    assert_silent(written + "".join(answers), CANARY, *known)


def test_a_canary_that_is_shown_in_whatever_form_is_found() -> None:
    for shown in (CANARY, quote(CANARY, safe=""), base64.b64encode(CANARY.encode()).decode(), "port 'b1rd'"):
        with pytest.raises(AssertionError):
            assert_silent(f"the password is {shown}", CANARY)
    assert_silent("the password is not shown", CANARY)
