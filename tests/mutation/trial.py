"""Trying a mutant: the tests that should notice it run on a copy that has it, and what they say is judged."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from mutation.copies import Copy
from mutation.mutant import Mutant, MutantError
from mutation.witness import Seen

# What a test may take on a mutant, which may hang, and on sound code; what a whole trial may, and all tests before. No
# test takes a third of it on a quiet machine: one that is merely slow must not be taken for one that has found the bug.
TEST_TIMEOUT_S = 40
SOUND_TEST_TIMEOUT_S = 120
TRIAL_TIMEOUT_S = 180
PREPARATION_TIMEOUT_S = 1200

# A test that fails so has found a mistake in the table, not the bug.
MISTAKES = frozenset({"ImportError", "ModuleNotFoundError", "NameError", "SyntaxError", "UnboundLocalError"})

_TESTED, _FAILED = 0, 1

# Without what only takes time: a trial is mostly pytest's start.
_OPTIONS = ("-q", "-p", "mutation.witness", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "--assert=plain")


# `broken` says nothing of the mutant; `skipped` neither: this machine lacks what its tests need.
Outcome = Literal["caught", "SURVIVED", "broken", "skipped"]


class Verdict(NamedTuple):
    """What became of a mutant, and why if it is not `caught`."""

    outcome: Outcome
    why: str
    seconds: float


class Run(NamedTuple):
    """What pytest did: its exit code, what it printed, and what became of each test."""

    code: int
    output: str
    seen: Sequence[Seen]


def run_tests(copy: Copy, ids: Iterable[str], timeout_s: float, test_timeout_s: float = TEST_TIMEOUT_S) -> Run:
    """Run tests in a copy; several at a time may."""
    folder = Path(tempfile.mkdtemp(dir=copy.folder))
    witness = folder / "witness"
    options = [
        f"--witness={witness}",
        f"--basetemp={folder / 'temporary'}",
        f"--timeout={test_timeout_s}",
        "--tb=short",
    ]
    try:
        done = subprocess.run(  # noqa: S603 - our own tests
            [str(copy.python), "-m", "pytest", *_OPTIONS, *options, *ids],
            cwd=copy.root,
            env={**os.environ, "PYTHONPATH": str(copy.root / "tests")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Run(-1, f"not done within {timeout_s:g} s", ())
    lines = witness.read_bytes().splitlines() if witness.exists() else []
    return Run(done.returncode, done.stdout + done.stderr, [msgspec.json.decode(line, type=Seen) for line in lines])


def prepare(copy: Copy, mutants: Iterable[Mutant], jobs: int) -> str | None:
    """Run all tests of the mutants on code without any bug; give what is wrong if they do not all pass.

    As many at a time as mutants will be tried: a test that fails by that alone is found here.
    """
    copy.make()
    ids = sorted({test for mutant in mutants for test in mutant.ids})
    parts = [ids[number::jobs] for number in range(min(jobs, len(ids)))]
    with ThreadPoolExecutor(jobs) as threads:
        runs = list(threads.map(lambda part: run_tests(copy, part, PREPARATION_TIMEOUT_S, SOUND_TEST_TIMEOUT_S), parts))
    return next((_say_what_failed(run) for run in runs if run.code != _TESTED), None)


def _say_what_failed(run: Run) -> str:
    failed = [f"{each.test}: {each.phase}: {', '.join(each.errors)}" for each in run.seen if each.errors]
    return "\n".join([run.output, f"pytest ended with {run.code}", *failed])


def attempt(mutant: Mutant, sound: Copy) -> Verdict:
    """Try a mutant in a copy of its own, of a copy where its tests pass."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="keelson-mutant-") as folder:
        copy = Copy(Path(folder))
        copy.make(sound)
        try:
            mutant.apply(copy.root)
        except MutantError as error:
            return Verdict("broken", str(error), time.monotonic() - began)
        outcome, why = judge(mutant, run_tests(copy, mutant.ids, TRIAL_TIMEOUT_S))
    return Verdict(outcome, why, time.monotonic() - began)


def judge(mutant: Mutant, run: Run) -> tuple[Outcome, str]:
    """Say whether each of the mutant's tests ran and failed by what it asserts, not by its set-up or an import."""
    if run.code not in (_TESTED, _FAILED):
        return "broken", f"pytest ended with {run.code}:\n{run.output}"
    for test in mutant.ids:
        if any(each.skipped and _is_of(each.test, test) for each in run.seen):
            return "skipped", f"{test} is skipped on this machine"
        calls = [each for each in run.seen if each.phase == "call" and _is_of(each.test, test)]
        failed = [each for each in calls if each.errors]
        mistakes = {kind for each in failed for kind in each.errors if kind in MISTAKES}
        if not calls or mistakes:
            return "broken", f"{test} {'met ' + ', '.join(mistakes) if mistakes else 'did not run'}:\n{run.output}"
        if not failed:
            return "SURVIVED", f"{test} passes"
    return "caught", ""


def _is_of(test: str, asked: str) -> bool:
    return test == asked or test.startswith(f"{asked}[")
