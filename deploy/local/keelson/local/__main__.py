"""`python -m keelson.local run | demo | docs`."""

import argparse
import os
import sys
from collections.abc import Iterator

from keelson.local import demo, docs, supervisor
from keelson.local.errors import LocalError
from keelson.local.settings import EXPLANATION


def main() -> int:
    """Run what the command line names; a problem is told in plain words, without a traceback."""
    code = 1
    try:
        code = _dispatch(_parse().command)
    except* LocalError as errors:
        for error in _leaves(errors):
            sys.stderr.write(f"keelson: {error}\n")
    return code


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m keelson.local",
        description="Keelson on one machine",
        epilog=EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="start PostgreSQL, the services, a scheduler and two nodes; Ctrl-C stops them")
    commands.add_parser("demo", help="a small company's platform from nothing, against a running stack")
    commands.add_parser("docs", help="write what is generated from the code and committed anew")
    return parser.parse_args()


def _dispatch(command: str) -> int:
    if command == "run":
        return supervisor.run(os.environ)
    if command == "demo":
        return demo.run_demo(os.environ)
    docs.main()
    return 0


def _leaves(errors: BaseExceptionGroup[LocalError]) -> Iterator[BaseException]:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


if __name__ == "__main__":
    sys.exit(main())
