"""`python -m bench.noop PORT`: what HTTP itself costs on this stack: Starlette on uvicorn, uvloop and httptools."""

import sys

import msgspec
import uvicorn
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

if __name__ == "__main__":
    uvicorn.run(APP, port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="warning", access_log=False)
