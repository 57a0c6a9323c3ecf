"""The repository as files: where it is, and what in it is source."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

CODE = ("libs", "services", "deploy", "examples")

# What installing, building and running leave behind; .gitignore names the same.
NOT_SOURCE = frozenset({"__pycache__", "uv.lock"})
DOTTED_SOURCE = frozenset({".ci", ".gitignore", ".dockerignore", ".github"})


def source_files(folder: Path = ROOT) -> Iterator[Path]:
    """Give every file that is, or would be, committed; works in a copy without git too."""
    for path in sorted(folder.iterdir()):
        if path.name in NOT_SOURCE or (path.name.startswith(".") and path.name not in DOTTED_SOURCE):
            continue
        if path.is_dir():
            yield from source_files(path)
        elif path.is_file():
            yield path


def code_files(suffix: str = ".py") -> list[Path]:
    """Give the files with this suffix of all that is shipped; tests are not."""
    return [path for folder in CODE for path in source_files(ROOT / folder) if path.suffix == suffix]


def name_of(path: Path) -> str:
    """Give a file's path as it is written in the repository."""
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    """Give a Python file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
