"""A plugin of pytest: sees that the copy's code is tested, and writes down which tests ran, and how they failed."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

import keelson


class Seen(msgspec.Struct, frozen=True):
    """A phase of a test (`setup`, `call` or `teardown`); `errors` are the types that it failed with, if it did."""

    test: str
    phase: str
    errors: list[str]
    skipped: bool = False


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the file to write to."""
    parser.addoption("--witness", type=Path, required=True, help="file for what was seen: a JSON object a line")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to test any code but the copy's."""
    foreign = [place for place in keelson.__path__ if not Path(place).is_relative_to(config.rootpath)]
    if foreign:
        raise pytest.UsageError(f"not only the copy would be tested: {foreign}")
    config.getoption("--witness").touch()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """Write down each phase of each test."""
    report: pytest.TestReport = yield
    errors = _kinds(call.excinfo.value) if call.excinfo is not None and report.failed else []
    with item.config.getoption("--witness").open("ab") as file:
        file.write(msgspec.json.encode(Seen(item.nodeid, str(report.when), errors, report.skipped)) + b"\n")
    return report


def _kinds(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [kind for each in error.exceptions for kind in _kinds(each)]
    return [type(error).__name__]
