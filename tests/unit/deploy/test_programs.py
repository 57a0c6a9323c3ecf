"""The small programs that images and the compose stack run: secrets, health, and what belongs into an image."""

import http.server
import os
import runpy
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from keelson.access.tokens import is_token
from keelson.command.sealing import read_keys
from support.repository import ROOT


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Lend the program's names; who is given which file is noted, since only root may give files away."""
    program = runpy.run_path(str(ROOT / "deploy/compose/make_secrets.py"))
    program["given"] = {}
    monkeypatch.setattr(os, "chown", lambda file, uid, gid: program["given"].update({file: (uid, gid)}))
    return program


def contents(folder: Path) -> dict[str, str]:
    """Give what every file below a folder holds."""
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_each_container_finds_what_is_its_own_and_nobody_else_can_read_it(
    secrets: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets["make_secrets"](tmp_path)
    made = contents(tmp_path)
    assert made["migrate/keelson_command"] == made["command/database_password"]
    assert made["migrate/owner_password"] == made["postgres/owner_password"]
    assert made["bootstrap/operator_token"] == made["projector/operator_token"]
    assert is_token(made["bootstrap/operator_token"])
    of_roles = {made[f"{service}/database_password"] for service in ("command", "projector", "query")}
    assert len(of_roles | {made["postgres/superuser_password"], made["postgres/owner_password"]}) == 5
    assert {name for name in made if name.startswith("query/")} == {"query/database_password"}
    assert {name for name in made if name.startswith("scheduler/")} == {"scheduler/token"}
    assert made["scheduler/token"] == made["scheduler-principal/operator_token"] != made["bootstrap/operator_token"]
    assert is_token(made["scheduler/token"])
    assert min(map(len, (text for name, text in made.items() if name != "complete"))) >= 40
    files = [path for path in tmp_path.rglob("*/*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o400}
    owners = {path: secrets["given"][path] for path in files}
    assert {path.parent.name for path, owner in owners.items() if owner == (999, 999)} == {"postgres"}
    assert set(owners.values()) == {(999, 999), (10001, 10001)}
    assert capsys.readouterr() == ("", "")


def test_secrets_that_are_complete_are_kept_and_half_of_them_are_made_anew(
    secrets: dict[str, Any], tmp_path: Path
) -> None:
    secrets["make_secrets"](tmp_path)
    first = contents(tmp_path)
    secrets["make_secrets"](tmp_path)
    assert contents(tmp_path) == first
    (tmp_path / "complete").unlink()
    secrets["make_secrets"](tmp_path)
    second = contents(tmp_path)
    assert second.keys() == first.keys()
    assert read_keys(second["command/secret_keys"]) != read_keys(first["command/secret_keys"])
    assert second["migrate/keelson_query"] == second["query/database_password"] != first["query/database_password"]


def test_a_stack_of_an_earlier_version_gets_what_it_lacks_and_a_token_that_a_credential_can_have(
    secrets: dict[str, Any], tmp_path: Path
) -> None:
    secrets["make_secrets"](tmp_path)
    first = contents(tmp_path)
    for file in [*(tmp_path / "bootstrap").iterdir(), tmp_path / "command/secret_keys"]:
        file.unlink()
    for name in ("command", "query", "projector"):
        (tmp_path / name / "operator_token").unlink(missing_ok=True)
        (tmp_path / name / "operator_token").write_text("of another form, made by the version before")
    secrets["make_secrets"](tmp_path)
    second = contents(tmp_path)
    assert second.keys() == first.keys()
    changed = {name for name in first if second[name] != first[name]}
    assert changed == {"bootstrap/operator_token", "projector/operator_token", "command/secret_keys"}
    assert is_token(second["bootstrap/operator_token"])
    assert second["bootstrap/operator_token"] == second["projector/operator_token"]


class Readiness(http.server.BaseHTTPRequestHandler):
    """A service that answers what it is told to."""

    protocol_version = "HTTP/1.1"
    status = 200

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_a_container_is_healthy_when_its_service_is_ready(
    status: int, healthy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Readiness, "status", status)
    is_ready = runpy.run_path(str(ROOT / "deploy/image/healthcheck.py"))["is_ready"]
    with http.server.HTTPServer(("127.0.0.1", 0), Readiness) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert is_ready(server.server_port) is healthy
        finally:
            server.shutdown()
            thread.join()
    assert not is_ready(server.server_port)


def test_an_image_gets_the_libraries_that_its_service_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    members_of = runpy.run_path("deploy/image/members.py")["members_of"]
    services = ("cli", "query", "scheduler")
    names = {service: {path.name for path in members_of(Path("services") / service)} for service in services}
    assert names["cli"] == {"cli", "access", "events", "log", "settings"}
    assert names["scheduler"] == {"scheduler", "access", "client", "events", "log", "service", "settings"}
    assert names["query"] == {"query", "access", "events", "log", "service", "settings", "views"}
