"""A service as the front sees it, which does what a real one never would; run in a container by `test_front.py`.

It notes every request as it came, byte for byte, and behaves by its path. Standard library alone.
"""

import json
import socket
import socketserver
import sys
import threading
import time

SEEN: list[str] = []
READY = sys.argv[2] != "never"
BEAT_S = 0.3
COMMENT_S = 15.0


class Handler(socketserver.StreamRequestHandler):
    """One connection."""

    def handle(self) -> None:
        """Answer requests until the client goes."""
        while head := self._read_head():
            path = head.split(" ")[1].partition("?")[0]
            if path == "/readyz":
                self._answer(200 if READY else 503, b"{}")
                continue
            body = self._read_body(head)
            if path == "/seen":
                self._answer(200, json.dumps(SEEN).encode())
                continue
            SEEN.append(head + body)
            if not READY:
                self._answer(503, b"{}")
            elif path.endswith("/drop"):
                return
            elif path.endswith("/stream"):
                self._stream(beats=5, beat_s=BEAT_S)
            elif path.endswith("/long"):
                self._stream(beats=100, beat_s=COMMENT_S)
            else:
                self._answer(200, b"{}")

    def _read_head(self) -> str:
        lines = []
        while (line := self.rfile.readline()) not in (b"", b"\r\n"):
            lines.append(line.decode("latin-1"))
        return "".join(lines)

    def _read_body(self, head: str) -> str:
        for line in head.lower().split("\r\n"):
            if line.startswith("content-length:"):
                return self.rfile.read(int(line.partition(":")[2])).decode("latin-1")
        if "transfer-encoding: chunked" in head.lower():
            body = ""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size).decode("latin-1")
                self.rfile.readline()
            self.rfile.readline()
            return body
        return ""

    def _answer(self, status: int, body: bytes) -> None:
        self.wfile.write(
            b"HTTP/1.1 %d Answer\r\nX-Request-Id: stub\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
        )

    def _stream(self, beats: int, beat_s: float) -> None:
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\nX-Request-Id: stub\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(beats):
            self.wfile.write(b"3\r\n:\n\n\r\n")
            time.sleep(beat_s)
        self.wfile.write(b"0\r\n\r\n")


class Server(socketserver.ThreadingTCPServer):
    """A thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    ports = [int(port) for port in sys.argv[1].split(",")]
    servers = [Server(("", port), Handler) for port in ports]
    threads = [threading.Thread(target=server.serve_forever, daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    sys.stdout.write(f"{socket.gethostname()} serves\n")
    threads[0].join()
