"""The least that a proxy written with aiohttp can do: pass requests on, pass answers back.

Its share of an answer's time is what this machine charges for one more hop.
Run as a script: passing.py PORT ORIGIN_PORT
"""

from __future__ import annotations

import asyncio
import sys

import uvloop
from aiohttp import ClientSession, web

from tests.bench.place import Place

KEY = "passing"
LABEL = "aiohttp, passing on"

HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length"}


def command(place: Place) -> list[str]:
    """This file, as a process."""
    ports = [str(place.port), str(place.origin_port)]
    return [sys.executable, "-m", "tests.bench.peers.passing", *ports]


def fault(place: Place, requests: int) -> str | None:
    """It promises nothing but an answer."""
    return None


async def serve(port: int, origin: int) -> None:
    """Serve until killed."""
    async with ClientSession(auto_decompress=False) as session:

        async def handle(request: web.BaseRequest) -> web.Response:
            headers = {
                name: value for name, value in request.headers.items() if name.lower() not in HOP
            }
            url = f"http://127.0.0.1:{origin}{request.path_qs}"
            body = await request.read()
            async with session.request(request.method, url, data=body, headers=headers) as answer:
                kept = {
                    name: value for name, value in answer.headers.items() if name.lower() not in HOP
                }
                return web.Response(status=answer.status, body=await answer.read(), headers=kept)

        runner = web.ServerRunner(web.Server(handle))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(*map(int, sys.argv[1:])))
