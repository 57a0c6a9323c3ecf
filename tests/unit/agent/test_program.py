"""The agent as a program, as far as it gets without a control plane."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

LEAST = {"KEELSON_COMMAND_URL": "http://127.0.0.1:1", "KEELSON_QUERY_URL": "http://127.0.0.1:1"}


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return run_into(subprocess.PIPE, *arguments, **environ)


def run_into(stdout: int | IO[bytes], *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own module
        [sys.executable, *arguments],
        env={"PATH": os.environ["PATH"], **environ},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


def test_on_another_system_it_says_that_it_needs_linux() -> None:
    code = (
        "import runpy, sys\n"
        "sys.platform = 'win32'\n"
        "sys.modules['fcntl'] = None\n"
        "runpy.run_module('keelson.agent', run_name='__main__')"
    )
    ended = run("-c", code)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("keelson: the node agent runs on Linux alone")


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        ((), {}, "KEELSON_STATE"),
        (("stop",), {"KEELSON_STATE": "state"}, "usage"),
        ((), {"KEELSON_STATE": "state"}, "KEELSON_ENROLLMENT_TOKEN must be set"),
        ((), {"KEELSON_STATE": "state", "KEELSON_LABELS": "zone"}, "KEELSON_LABELS"),
    ],
)
def test_what_must_be_mended_is_said_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], environ: dict[str, str], said: str
) -> None:
    environ = {name: str(tmp_path / text) if name == "KEELSON_STATE" else text for name, text in environ.items()}
    ended = run("-m", "keelson.agent", *arguments, **LEAST, **environ)
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert said in line


def test_there_is_nothing_to_end_of_a_node_that_never_was(tmp_path: Path) -> None:
    ended = run("-m", "keelson.agent", "end", **LEAST, KEELSON_STATE=str(tmp_path / "state"))
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [(), ("end",)])
def test_once_it_has_enrolled_the_file_of_the_token_may_be_gone(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    gone = {"KEELSON_ENROLLMENT_TOKEN_FILE": str(tmp_path / "gone"), "KEELSON_STATE": str(tmp_path)}
    ended = run("-m", "keelson.agent", *arguments, **LEAST, **gone)
    assert ended.returncode == 2
    assert "KEELSON_ENROLLMENT_TOKEN_FILE" in ended.stderr
    (tmp_path / "node.json").write_text('{"node_id": "node_1", "credential": "kls_x", "name": "one"}')
    (tmp_path / "desired.json").write_text("{")  # as far as it gets here
    ended = run("-m", "keelson.agent", *arguments, **LEAST, **gone)
    assert "TOKEN" not in ended.stderr
    assert ended.returncode == (0 if arguments else 2)
    assert arguments or "desired.json" in ended.stderr


def test_a_log_that_cannot_be_written_ends_nothing_and_is_no_exit_code(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text('{"node_id": "node_1", "credential": "kls_x", "name": "one"}')
    (tmp_path / "instances" / "instance_1").mkdir(parents=True)  # says nothing, and is given up
    (tmp_path / "instances" / "instance_1" / "instance.json").write_text("{}")
    with Path("/dev/full").open("wb") as full:
        ended = run_into(full, "-m", "keelson.agent", "end", **LEAST, KEELSON_STATE=str(tmp_path), KEELSON_STATES="")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not list((tmp_path / "instances").iterdir())


def test_a_node_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text("{")
    ended = run("-m", "keelson.agent", **LEAST, KEELSON_STATE=str(tmp_path))
    assert ended.returncode == 2
    assert "node.json" in ended.stderr
