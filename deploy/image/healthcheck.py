"""Exit with 0 if the service in this container says that it can do its work now; no image holds a client for HTTP.

A raw socket, since importing a client costs ten times the CPU of the question, and it is asked for ever.
"""

import os
import socket
import sys

TIMEOUT_S = 3.0


def is_ready(port: int) -> bool:
    """Ask /readyz on loopback; False for any answer but 200, and for none in time."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(not is_ready(int(os.environ["KEELSON_PORT"])))
