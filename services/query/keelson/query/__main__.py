"""`python -m keelson.query`: the query service as a process."""

import sys

from keelson.query.app import build_app
from keelson.query.settings import QuerySettings
from keelson.service.server import run

if __name__ == "__main__":
    sys.exit(run(QuerySettings, build_app))
