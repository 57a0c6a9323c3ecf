"""Asking a hostname all the while, as the demo does: by real servers, of which some do not answer."""

import asyncio
import json
import socketserver
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from keelson.client.reads.edge import Backend
from keelson.local.demo.asking import ask_until
from support.waiting import free_port

GREETING = json.dumps({"greeting": "Hello", "release": "1", "instance": "instance_1"}).encode()
HEAD = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(GREETING)


@contextmanager
def answering(answer: bytes) -> Iterator[Backend]:
    """Run a server that says this to each request."""

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(answer)

    with socketserver.TCPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Backend(host="127.0.0.1", port=server.server_address[1], instance_id="instance_1")
        finally:
            server.shutdown()
            thread.join(10)


async def tell(*backends: Backend, turns: int) -> str:
    """Ask until the backends were read so often; give what is told of it."""
    stop, looks = asyncio.Event(), 0

    async def read() -> Sequence[Backend]:
        nonlocal looks
        looks += 1
        if looks == turns:
            stop.set()
        return backends

    return (await ask_until(stop, read, "shop.example")).told()


async def test_it_is_told_that_all_were_answered() -> None:
    with answering(HEAD + GREETING) as backend:
        assert await tell(backend, turns=3) == "3 by release 1, none unanswered"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        HEAD,
        HEAD + GREETING[:-5],
        b"HTTP/1.0 200 OK\r\n\r\n" + GREETING[:-5],
        HEAD.replace(b"200 OK", b"503 Away") + GREETING,
    ],
)
async def test_it_is_told_how_often_a_backend_did_not_answer_in_full(answer: bytes) -> None:
    with answering(answer) as broken, answering(HEAD + GREETING) as sound:
        assert await tell(broken, sound, turns=4) == "2 by release 1, 2 unanswered"


async def test_a_backend_that_refuses_is_counted_too() -> None:
    nobody = Backend(host="127.0.0.1", port=free_port(), instance_id="instance_2")
    with answering(HEAD + GREETING) as sound:
        assert await tell(sound, nobody, turns=3) == "2 by release 1, 1 unanswered"
