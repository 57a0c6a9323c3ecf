"""What `make run` and `make demo` are made of, piece by piece."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from keelson.access.tokens import is_token
from keelson.command.sealing import read_keys
from keelson.local.child import service_environ
from keelson.local.database import with_role
from keelson.local.demo.terminal import WIDTH, table
from keelson.local.errors import LocalError
from keelson.local.files import write_private
from keelson.local.home import Dev, Home
from keelson.local.instances import end_instances
from keelson.local.process import Identity, end_process
from keelson.local.settings import DEFAULT_PORTS, Settings

PROGRAM = "import time; print('up', flush=True); time.sleep(60)"
HEEDLESS = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
# Heeds no SIGTERM either, and has a child in a session of its own.
STUBBORN = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print("up", flush=True)
signal.pause()
"""


def test_an_identity_names_one_process_and_not_its_heir() -> None:
    own = Identity.read(os.getpid())
    assert own is not None
    assert own.is_running()
    heir = Identity(own.pid, own.started + "1")
    assert not heir.is_running()
    heir.signal(signal.SIGKILL)
    assert own.is_running()


def test_an_ended_process_has_no_identity() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE) as process:  # noqa: S603 - our own
        assert process.stdout is not None
        process.stdout.readline()  # just after exec the kernel may not know the arguments yet
        identity = Identity.read(process.pid)
        assert identity is not None
        assert identity.command_line()[1:3] == [b"-c", PROGRAM.encode()]
        assert end_process(identity, signal.SIGTERM, grace_s=5.0)
        assert Identity.read(process.pid) is None
        assert not identity.is_running()


def test_settings_have_defaults() -> None:
    settings = Settings.load({})
    assert settings.home == Path(".keelson").resolve()
    assert settings.ports() == {f"KEELSON_{name.upper()}_PORT": port for name, port in DEFAULT_PORTS.items()}


def test_all_wrong_settings_are_told_at_once() -> None:
    environ = {
        "KEELSON_COMMAND_PORT": "x",
        "KEELSON_QUERY_PORT": "70000",
        "KEELSON_PROJECTOR_PORT": "15432",
        "KEELSON_DATABASE_URL": "mysql://it",
    }
    with pytest.raises(LocalError) as caught:
        Settings.load(environ)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert "KEELSON_PROJECTOR_PORT and KEELSON_DATABASE_PORT are both 15432" in lines


def test_a_foreign_database_needs_no_port() -> None:
    settings = Settings.load({"KEELSON_DATABASE_URL": "postgresql://owner@db.example/keelson"})
    assert "KEELSON_DATABASE_PORT" not in settings.ports()


def test_another_role_changes_nothing_else_of_a_url() -> None:
    url = "postgresql://owner:old@db.example:5432/keelson?sslmode=require"
    assert with_role(url, "reader", "p@ss/word") == (
        "postgresql://reader:p%40ss%2Fword@db.example:5432/keelson?sslmode=require"
    )


def test_a_service_sees_its_own_settings_and_none_of_the_supervisors() -> None:
    inherited = {"PATH": "/bin", "KEELSON_HOME": "/home", "KEELSON_DATABASE_URL": "x", "KEELSON_LOG_LEVEL": "debug"}
    inherited |= {"KEELSON_PORT_FILE": "x", "KEELSON_DATABASE_PASSWORD_FILE": "x"}
    environ = service_environ(inherited, port=1234, database_url="y")
    assert environ == {
        "PATH": "/bin",
        "KEELSON_LOG_LEVEL": "debug",
        "KEELSON_PORT": "1234",
        "KEELSON_DATABASE_URL": "y",
        "PYTHONUNBUFFERED": "1",
    }


def test_a_private_file_is_replaced_whole_and_stays_private(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_secrets_are_made_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = home.read_or_make_secrets(("keelson", "keelson_query"))
    assert home.read_or_make_secrets(("keelson",)) == first
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600
    made = {
        first.operator_token,
        first.scheduler_token,
        first.idempotency_secret,
        first.secret_keys,
        first.digest_key,
    }
    assert len(made | set(first.passwords.values())) == 7


def test_a_home_of_an_earlier_version_gets_what_it_lacks_and_keeps_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    earlier = {"operator_token": "token", "idempotency_secret": "secret", "passwords": {"keelson": "password"}}
    (tmp_path / "secrets.json").write_bytes(msgspec.json.encode(earlier))
    first = home.read_or_make_secrets(("keelson",))
    assert (first.idempotency_secret, first.passwords) == ("secret", {"keelson": "password"})
    assert is_token(first.operator_token), "one of another form is nobody's"
    assert is_token(first.scheduler_token)
    assert read_keys(first.secret_keys)
    assert home.read_or_make_secrets(("keelson",)) == first


def test_what_a_node_runs_is_ended_with_its_children_and_what_is_of_another_is_not(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text('{"node_id": "node_1", "credential": "unread"}')
    with started("node_1", STUBBORN) as stubborn, started("node_2", PROGRAM) as other:
        assert end_instances(tmp_path, grace_s=0.2) == 2
        assert stubborn.wait(1.0) == -signal.SIGKILL
        assert not list(processes_told("KEELSON_NODE_ID=node_1"))
        assert other.poll() is None
        assert end_instances(tmp_path) == 0
    assert end_instances(tmp_path / "of nobody") == 0


def test_the_grace_is_of_all_that_a_node_runs_together(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text('{"node_id": "node_3"}')
    with ExitStack() as running:
        for _ in range(10):
            running.enter_context(started("node_3", HEEDLESS))
        began = time.monotonic()
        assert end_instances(tmp_path, grace_s=1.0) == 10
        assert time.monotonic() - began < 5.0, "one after the other it takes ten seconds"
        assert not list(processes_told("KEELSON_NODE_ID=node_3"))


@contextmanager
def started(node_id: str, program: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of a node until it says that it is up."""
    with subprocess.Popen(  # noqa: S603 - our own
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env={**os.environ, "KEELSON_NODE_ID": node_id}
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            yield process
        finally:
            process.kill()


def processes_told(variable: str) -> Iterator[str]:
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if variable in file.read_text(errors="replace").split("\0"):
                yield file.parent.name


def test_a_home_has_one_owner_at_a_time(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with home.locked():
        home.note_running("supervisor", Identity.read(os.getpid()))
        with pytest.raises(LocalError, match=f"pid {os.getpid()}"), Home(home.folder).locked():
            pass
    with home.locked():
        pass


def test_dev_is_read_back_and_missed_in_plain_words(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(LocalError, match="make run"):
        home.read_dev()
    dev = Dev("http://c", "http://q", "http://p", "token", "postgresql://d")
    home.write_dev(dev)
    assert home.read_dev() == dev
    home.remove_dev()
    home.remove_dev()


def test_a_table_is_aligned_and_wraps_its_last_column() -> None:
    lines = table(("at", "why"), [(1, "short"), (1000, "long " * 40), (2, None)]).splitlines()
    assert lines[0] == "at    why"
    assert lines[1] == "1     short"
    assert lines[2].startswith("1000  long long")
    assert lines[3].startswith("      long")
    assert lines[-1] == "2     -"
    assert max(map(len, lines)) <= WIDTH
