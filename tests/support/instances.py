"""Instances for the tests of agents: made-up ones, and small programs for them to run."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from keelson.client.reads.envs import Health, Port
from keelson.client.reads.nodes import DesiredInstance, InstanceSpec

MIB = 2**20
IMAGE = "registry.example/shop@sha256:" + "0" * 64


def instance_id(number: int) -> str:
    """Give an id."""
    return f"instance_{number:026}"


def wanted(
    number: int = 1,
    *,
    command: Sequence[str] = ("true",),
    ports: Sequence[str] = (),
    memory_bytes: int = 256 * MIB,
    health: Health | None = None,
    variables: Mapping[str, str] | None = None,
    **fields: Any,
) -> DesiredInstance:
    """Give an instance that a node should run."""
    spec = InstanceSpec(
        image=IMAGE,
        command=tuple(command),
        ports=tuple(Port(name=name, port=8080 + at) for at, name in enumerate(ports)),
        cpu_millis=250,
        memory_bytes=memory_bytes,
        health=health,
        variables=dict(variables or {}),
    )
    others = {"release_number": 7, "secret_version": None, "spec_hash": "0" * 64, "desired_state": "running"}
    ids = {name: f"{name.removesuffix('_id')}_{number:026}" for name in _IDS}
    return DesiredInstance(instance_id=instance_id(number), process="web", spec=spec, **{**others, **ids, **fields})


_IDS = ("org_id", "project_id", "app_id", "env_id", "release_id")


def python(code: str) -> list[str]:
    """Give the command that runs this code."""
    return [sys.executable, "-u", "-c", code]


SLEEPS = python("import time; time.sleep(3600)")
# Answers 503 until there is a file `well` where it runs, then 200.
SERVES = python(
    """
import os, pathlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if pathlib.Path(os.environ.get("WELL", "well")).exists() else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT_HTTP"])), Handler).serve_forever()
"""
)
# Says that it is there, and does not go when asked.
STUBBORN = python("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(3600)")
