"""`keelson.client.commands` and `.reads`: typed methods for all that the services declare, generated from them."""

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from keelson.local.client_code.commands import command_sources
from keelson.local.client_code.reads import is_no_command, read_sources
from keelson.local.client_code.source import Source

PACKAGE = Path(__file__).parents[5] / "libs" / "client" / "keelson" / "client"
FOLDERS = ("commands", "reads")


def client_files() -> dict[Path, str]:
    """Give the text of every generated file, as it is committed."""
    # By name, as the supervisor runs them: nothing here imports a service.
    handlers = import_module("keelson.command.registry").HANDLERS
    posted = import_module("keelson.command.routes").OPERATIONS
    read = [endpoint.operation for endpoint in import_module("keelson.query.app").endpoints()]
    sources = [*command_sources(handlers), *read_sources([*read, *filter(is_no_command, posted)])]
    return {_path(source): _formatted(source) for source in sources}


def write_client() -> None:
    """Write all anew; a module whose aggregate or collection is gone goes too."""
    files = client_files()
    for folder in FOLDERS:
        shutil.rmtree(PACKAGE / folder, ignore_errors=True)
        (PACKAGE / folder).mkdir()
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")


def _path(source: Source) -> Path:
    return PACKAGE.joinpath(*source.name.split(".")[2:]).with_suffix(".py")


def _formatted(source: Source) -> str:
    """Format a module as all code here is."""
    path = _path(source)
    command = [sys.executable, "-m", "ruff", "format", "--quiet", "--stdin-filename", str(path), "-"]
    formatted = subprocess.run(  # noqa: S603 - what it is given is source.text(), on its standard input
        command, input=source.text(), capture_output=True, text=True, check=True, cwd=PACKAGE
    )
    return formatted.stdout
