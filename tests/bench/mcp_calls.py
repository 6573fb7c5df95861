"""What MCP callers of a bench say, in both eras."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.bench.calls import function
from tests.bench.peers.callsplit_mcp import TOKEN
from tests.bench.peers.mcp_server import TOOL

LEGACY, MODERN = "2025-11-25", "2026-07-28"
ERAS = {"legacy": LEGACY, "modern": MODERN}
_META = "io.modelcontextprotocol/"
_ABOUT = {"name": "bench", "version": "1"}

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": _ABOUT},
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def headers(era: str) -> dict[str, str]:
    """Those of every tools/call in that era."""
    fields = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "authorization": f"Bearer {TOKEN}",
    }
    if era == "handshake":
        return fields
    fields["mcp-protocol-version"] = ERAS[era]
    if era == "modern":
        fields |= {"mcp-method": "tools/call", "mcp-name": TOOL}
    return fields


def tools_call(era: str, number: int, pick: random.Random) -> bytes:
    """One call of the tool, with arguments of its own."""
    params: dict[str, Any] = {"name": TOOL, "arguments": function(TOOL, pick)["args"]}
    if era == "modern":
        params["_meta"] = {
            f"{_META}protocolVersion": MODERN,
            f"{_META}clientInfo": _ABOUT,
            f"{_META}clientCapabilities": {},
        }
    message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    return json.dumps(message, separators=(",", ":")).encode()


def write_pool(path: Path, count: int) -> None:
    """`count` calls of the modern era on the wire, as `load.lua` reads them."""
    pick = random.Random()
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers("modern").items())
    with path.open("wb") as file:
        for number in range(count):
            body = tools_call("modern", number, pick)
            head = (
                f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:80\r\n{fields}Content-Length: {len(body)}"
            )
            request = head.encode() + b"\r\n\r\n" + body
            file.write(b"%d\n%b" % (len(request), request))
