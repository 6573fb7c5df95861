"""The same callsplit before an MCP server, as `make compiled` built it."""

from __future__ import annotations

from tests.bench.peers import callsplit_compiled, callsplit_mcp
from tests.bench.place import Place

KEY = "compiled"
LABEL = "callsplit, compiled"

fault = callsplit_mcp.fault


def command(place: Place) -> list[str]:
    """The same rules, another interpreter."""
    _, *arguments = callsplit_mcp.command(place)
    return [str(callsplit_compiled.PYTHON), "-I", *arguments]
