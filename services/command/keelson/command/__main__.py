"""`python -m keelson.command`: the command service as a process."""

import sys

from keelson.command.app import build_app
from keelson.command.settings import CommandSettings
from keelson.service.server import run

if __name__ == "__main__":
    sys.exit(run(CommandSettings, build_app))
