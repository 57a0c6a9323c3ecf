"""`python -m keelson.agent`: the agent of one node as a process, on Linux alone."""

import sys


def main() -> int:
    """Say so where this is not Linux, else do what the arguments say; give the process's exit code."""
    if sys.platform != "linux":
        sys.stderr.write("keelson: the node agent runs on Linux alone: it knows processes by /proc and by pidfds\n")
        return 2
    from keelson.agent.program import run  # noqa: PLC0415 - what that imports is there on Linux alone

    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:  # what the log could not take; Python would try once more, and make that the exit code
        sys.stdout = None
    return code


if __name__ == "__main__":
    sys.exit(main())
