"""`python -m keelson.scheduler`: the scheduler as a process."""

import sys

from keelson.scheduler.app import build_app
from keelson.scheduler.settings import SchedulerSettings
from keelson.service.server import run

if __name__ == "__main__":
    sys.exit(run(SchedulerSettings, build_app))
