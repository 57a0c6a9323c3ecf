"""The state folder: whole files, for the owner alone, for one agent at a time."""

import os
import stat
from pathlib import Path

import msgspec
import pytest

from keelson.agent.state import Attempt, DesiredFile, NodeFile, StateError, StateFolder
from support.instances import wanted

NODE = NodeFile(node_id="node_1", credential="kls_the-canary", name="one")
DESIRED = DesiredFile(cursor="abc-7", version=7, digest="d", position=9, items=(wanted(1), wanted(2)))


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "deep" / "state") as folder:
        assert (folder.read_node(), folder.read_desired(), folder.read_attempt()) == (None, None, None)
        attempt = Attempt(idempotency_key="k", token_digest="d")
        folder.write_attempt(attempt)
        assert folder.read_attempt() == attempt
        folder.write_node(NODE)
        folder.write_desired(DESIRED)
    with StateFolder(tmp_path / "deep" / "state") as folder:
        assert (folder.read_node(), folder.read_desired(), folder.read_attempt()) == (NODE, DESIRED, None)
    assert DESIRED.epoch == "abc"


def test_everything_is_for_the_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with StateFolder(tmp_path / "state") as folder:
            folder.write_node(NODE)
            folder.write_desired(DESIRED)
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "state", *(tmp_path / "state").iterdir()]}
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items()), modes


def test_one_agent_at_a_time(tmp_path: Path) -> None:
    with StateFolder(tmp_path), pytest.raises(StateError, match="an agent that runs"), StateFolder(tmp_path):
        pass
    with StateFolder(tmp_path):
        pass


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="file"), StateFolder(tmp_path / "file"):
        pass


def test_what_cannot_be_read_is_named_and_not_taken_for_nothing(tmp_path: Path) -> None:
    with StateFolder(tmp_path) as folder:
        (tmp_path / "node.json").write_text('{"node_id": "kls_the-canary"')
        with pytest.raises(StateError, match=r"node\.json") as error:
            folder.read_node()
        assert "canary" not in str(error.value)


class CutError(Exception):
    """The machine ends here."""


@pytest.mark.parametrize("at", ["fsync", "rename"])
def test_after_a_crash_there_is_the_old_file_or_the_new_one(
    tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise CutError

    with StateFolder(tmp_path) as folder:
        folder.write_desired(DESIRED)
        if at == "fsync":
            monkeypatch.setattr(os, "fsync", cut)
        else:
            monkeypatch.setattr(Path, "replace", cut)
        with pytest.raises(CutError):
            folder.write_desired(msgspec.structs.replace(DESIRED, version=8))
        assert folder.read_desired() == DESIRED


def test_it_is_on_disk_before_it_is_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real_sync(handle)

    def replace(path: Path, target: Path) -> Path:
        done.append("rename")
        return real_replace(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    with StateFolder(tmp_path) as folder:
        folder.write_desired(DESIRED)
    assert done == ["file", "rename", "folder"]


def test_the_credential_is_not_shown() -> None:
    assert "canary" not in repr(NODE)
