"""`python -m keelson.command`: the command service as a process; with a command, what an operator does with secrets."""

import os
import sys

from keelson.command.app import build_app
from keelson.command.commands import parse, perform
from keelson.command.settings import CommandSettings, RotationSettings
from keelson.service.server import refuse, run
from keelson.settings import SettingsError


def main() -> int:
    """Run the service, or the command; give the process's exit code."""
    if not parse(sys.argv[1:]):
        return run(CommandSettings, build_app)
    try:
        settings = RotationSettings.load(os.environ)
    except SettingsError as error:
        return refuse(str(error))
    return perform(settings)


if __name__ == "__main__":
    sys.exit(main())
