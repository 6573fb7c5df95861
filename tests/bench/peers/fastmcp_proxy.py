"""FastMCP's own proxy, set up kindly: JSON answers, no sessions to keep, one era end to end.

Run as a script in an environment with `fastmcp`: fastmcp_proxy.py PORT ORIGIN_PORT
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from tests.bench.place import Place
from tests.mcp.environments import interpreter

KEY = "fastmcp"
LABEL = "FastMCP's proxy"


def command(place: Place) -> list[str]:
    """This file, as a process.  Raises `tests.mcp.environments.Unavailable`."""
    python = str(interpreter("fastmcp"))
    ports = [str(place.port), str(place.origin_port)]
    return [python, "-m", "tests.bench.peers.fastmcp_proxy", *ports]


def fault(place: Place, requests: int) -> str | None:
    """It promises nothing but an answer."""
    return None


def main() -> None:
    """Serve until killed."""
    port, origin = sys.argv[1:]
    # By name, because our own interpreter does not have it.
    server: Any = import_module("fastmcp.server")
    proxy = server.create_proxy(f"http://127.0.0.1:{origin}/mcp", name="proxy")
    proxy.run(
        transport="http",
        host="127.0.0.1",
        port=int(port),
        path="/mcp",
        log_level="warning",
        show_banner=False,
        json_response=True,
        stateless_http=True,
    )


if __name__ == "__main__":
    main()
