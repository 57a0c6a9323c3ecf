"""The compose stack, built and started once for all tests here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.containers import Composed, composed, why_not

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is here, visibly, where no containers can run."""
    ours = [item for item in items if item.path.is_relative_to(_HERE)]
    if ours and (reason := why_not()):
        for item in ours:
            item.add_marker(pytest.mark.skip(reason=f"no containers are tested: {reason}"))


@pytest.fixture(scope="session")
def stack() -> Iterator[Composed]:
    """Start the stack, one of each."""
    with composed() as stack:
        yield stack
