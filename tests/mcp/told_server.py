"""An MCP server that tells a test what its tools go through: `told_server.py PORT [options]`.

It runs on `mcp` 2.x or 1.x, whichever its interpreter has.  Port 0 is any; the port is told as
`{"listens": 1234}`.  Each tool tells `began`, and then `ended` or `cancelled`, with the marker of
its call; one that is `held` waits until the test says `{"release": marker}`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from importlib import import_module
from importlib.metadata import version
from typing import Any

from tests.mcp.lines import commands, tell

# By name, because only one of the two majors is the one that our own interpreter has.
MODERN = version("mcp").startswith("2.")
framework: Any = import_module("mcp.server.mcpserver" if MODERN else "mcp.server.fastmcp")
types: Any = import_module("mcp_types" if MODERN else "mcp.types")
uvicorn: Any = import_module("uvicorn")
Context: Any = framework.Context
Server: Any = framework.MCPServer if MODERN else framework.FastMCP

ONLY_MODERN = {
    "jsonrpc": "2.0",
    "id": None,
    "error": {
        "code": -32022,
        "message": "Unsupported protocol version",
        "data": {"supported": ["2026-07-28"], "requested": ""},
    },
}

_releases: dict[str, asyncio.Event] = {}


async def _run(tool: str, marker: str, steps: int, held: bool, context: Any) -> str:
    """What every tool does."""
    tell(event="began", tool=tool, marker=marker)
    try:
        for step in range(1, steps + 1):
            await context.report_progress(step, steps)
        if held:
            await _releases.setdefault(marker, asyncio.Event()).wait()
    except BaseException:
        tell(event="cancelled", tool=tool, marker=marker)
        raise
    tell(event="ended", tool=tool, marker=marker)
    return json.dumps({"from": "mcp", "tool": tool, "marker": marker})


def server(options: argparse.Namespace) -> Any:
    """The application, with a tool that only reads and one that writes."""
    transport = {"json_response": options.json, "stateless_http": options.stateless}
    made = Server("told", instructions="Ask for slots first.", **({} if MODERN else transport))

    async def get_available_slots(
        marker: str, context: Context, steps: int = 0, held: bool = False
    ) -> str:
        return await _run("get_available_slots", marker, steps, held, context)

    async def book_appointment(
        marker: str, context: Context, steps: int = 0, held: bool = False
    ) -> str:
        return await _run("book_appointment", marker, steps, held, context)

    only_reads = types.ToolAnnotations(readOnlyHint=True)
    made.add_tool(get_available_slots, description="Free slots of a day.", annotations=only_reads)
    made.add_tool(book_appointment, description="Book a slot.")
    return made.streamable_http_app(**(transport if MODERN else {}))


def only_modern(app: Any) -> Any:
    """What a server answers that has given up the handshake."""
    refusal = json.dumps(ONLY_MODERN).encode()
    fields = [(b"content-type", b"application/json")]

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        if scope["type"] != "http" or headers.get(b"mcp-protocol-version") == b"2026-07-28":
            await app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 400, "headers": fields})
        await send({"type": "http.response.body", "body": refusal})

    return guarded


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--json", action="store_true", help="answer in JSON, not in streams")
    parser.add_argument("--stateless", action="store_true", help="no sessions on the legacy wire")
    parser.add_argument("--only-modern", action="store_true", help="refuse handshakes")
    options = parser.parse_args()
    app = server(options)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", options.port))
    listener.listen(1024)
    config = uvicorn.Config(
        only_modern(app) if options.only_modern else app, log_level="warning", ws="none"
    )
    serving = uvicorn.Server(config)
    task = asyncio.create_task(serving.serve(sockets=[listener]))
    tell(listens=listener.getsockname()[1])
    async for command in commands():
        _releases.setdefault(command["release"], asyncio.Event()).set()
    serving.should_exit = serving.force_exit = True
    await task


if __name__ == "__main__":
    asyncio.run(main())
