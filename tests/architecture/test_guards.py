"""Every failure that this system must stand is guarded by a test whose name begins with its number."""

import re

import pytest

from support.repository import ROOT, source_files

# Order and durability, retries, the projector; what comes with failover, streams, agents and tenants comes later.
GUARDED = ["F1", "F2", "F3", "F6", "F7", "F12", "F13", "F13a", "F14", "F14a", *(f"F{n}" for n in range(15, 21))]
GUARDED += ["F22", "F24", "F25"]

TESTS = {
    path.name: path.read_text(encoding="utf-8")
    for path in source_files(ROOT / "tests")
    if path.name.startswith("test_") and path.suffix == ".py" and path.parent.name != "architecture"
}


@pytest.mark.parametrize("number", GUARDED)
def test_a_failure_has_a_test_that_names_it(number: str) -> None:
    named = re.compile(rf"def test_(?:planted_)?{number.lower()}_")
    assert [name for name, text in TESTS.items() if named.search(text)]
