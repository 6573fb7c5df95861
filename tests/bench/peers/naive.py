"""The proxy that people write with aiohttp: `web.Application` in front, `ClientSession` behind.

It parses the body, hashes the call ID and forwards: no auth, limits, metrics or access line.
Run as a script: naive.py PORT ORIGIN_PORT
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator

import mmh3
import uvloop
from aiohttp import ClientSession, web

from tests.bench.place import Place

KEY = "naive"
LABEL = "aiohttp, as people write it"

HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host"}
SESSION = web.AppKey("session", ClientSession)
ARMS = web.AppKey("arms", list[str])


def command(place: Place) -> list[str]:
    """This file, as a process."""
    return [
        sys.executable,
        "-m",
        "tests.bench.peers.naive",
        str(place.port),
        str(place.origin_port),
    ]


def fault(place: Place, requests: int) -> str | None:
    """It promises nothing but an answer."""
    return None


async def handle(request: web.Request) -> web.Response:
    """Split by call ID, forward, answer."""
    body = await request.read()
    call_id = json.loads(body)["call"]["call_id"]
    arm = request.app[ARMS][mmh3.hash(call_id, signed=False) % 100 >= 50]
    headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
    session = request.app[SESSION]
    url = arm + request.path_qs
    async with session.request(request.method, url, data=body, headers=headers) as response:
        answer = await response.read()
        kept = {
            name: value
            for name, value in response.headers.items()
            if name.lower() not in HOP and name.lower() not in ("content-length", "date", "server")
        }
        return web.Response(status=response.status, body=answer, headers=kept)


async def session(app: web.Application) -> AsyncIterator[None]:
    """One client session for the application's life."""
    async with ClientSession() as app[SESSION]:
        yield


def main() -> None:
    """Serve until killed."""
    port, origin = sys.argv[1:]
    app = web.Application()
    app[ARMS] = [f"http://127.0.0.1:{origin}"] * 2
    app.router.add_route("*", "/{tail:.*}", handle)
    app.cleanup_ctx.append(session)
    web.run_app(app, host="127.0.0.1", port=int(port), print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
