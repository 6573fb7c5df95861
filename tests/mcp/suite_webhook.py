"""A webhook as small apps have one: it knows the suite's simplest tools, by Retell's own request.

`python -m tests.mcp.suite_webhook` prints its port and serves at `/hook`.
"""

from __future__ import annotations

import asyncio
import signal

from aiohttp import web

from tests.mcp.everything_tools import ERROR_TEXT, SIMPLE_TEXT


async def hook(request: web.Request) -> web.Response:
    """A function of Retell's: `{name, args, call}`."""
    match (await request.json())["name"]:
        case "test_simple_text":
            return web.Response(text=SIMPLE_TEXT)
        case "test_error_handling":
            return web.json_response({"success": False, "message": ERROR_TEXT})
        case other:
            return web.json_response({"success": False, "message": f"Unknown: {other}"}, status=404)


async def serve() -> None:
    """Serve until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    application = web.Application()
    application.router.add_post("/hook", hook)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
