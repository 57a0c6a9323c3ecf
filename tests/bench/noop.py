"""`python -m bench.noop PORT [SERVER]`: what HTTP itself costs: a plain Starlette, on uvicorn as ours or on another."""

import sys

import msgspec
import uvicorn
from granian import Granian
from granian.constants import Interfaces, Loops
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_ANSWER = msgspec.json.encode({"position": 42, "changed": True})


async def get(_request: Request) -> Response:
    """Answer at once."""
    return Response(_ANSWER, media_type="application/json")


async def post(request: Request) -> Response:
    """Read the body, and answer."""
    msgspec.json.decode(await request.body())
    return Response(_ANSWER, media_type="application/json")


APP = Starlette(routes=[Route("/v1/commands/{name}", post, methods=["POST"]), Route("/v1/envs/{id}", get)])


def _run_uvicorn(port: int) -> None:
    uvicorn.run(APP, port=port, loop="uvloop", http="httptools", log_level="warning", access_log=False)


def _run_granian(port: int) -> None:
    Granian(
        "bench.noop:APP", port=port, interface=Interfaces.ASGI, loop=Loops.uvloop, log_enabled=False, websockets=False
    ).serve()


SERVERS = {"uvicorn": _run_uvicorn, "granian": _run_granian}

if __name__ == "__main__":
    SERVERS[sys.argv[2] if len(sys.argv) > 2 else "uvicorn"](int(sys.argv[1]))
