"""The MCP server behind every peer of `make bench-mcp`: `mcp` 2.x, answers in JSON, both eras.

Run as a script: mcp_server.py PORT
"""

from __future__ import annotations

import sys

import uvicorn
from mcp.server.mcpserver import MCPServer

from tests.bench.place import Place

TOOL = "book_appointment"


def command(place: Place) -> list[str]:
    """This file, as a process at `place.origin_port`."""
    return [sys.executable, "-m", "tests.bench.peers.mcp_server", str(place.origin_port)]


async def book_appointment(date: str, service: str, note: str) -> str:
    """Book an appointment."""
    return f"Booked for {date}."


def main() -> None:
    """Serve until killed."""
    server = MCPServer("bench")
    server.add_tool(book_appointment, name=TOOL)
    app = server.streamable_http_app(json_response=True)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
