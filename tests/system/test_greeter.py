"""The example that is deployed: what it answers, and that a stop lets go of nobody who has asked."""

import hashlib
import hmac
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from support.repository import ROOT
from support.waiting import eventually, free_port


@contextmanager
def greeter(**variables: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run one with these variables and no others; lend the process and its port."""
    port = free_port()
    process = subprocess.Popen(  # noqa: S603 - our own
        [sys.executable, ROOT / "examples" / "greeter" / "greeter.py"],
        env={"PATH": os.environ["PATH"], "PORT_HTTP": str(port), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process, port
    finally:
        process.kill()
        process.communicate(timeout=5)


def ask(port: int, path: str = "/") -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return bytes(answer.read())


async def test_it_says_what_it_was_told_and_that_it_has_the_secret(tmp_path: Path) -> None:
    (tmp_path / "SIGNING_KEY").write_text("of the bakery")
    told = {"GREETING": "Good morning", "KEELSON_RELEASE": "2", "KEELSON_INSTANCE_ID": "instance_x"}
    with greeter(**told, KEELSON_SECRETS_DIR=str(tmp_path)) as (_, port):
        assert await eventually(lambda: ask(port, "/healthz")) == b"ok\n"
        assert msgspec.json.decode(ask(port)) == {
            "greeting": "Good morning",
            "release": "2",
            "instance": "instance_x",
            "signature": hmac.new(b"of the bakery", b"Good morning", hashlib.sha256).hexdigest(),
        }
        with pytest.raises(urllib.error.HTTPError) as refusal:
            ask(port, "/nothing")
        refusal.value.close()
        assert refusal.value.code == 404


async def test_without_a_secret_it_signs_nothing() -> None:
    with greeter() as (_, port):
        assert await eventually(lambda: ask(port, "/healthz"))
        assert msgspec.json.decode(ask(port)) == {"greeting": "Hello", "release": "none", "instance": "none"}


async def test_a_stop_answers_whoever_has_asked_and_then_nobody() -> None:
    with greeter() as (process, port):
        assert await eventually(lambda: ask(port, "/healthz"))
        with socket.create_connection(("127.0.0.1", port), timeout=5) as asking:
            asking.sendall(b"GET / HTTP/1.1\r\n")
            process.send_signal(signal.SIGTERM)
            await eventually(lambda: not listens(port))
            asking.sendall(b"Host: greeter\r\n\r\n")
            answer = asking.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
        assert b'"greeting": "Hello"' in answer
        assert process.wait(timeout=5) == 0


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
