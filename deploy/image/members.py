"""Print the folders of a service and of the libraries that it needs: what its image installs of this repository."""

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PREFIX = "keelson-"


def members_of(folder: Path) -> Iterator[Path]:
    """Give a member of the workspace, and those that it needs, through others too; some more than once."""
    yield folder
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in project["dependencies"]:
        if requirement.startswith(PREFIX):
            yield from members_of(Path("libs") / requirement.removeprefix(PREFIX))


if __name__ == "__main__":
    sys.stdout.write("\n".join(f"./{each}" for each in dict.fromkeys(members_of(Path(sys.argv[1])))) + "\n")
