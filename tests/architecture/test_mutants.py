"""The table of mutants fits the code: `make mutate` finds each guard where the table says, and each test."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from mutation.mutant import Mutant, MutantError
from mutation.table import MUTANTS
from mutation.trial import Run, judge
from mutation.witness import Seen
from support.repository import ROOT, parse

PLANTED = Mutant("F1", "planted", "code.py", "guard()", "pass", ("unit/test_planted.py::test_it",))
TEST = "tests/unit/test_planted.py::test_it"

mutants = pytest.mark.parametrize("mutant", [pytest.param(each, id=f"{each.number} {each.bug}") for each in MUTANTS])


@mutants
def test_a_mutant_applies(mutant: Mutant) -> None:
    assert mutant.change((ROOT / mutant.file).read_text(encoding="utf-8"))


def test_no_mutant_speaks_of_what_is_not_there(tmp_path: Path) -> None:
    """A test that fails by an undefined name has not found the bug."""
    for number, mutant in enumerate(MUTANTS):
        if mutant.file.endswith(".py"):
            changed = mutant.change((ROOT / mutant.file).read_text(encoding="utf-8"))
            (tmp_path / f"mutant_{number}.py").write_text(changed, encoding="utf-8")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F82", "--quiet", str(tmp_path)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - our own

    assert (checked.returncode, checked.stdout) == (0, "")


@mutants
def test_its_tests_exist(mutant: Mutant) -> None:
    assert mutant.tests
    for test in mutant.ids:
        file, _, rest = test.partition("::")
        functions = {
            each.name
            for each in ast.walk(parse(ROOT / file))
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert rest.partition("[")[0] in functions, test


def test_bugs_are_told_apart_in_a_line_each() -> None:
    names = [f"{mutant.number} {mutant.bug}" for mutant in MUTANTS]

    assert len(set(names)) == len(names)
    assert not [name for name in names if len(name) > 85 or "\n" in name]


@pytest.mark.parametrize(
    "text", ["", "guard()\nguard()", "def f(:\n    guard()"], ids=["nowhere", "twice", "no Python any more"]
)
def test_a_mutant_that_does_not_fit_is_found(text: str) -> None:
    with pytest.raises(MutantError):
        PLANTED.change(text)


@pytest.mark.parametrize(
    ("code", "seen", "outcome"),
    [
        (1, [Seen(TEST, "setup", []), Seen(TEST, "call", ["AssertionError"])], "caught"),
        (1, [Seen(f"{TEST}[a]", "call", []), Seen(f"{TEST}[b]", "call", ["TimeoutError"])], "caught"),
        (0, [Seen(TEST, "call", [])], "SURVIVED"),
        (1, [Seen(TEST, "call", []), Seen(f"{TEST}_too", "call", ["AssertionError"])], "SURVIVED"),
        (1, [Seen(TEST, "call", []), Seen(TEST, "teardown", ["AssertionError"])], "SURVIVED"),
        (0, [Seen(TEST, "setup", [], skipped=True)], "skipped"),
        (1, [Seen(TEST, "setup", ["ConnectionError"])], "broken"),
        (1, [Seen(TEST, "call", ["NameError"])], "broken"),
        (2, [], "broken"),
        (4, [], "broken"),
        (5, [], "broken"),
    ],
)
def test_a_mutant_is_caught_by_what_its_tests_assert_alone(code: int, seen: list[Seen], outcome: str) -> None:
    assert judge(PLANTED, Run(code, "", seen))[0] == outcome
