"""`python -m keelson.projector`: the projector as a process; with a command, what an operator does with projections."""

import os
import sys

from keelson.projector.app import build_app
from keelson.projector.commands import parse, perform
from keelson.projector.settings import ProjectorSettings
from keelson.service.server import refuse, run
from keelson.settings import SettingsError


def main() -> int:
    """Run the service, or the command; give the process's exit code."""
    given = parse(sys.argv[1:])
    if given.command is None:
        return run(ProjectorSettings, build_app)
    try:
        settings = ProjectorSettings.load(os.environ)
    except SettingsError as error:
        return refuse(str(error))
    return perform(given.command, given, settings)


if __name__ == "__main__":
    sys.exit(main())
