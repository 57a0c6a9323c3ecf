"""Every failure that this system must stand has a guard, and a test named by its number.

And a mutant, which shows that the test fails without the guard.
"""

import re

import pytest

from mutation.table import MUTANTS
from support.repository import ROOT, source_files

# Reading from replicas (F27) comes later.
GUARDED = [*(f"F{n}" for n in range(1, 46) if n != 27), "F13a", "F14a"]

TESTS = {
    path.name: path.read_text(encoding="utf-8")
    for path in source_files(ROOT / "tests")
    if path.name.startswith("test_") and path.suffix == ".py" and path.parent.name != "architecture"
}


@pytest.mark.parametrize("number", GUARDED)
def test_a_failure_has_a_test_that_names_it(number: str) -> None:
    named = re.compile(rf"def test_(?:planted_)?{number.lower()}_")
    assert [name for name, text in TESTS.items() if named.search(text)]


@pytest.mark.parametrize("number", GUARDED)
def test_a_failure_has_a_mutant(number: str) -> None:
    assert number in {mutant.number for mutant in MUTANTS}
