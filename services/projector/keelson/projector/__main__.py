"""`python -m keelson.projector`: the projector as a process."""

import sys

from keelson.projector.app import build_app
from keelson.projector.settings import ProjectorSettings
from keelson.service.server import run

if __name__ == "__main__":
    sys.exit(run(ProjectorSettings, build_app))
