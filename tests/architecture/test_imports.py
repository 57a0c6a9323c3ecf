"""Who imports whom: the contracts of pyproject.toml hold, and would be seen to be broken."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.repository import CODE, ROOT, code_files, name_of, parse

LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")
MEMBERS = [
    path.parent for folder in ("libs/*", "services/*", "deploy/local") for path in ROOT.glob(f"{folder}/keelson")
]

DOMAIN = "services/command/keelson/command/domain/"
# What a domain module may import beyond the standard library; pyproject.toml forbids much of that.
DOMAIN_IMPORTS = ("keelson.access", "keelson.events", "keelson.command", "msgspec")


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Check a tree's contracts, on its own packages rather than on those that are installed."""
    path = os.pathsep.join(str(root / member.relative_to(ROOT)) for member in MEMBERS)
    return subprocess.run(  # noqa: S603 - our own tool
        [LINT_IMPORTS, "--no-cache", "--no-logo"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": path, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Give a copy of all code, to plant something in."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for folder in CODE:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_every_contract_is_kept() -> None:
    checked = lint_imports(ROOT)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert " 0 broken." in checked.stdout


def test_every_package_is_under_the_contracts() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    for member in MEMBERS:
        for package in (member / "keelson").iterdir():
            assert not package.is_dir() or f'"keelson.{package.name}",' in text


@pytest.mark.parametrize(
    ("module", "planted", "contract"),
    [
        ("services/query/keelson/query/__init__.py", "import keelson.projector", "Layers"),
        ("libs/log/keelson/log/__init__.py", "import keelson.service", "Layers"),
        ("libs/views/keelson/views/__init__.py", "import time", "Events and views are pure"),
        ("libs/client/keelson/client/__init__.py", "import keelson.log", "The client"),
        (f"{DOMAIN}__init__.py", "import random", "The domain"),
        ("services/scheduler/keelson/scheduler/domain/plan.py", "import time", "A plan of the scheduler"),
        ("services/scheduler/keelson/scheduler/__init__.py", "import keelson.log", "What converges"),
    ],
)
def test_an_import_against_the_rules_is_found(copy: Path, module: str, planted: str, contract: str) -> None:
    with (copy / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{planted}\n")

    checked = lint_imports(copy)

    broken = [line for line in checked.stdout.splitlines() if line.endswith("BROKEN")]
    assert checked.returncode != 0
    assert any(line.startswith(contract) for line in broken), checked.stdout


def imported(tree: ast.AST) -> Iterator[str]:
    """Give the modules that a file imports; `from a import b` gives a."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


def is_domains(module: str) -> bool:
    """Say whether the domain may import a module."""
    known = any(module == each or module.startswith(f"{each}.") for each in DOMAIN_IMPORTS)
    return known or module.partition(".")[0] in sys.stdlib_module_names


def test_the_domain_imports_events_msgspec_and_the_standard_library_alone() -> None:
    foreign = [
        f"{name_of(path)} imports {module}"
        for path in code_files()
        if name_of(path).startswith(DOMAIN)
        for module in imported(parse(path))
        if not is_domains(module)
    ]

    assert not foreign


@pytest.mark.parametrize("module", ["asyncpg", "keelson.log.append", "starlette.requests", "typeid"])
def test_what_the_domain_may_not_import_is_told_apart(module: str) -> None:
    assert not is_domains(module)


def test_every_package_says_that_it_is_typed() -> None:
    packages = {path.parent for path in code_files() if path.parent.parent.name == "keelson"}

    assert packages
    assert not [name_of(each) for each in packages if not (each / "py.typed").exists()]
