"""A small HTTP service that greets: something real to deploy. It needs Python 3.11 and nothing else."""

import hashlib
import hmac
import json
import os
import select
import signal
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer

# A client that says nothing for so long is hung up on; so it cannot hold up a stop either.
SILENCE_S = 5


def read_greeting() -> dict[str, str]:
    """Give what is answered, from the variables; signed by the secret SIGNING_KEY, where there is one."""
    greeting = os.environ.get("GREETING", "Hello")
    said = {
        "greeting": greeting,
        "release": os.environ.get("KEELSON_RELEASE", "none"),
        "instance": os.environ.get("KEELSON_INSTANCE_ID", "none"),
    }
    key = Path(os.environ.get("KEELSON_SECRETS_DIR", "")) / "SIGNING_KEY"
    if key.is_file():
        said["signature"] = hmac.new(key.read_bytes(), greeting.encode(), hashlib.sha256).hexdigest()
    return said


class Greeter(ThreadingTCPServer):
    """The server; each request has a thread of its own, which a stop waits for."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, port: int, said: dict[str, str]) -> None:
        super().__init__((os.environ.get("HOST", "127.0.0.1"), port), Answer)
        self.said = json.dumps(said).encode() + b"\n"

    def finish(self) -> None:
        """Answer whoever has connected so far, then stop."""
        self.shutdown()
        while select.select([self.socket], [], [], 0)[0]:
            self.handle_request()
        self.server_close()


class Answer(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Greeter
    timeout = SILENCE_S

    def do_GET(self) -> None:
        """Greet at /, say at /healthz that all is well."""
        answers = {"/": self.server.said, "/healthz": b"ok\n"}
        body = answers.get(self.path)
        self.send_response(HTTPStatus.NOT_FOUND if body is None else HTTPStatus.OK)
        self.send_header("Content-Type", "application/json" if self.path == "/" else "text/plain")
        self.end_headers()
        self.wfile.write(body or b"not found\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as http.server calls it
        """Say on standard output what was asked, but for health checks."""
        if self.path != "/healthz":
            sys.stdout.write(f"{format % args}\n")
            sys.stdout.flush()


def main() -> None:
    """Serve on PORT_HTTP until SIGTERM or SIGINT."""
    # Blocked before there are threads, so that none of them is interrupted.
    signals = (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    server = Greeter(int(os.environ["PORT_HTTP"]), read_greeting())
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
    signal.sigwait(signals)
    server.finish()


if __name__ == "__main__":
    main()
