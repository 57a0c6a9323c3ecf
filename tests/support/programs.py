"""Programs of the machine that a test needs."""

import os
import shutil

import pytest


def needs(program: str, why: str) -> pytest.MarkDecorator:
    """Skip a test, and say why, where a program is missing; in CI it runs all the same, and so fails."""
    missing = shutil.which(program) is None and "CI" not in os.environ
    return pytest.mark.skipif(missing, reason=f"{program} is missing: {why}")
