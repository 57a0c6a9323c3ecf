"""The repository stands alone: pinned, without addresses, and its documents speak of what exists."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.repository import ROOT, name_of, parse, source_files

# What is installed with pinned versions: the images, and the agent on machines of its own.
INSTALLED = ("command", "projector", "query", "scheduler", "cli", "agent")

# Built from parts, so that this file does not hold what it looks for.
FORBIDDEN = [
    re.compile(pattern)
    for pattern in (
        "pypi" + r"\.(org|python)",
        "python" + "hosted",
        "npm" + "js",
        "ana" + "conda",
        "--(extra-)?" + "index-url",
        "--find" + "-links",
        "https?://" + r"\S+\.(whl|tar\.gz|tgz|zip|deb|jar)\b",
        "/wor" + r"k/(main|shared)",
        r"\.\./" + "shared",
    )
]

MENTION = re.compile(r"(tests/[\w/]+\.py)(?:::(\w+))?")
LINK = re.compile(r"\]\(([^)\s]+)\)")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

documents = pytest.mark.parametrize("document", [pytest.param(each, id=name_of(each)) for each in DOCUMENTS])


def offences(text: str) -> list[str]:
    return [match[0] for pattern in FORBIDDEN for match in pattern.finditer(text)]


def test_nothing_names_where_packages_come_from_or_the_machine_it_was_made_on() -> None:
    found = {
        name_of(path): offences(path.read_text(encoding="utf-8", errors="replace"))
        for path in source_files()
        if offences(path.read_text(encoding="utf-8", errors="replace"))
    }

    assert not found


@pytest.mark.parametrize(
    "planted",
    [
        "https://files.python" + "hosted.org/x",
        "--index" + "-url https://example.com",
        "https://example.com/a-1.w" + "hl",
    ],
)
def test_an_address_is_found(planted: str) -> None:
    assert offences(planted)


def pinned(name: str) -> dict[str, str]:
    """Give the versions that a requirements file pins; fails where one has no hash."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    logical = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.lstrip().startswith("#")]
    for line in logical:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", line), f"{name}.txt: no hash in {line}"
    matches = [re.match(r"([\w.-]+)(?:\[[\w,-]+\])?==([\w.+!]+)", line) for line in logical]
    assert all(matches), f"{name}.txt pins what is not name==version"
    return {canonicalize_name(match[1]): match[2] for match in matches if match}


def needs(project: Path) -> Iterator[Requirement]:
    """Give what a member of the workspace needs from outside it, through other members too."""
    declared: dict[str, Any] = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    for text in declared["project"]["dependencies"]:
        requirement = Requirement(text)
        if requirement.name.startswith("keelson-"):
            (member,) = ROOT.glob(f"*/{requirement.name.removeprefix('keelson-')}")
            yield from needs(member)
        else:
            yield requirement


@pytest.mark.parametrize("service", INSTALLED)
def test_what_a_service_needs_is_pinned_with_hashes(service: str) -> None:
    versions = pinned(service)

    for requirement in needs(ROOT / "services" / service):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_development_has_the_versions_that_are_shipped() -> None:
    dev = pinned("dev")

    for service in INSTALLED:
        assert pinned(service).items() <= dev.items()


def test_the_lock_with_its_addresses_is_not_committed() -> None:
    assert "uv.lock" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_make_alone_prints_its_targets() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    printed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout  # noqa: S607

    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    for target in phony.split():
        assert re.search(rf"^  make {target} +\S", printed, re.MULTILINE), f"`make` says nothing of {target}"


@documents
def test_links_lead_somewhere(document: Path) -> None:
    broken = [
        target
        for target in LINK.findall(document.read_text(encoding="utf-8"))
        if not target.startswith(("http://", "https://")) and not leads_somewhere(document, target)
    ]

    assert not broken


def leads_somewhere(document: Path, target: str) -> bool:
    """Say whether a link's file exists and has the heading that it names."""
    file, _, anchor = target.partition("#")
    path = document.parent / file if file else document
    if not path.exists() or not anchor:
        return path.exists()
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return anchor in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


@documents
def test_tests_that_documents_name_exist(document: Path) -> None:
    missing = [
        f"{file}::{function}"
        for file, function in MENTION.findall(document.read_text(encoding="utf-8"))
        if not has_test(ROOT / file, function)
    ]

    assert not missing


def has_test(path: Path, function: str) -> bool:
    """Say whether a file exists and, where one is named, has the function."""
    if not path.is_file():
        return False
    functions = {
        each.name for each in ast.walk(parse(path)) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return not function or function in functions


def test_a_link_and_a_test_that_are_not_there_are_found(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text("## A `heading`, so\n", encoding="utf-8")

    assert leads_somewhere(document, "#a-heading-so")
    assert not leads_somewhere(document, "#another")
    assert not leads_somewhere(document, "gone.md")
    assert not has_test(Path(__file__), "test_that_nobody_wrote")


def test_the_changelog_says_what_is_coming() -> None:
    assert re.search(r"^## \[Unreleased\]$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")

    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_decisions_are_numbered_without_gaps() -> None:
    names = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("*.md"))

    assert [name[:5] for name in names] == [f"{number:04}-" for number in range(1, len(names) + 1)]
    assert names
