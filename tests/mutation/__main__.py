"""`make mutate`: take each guard out of a copy of the code, one at a time, and see that a test fails.

A guard that can be removed unnoticed guards nothing for long. The exit code is 0 only if every mutant is caught, but
for those whose tests are skipped where a program is missing (never in CI).
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mutation.copies import Copy
from mutation.mutant import Mutant
from mutation.table import MUTANTS
from mutation.trial import Verdict, attempt, prepare
from support.database import binaries_for_tests, reachable_folder

# A trial waits half of its time.
_JOBS = 1 + (os.cpu_count() or 1)
# The end of what pytest printed.
SHOWN_LINES = 30


def main(arguments: Sequence[str]) -> int:
    """Try the mutants that were asked for; give the exit code."""
    asked = _parse(arguments)
    chosen = [mutant for mutant in MUTANTS if not asked.numbers or mutant.number in asked.numbers]
    if not chosen:
        _say(f"no mutant of {', '.join(asked.numbers)}")
        return 2
    began = time.monotonic()
    with reachable_folder() as folder:
        # Found, and copied where need be, once for all trials.
        os.environ["KEELSON_TEST_POSTGRES_BIN"] = str(binaries_for_tests(folder))
        sound = Copy(folder)
        wrong = prepare(sound, chosen, asked.jobs)
        if wrong is not None:
            _say(f"without any mutant, the tests should pass:\n{_end_of(wrong)}")
            return 1
        _say(f"{'':4} {'without any mutant, all tests pass':<79} {'':8} {time.monotonic() - began:6.1f} s")
        outcomes = _try_all(chosen, sound, asked.jobs)
    counts = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
    _say(f"{len(chosen)} mutants: {counts}; {time.monotonic() - began:.0f} s")
    return 0 if outcomes.keys() <= {"caught", "skipped"} else 1


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mutation", description=__doc__)
    parser.add_argument("numbers", nargs="*", metavar="F", help="only these failures, such as F9 F35; by default all")
    parser.add_argument("--jobs", type=int, default=_JOBS, help="mutants that are tried side by side")
    return parser.parse_args(arguments)


def _try_all(mutants: Sequence[Mutant], sound: Copy, jobs: int) -> Counter[str]:
    """Try mutants, print a line of each in their order, and count what became of them."""
    outcomes = Counter[str]()
    with ThreadPoolExecutor(jobs) as threads:
        for mutant, verdict in zip(mutants, threads.map(lambda each: attempt(each, sound), mutants), strict=True):
            outcomes[verdict.outcome] += 1
            _say(_line_of(mutant, verdict))
    return outcomes


def _say(line: str) -> None:
    """Print a line at once: whoever waits sees how far it is."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _line_of(mutant: Mutant, verdict: Verdict) -> str:
    line = f"{mutant.number:4} {mutant.bug:<79} {verdict.outcome:8} {verdict.seconds:6.1f} s"
    return f"{line}\n{_end_of(verdict.why)}" if verdict.why else line


def _end_of(output: str) -> str:
    return "\n".join(f"     | {line}" for line in output.splitlines()[-SHOWN_LINES:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
